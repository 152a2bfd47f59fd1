"""Lesson 09, GRPO and serving: the cases of its exercises.

Oracles: plain loops over groups and tokens (advantages, policy_loss), counting every possible draw (pass_at_k), streams made
of known messages and then cut at random places (events).
"""

import math
import random
from itertools import combinations

import torch


def reference_policy_loss(logp, mask, advantages):
    """−Σ advantage · log p over the tokens the model chose, divided by their number: logp, mask (N, T), advantages (N,)."""
    return -(logp * mask * advantages[:, None]).sum() / mask.sum()


def reference_events(chunks):
    """The data of each server-sent event in a stream of bytes that is cut anywhere."""
    rest, data = b"", []
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" ").decode())
            elif not line and data:
                yield "\n".join(data)
                data = []


# ---------------------------------------------------------------------------------------------------------------------
# 09.advantages


def _same(got, wanted, what):
    assert isinstance(got, torch.Tensor), f"{what}: got {type(got).__name__}, not a tensor"
    assert got.shape == wanted.shape, f"{what}: shape {tuple(got.shape)}, should be {tuple(wanted.shape)}"
    assert torch.isfinite(got).all(), f"{what}: {got.tolist()} is not finite"
    assert torch.allclose(got, wanted, atol=1e-5), f"{what}: {got.tolist()}, should be {wanted.tolist()}"


def subtracts_the_mean(advantages):
    "a group with rewards 1, 0, 0, 1 has advantages ½, −½, −½, ½"
    _same(advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]])), torch.tensor([[0.5, -0.5, -0.5, 0.5]]), "one group")


def each_group_has_its_own_mean(advantages):
    "an easy question and a hard one are judged each by itself"
    rewards = torch.rand(5, 7) + torch.arange(5.0)[:, None]
    wanted = torch.tensor([[r - sum(group) / len(group) for r in group] for group in rewards.tolist()])
    _same(advantages(rewards.clone()), wanted, "five groups")


def groups_of_one_mind_teach_nothing(advantages):
    "all right, or all wrong: every advantage is exactly zero"
    got = advantages(torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
    _same(got, torch.zeros(2, 3), "all right, all wrong")


def keeps_the_scale(advantages):
    "rewards ten times as large give advantages ten times as large"
    rewards = torch.rand(3, 6)
    _same(advantages(10 * rewards), 10 * (rewards - rewards.mean(1, keepdim=True)), "10 × rewards")


def leaves_the_rewards(advantages):
    "the rewards you were given stay as they were"
    rewards = torch.rand(2, 4)
    before = rewards.clone()
    advantages(rewards)
    assert torch.equal(rewards, before), "your function changed the rewards: they are logged afterwards"


# ---------------------------------------------------------------------------------------------------------------------
# 09.policy_loss


def _batch(N=5, T=9):
    """Log-probabilities, a mask of zeros (prompt), ones (answer) with a hole (tool), zeros (padding), and advantages."""
    mask = torch.zeros(N, T)
    for row in mask:
        start = random.randint(1, 4)
        row[start : random.randint(start + 2, T)] = 1
        row[start + 1] = random.randint(0, 1)
    return -3 * torch.rand(N, T), mask, torch.randn(N)


def _slow(logp, mask, advantages):
    total, tokens = 0.0, 0
    for n in range(len(logp)):
        for t in range(logp.size(1)):
            if mask[n, t]:
                total += float(advantages[n]) * float(logp[n, t])
                tokens += 1
    return -total / tokens


def _near(got, wanted, what):
    got = float(got)
    assert math.isfinite(got) and abs(got - wanted) < 1e-4, f"{what}: {got:.5f}, should be {wanted:.5f}"


def equals_a_slow_sum(policy_loss):
    "random rows: the same as adding token by token"
    for _ in range(10):
        batch = _batch()
        _near(policy_loss(*batch), _slow(*batch), "loss")


def takes_no_credit_for_others(policy_loss):
    "tokens that the model did not choose (prompt, tool, padding) do not matter"
    logp, mask, advantages = _batch()
    before = float(policy_loss(logp, mask, advantages))
    changed = torch.where(mask > 0, logp, logp - 7)
    _near(policy_loss(changed, mask, advantages), before, "other tokens changed")


def lower_is_better(policy_loss):
    "a step down the loss makes good answers likelier and bad ones less likely"
    logp, mask, _ = _batch(2)
    logp.requires_grad_()
    policy_loss(logp, mask, torch.tensor([0.5, -0.5])).backward()
    good, bad = logp.grad[0][mask[0] > 0], logp.grad[1][mask[1] > 0]
    assert (good < 0).all(), f"the gradient at the good answer's tokens is {good.tolist()}: a step down makes it less likely"
    assert (bad > 0).all(), f"the gradient at the bad answer's tokens is {bad.tolist()}: a step down makes it likelier"


def every_token_weighs_the_same(policy_loss):
    "a token of a long answer counts as much as one of a short answer"
    logp, mask = torch.full((2, 6), -1.0, requires_grad=True), torch.tensor([[1.0] + 5 * [0.0], 6 * [1.0]])
    policy_loss(logp, mask, torch.tensor([1.0, 1.0])).backward()
    short, long = logp.grad[0, 0].item(), logp.grad[1, 0].item()
    assert abs(short - long) < 1e-6, f"a token of the short answer weighs {short:.4f}, of the long one {long:.4f}"


def counts_tokens_of_all_rows(policy_loss):
    "rows with advantage zero add nothing, but their tokens are counted in the divisor"
    logp, mask = torch.full((2, 4), -2.0), torch.ones(2, 4)
    _near(policy_loss(logp, mask, torch.tensor([1.0, 0.0])), 1.0, "one row of two")


# ---------------------------------------------------------------------------------------------------------------------
# 09.pass_at_k


def _counted(n, c, k):
    """Every way to draw k of n samples, of which the first c are right."""
    draws = list(combinations(range(n), k))
    return sum(min(draw) < c for draw in draws) / len(draws)


def _check_pass(pass_at_k, n, c, k, wanted):
    got = pass_at_k(n, c, k)
    assert abs(got - wanted) < 1e-9, f"pass_at_k({n}, {c}, {k}) is {got}, should be {wanted}"


def gives_the_share_for_one(pass_at_k):
    "one draw: the share of right samples"
    for n, c in ((4, 1), (16, 5), (10, 0), (10, 10)):
        _check_pass(pass_at_k, n, c, 1, c / n)


def equals_counting_draws(pass_at_k):
    "the same as going through all draws of k of the n samples"
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                _check_pass(pass_at_k, n, c, k, _counted(n, c, k))


def is_sure_when_wrong_ones_run_out(pass_at_k):
    "with fewer than k wrong samples, k draws must contain a right one"
    for n, c, k in ((4, 3, 2), (16, 1, 16), (5, 5, 3)):
        _check_pass(pass_at_k, n, c, k, 1.0)


def never_finds_what_is_not_there(pass_at_k):
    "no right sample: zero, for every k"
    for k in (1, 3, 8):
        _check_pass(pass_at_k, 8, 0, k, 0.0)


def copes_with_many_samples(pass_at_k):
    "200 samples, 3 of them right, 50 draws"
    wanted = 1.0
    for i in range(3):                                # all three right ones are among the 150 that were not drawn
        wanted *= (150 - i) / (200 - i)
    _check_pass(pass_at_k, 200, 3, 50, 1 - wanted)


# ---------------------------------------------------------------------------------------------------------------------
# 09.events

MESSAGES = ["hello", '{"delta": {"content": " Öl"}}', "안녕 😉", "two\nlines", "", "  indented", "data: nested", ": no comment",
            "[DONE]"]


def _stream(messages, comments=False):
    out = b""
    for message in messages:
        if comments:
            out += random.choice([b"", b": the engine is at work\n\n", b":\n", b"id: 7\n"])
        out += b"".join(b"data: " + line.encode() + b"\n" for line in message.split("\n")) + b"\n"
    return out


def _cut(data, longest):
    at = 0
    while at < len(data):
        n = random.randint(1, longest)
        yield data[at : at + n]
        at += n


def _got(events, chunks):
    found = list(events(iter(chunks)))
    assert all(isinstance(e, str) for e in found), f"events are text: got {found[:3]}"
    return found


def reads_one_event_a_chunk(events):
    "the friendly case: every chunk is a whole event"
    got = _got(events, [b"data: hello\n\n", b"data: [DONE]\n\n"])
    assert got == ["hello", "[DONE]"], f"got {got}"


def does_not_care_where_chunks_end(events):
    "chunks end in the middle of a line, in the middle of a character, or hold several events"
    for longest in (1, 3, 10, 1000):
        got = _got(events, _cut(_stream(MESSAGES[:3] * 5), longest))
        assert got == MESSAGES[:3] * 5, f"cut into pieces of up to {longest} bytes: {got[:4]}…"


def keeps_the_text_as_it_is(events):
    "one space after the colon goes, all others stay; an empty event is an event"
    for message in MESSAGES:
        got = _got(events, [_stream([message])])
        assert got == [message], f"{message!r} came back as {got}"


def joins_the_lines_of_an_event(events):
    "several data lines before the empty line are one event, joined by a line end"
    got = _got(events, [b"data: a\ndata: b\n\ndata:c\n\n"])
    assert got == ["a\nb", "c"], f"got {got}"


def skips_what_is_no_data(events):
    "comments (lines that begin with a colon) and other fields are not events"
    for _ in range(10):
        got = _got(events, _cut(_stream(MESSAGES, comments=True), 12))
        assert got == MESSAGES, f"with comments between: {got}"


def drops_an_unfinished_event(events):
    "an event ends with an empty line; what comes without one was cut off"
    got = _got(events, [b"data: whole\n\ndata: cut o"])
    assert got == ["whole"], f"got {got}"


def comes_as_it_comes(events):
    "an event is given out as soon as it is complete, not when the stream ends"
    read = []

    def chunks():
        for chunk in (b"data: first\n\n", b"data: second\n\n"):
            read.append(chunk)
            yield chunk

    stream = iter(events(chunks()))
    assert next(stream, None) == "first", "the first event is missing"
    assert len(read) == 1, "the second chunk was read before the first event was given out: use yield"


CASES = {
    "09.advantages": [subtracts_the_mean, each_group_has_its_own_mean, groups_of_one_mind_teach_nothing, keeps_the_scale,
                      leaves_the_rewards],
    "09.policy_loss": [equals_a_slow_sum, takes_no_credit_for_others, lower_is_better, every_token_weighs_the_same,
                       counts_tokens_of_all_rows],
    "09.pass_at_k": [gives_the_share_for_one, equals_counting_draws, is_sure_when_wrong_ones_run_out,
                     never_finds_what_is_not_there, copes_with_many_samples],
    "09.events": [reads_one_event_a_chunk, does_not_care_where_chunks_end, keeps_the_text_as_it_is,
                  joins_the_lines_of_an_event, skips_what_is_no_data, drops_an_unfinished_event, comes_as_it_comes],
}
