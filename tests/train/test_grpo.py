"""GRPO: what an advantage is, which tokens count, what the gradient is, and that ranks and kills do not change it."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from nanochat.engine import Completion
from nanochat.model import GPT, GPTConfig
from nanochat.runtime import UserError, World, open_run
from nanochat.tasks import load_task
from nanochat.tokenizer import Tokenizer
from nanochat.train import checkpoint, grpo
from nanochat.train.launch import launch
from nanochat.train.optim import MuonAdamW
from nanochat.train.saver import Saver

reward_tables = st.integers(1, 6).flatmap(
    lambda s: st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=s, max_size=s), min_size=1, max_size=5))


@given(reward_tables)
def test_advantages_of_a_group_sum_to_zero_and_keep_the_differences(table):
    rewards = torch.tensor(table)
    advantages = grpo.advantages(rewards)
    assert advantages.sum(dim=1).abs().max() < 1e-6
    assert torch.allclose(advantages - advantages[:, :1], rewards - rewards[:, :1], atol=1e-6)


def test_a_group_of_one_mind_has_advantage_zero_exactly():
    for size in (3, 7, 16):
        assert not grpo.advantages(torch.ones(2, size)).any() and not grpo.advantages(torch.zeros(2, size)).any()


def answer(ids, mask=None):
    return Completion(ids, mask or [1] * len(ids), [], "stop")


def test_targets_are_the_tokens_the_model_chose_and_no_others():
    prompts = [[9, 8, 7], [6]]
    groups = [[answer([1, 2, 3, 4], [1, 0, 0, 1]), answer([5])], [answer([]), answer([1, 2])]]
    inputs, targets = grpo.policy_rows(prompts, groups, pad=0)
    assert inputs.tolist() == [[9, 8, 7, 1, 2, 3], [9, 8, 7, 0, 0, 0], [0, 0, 0, 0, 0, 0], [6, 1, 0, 0, 0, 0]]
    assert targets.tolist() == [[-1, -1, 1, -1, -1, 4], [-1, -1, 5, -1, -1, -1], [-1] * 6, [1, 2, -1, -1, -1, -1]]


def small_model(seed=0):
    config = GPTConfig(sequence_len=32, vocab_size=40, n_layer=2, n_head=2, n_kv_head=2, n_embd=16)
    model = GPT(config).init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=generator)
    return model


def sampled(seed=0, prompts=3, samples=4):
    """Prompts and answers of random lengths, with a stretch of forced tokens in some."""
    g = torch.Generator().manual_seed(seed)

    def ids(low, high):
        return torch.randint(0, 40, (int(torch.randint(low, high, (1,), generator=g)),), generator=g).tolist()

    asked, groups = [ids(1, 8) for _ in range(prompts)], []
    for _ in range(prompts):
        groups.append([])
        for _ in range(samples):
            said = ids(1, 12)
            mask = [0 if 2 <= i < 5 and len(said) > 6 else 1 for i in range(len(said))]
            groups[-1].append(answer(said, mask))
    return asked, groups


def gradients(model):
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


def slow_gradients(model, prompts, groups, rewards):
    """Straight from the formula, one token at a time: −1/N Σ (r − mean of the group) · log p(token | all before)."""
    loss, tokens = 0.0, 0
    for prompt, group, row in zip(prompts, groups, rewards.tolist()):
        for a, r in zip(group, row):
            for t, (token, chosen) in enumerate(zip(a.ids, a.mask)):
                if chosen:
                    logits = model(torch.tensor([prompt + a.ids[:t]]))[0, -1]
                    loss = loss - (r - sum(row) / len(row)) * logits.log_softmax(-1)[token]
                    tokens += 1
    (loss / tokens).backward()
    return loss.item() / tokens, gradients(model)


@pytest.mark.parametrize("at_once", [1, 5, 100])
def test_loss_and_gradient_are_those_of_the_formula(at_once):
    model, (prompts, groups) = small_model(), sampled()
    rewards = torch.tensor([[1.0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 1, 0]])
    expected_loss, expected = slow_gradients(model, prompts, groups, rewards)
    rows = grpo.policy_rows(prompts, groups, 0)
    loss = grpo.policy_backward(model, *rows, grpo.advantages(rewards), World(), at_once)
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-4)


def test_equal_rewards_give_no_gradient():
    model, (prompts, groups) = small_model(), sampled()
    for rewards in (torch.ones(3, 4), torch.zeros(3, 4)):
        loss = grpo.policy_backward(model, *grpo.policy_rows(prompts, groups, 0), grpo.advantages(rewards), World(), 8)
        assert loss == 0 and not any(g.any() for g in gradients(model).values())


def test_the_gradient_makes_rewarded_answers_likelier():
    model, (prompts, groups) = small_model(), sampled()
    rewards = torch.zeros(3, 4)
    rewards[:, 0] = 1.0
    inputs, targets = grpo.policy_rows(prompts, groups, 0)
    before = model(inputs, targets, reduction="none").sum(1).view(3, 4)
    grpo.policy_backward(model, inputs, targets, grpo.advantages(rewards), World(), 8)
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.05 * p.grad
    after = model(inputs, targets, reduction="none").sum(1).view(3, 4)
    change = before - after                                                # of log p
    assert (change[:, 0] > change[:, 1:].mean(dim=1)).all()


class HalfWorld(World):
    """One of two ranks whose sums are known in advance."""

    def sum(self, tensor):
        return tensor * 2 if tensor.dtype == torch.int64 else tensor       # both ranks count as many tokens


def test_two_halves_of_the_prompts_give_the_gradient_of_the_whole():
    model, (prompts, groups) = small_model(), sampled(prompts=2)
    prompts, groups = prompts * 2, groups * 2                              # two ranks with the same answers
    rewards = torch.tensor([[1.0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 1, 1], [1, 0, 0, 0]])
    grpo.policy_backward(model, *grpo.policy_rows(prompts, groups, 0), grpo.advantages(rewards), World(), 100)
    whole = gradients(model)
    for half in (slice(0, 2), slice(2, 4)):
        rows = grpo.policy_rows(prompts[half], groups[half], 0)
        grpo.policy_backward(model, *rows, grpo.advantages(rewards[half]), HalfWorld(), 100)
    # gradients of both halves have added up, as the optimizer adds those of the ranks
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, whole[name], atol=1e-6, rtol=1e-4)


def test_a_step_without_any_gradient_or_with_learning_rate_0_leaves_the_weights():
    config = tiny.CONFIGS["grpo"]
    still = config.model_copy(update={"schedule": config.schedule.model_copy(update={"scale": 0.0})})
    model = small_model()
    before = {name: w.clone() for name, w in model.state_dict().items()}
    optimizer = MuonAdamW(model, config.optim, World())
    grpo.optimize(optimizer, 0, 8, config)
    prompts, groups = sampled()
    rewards = torch.tensor([[1.0, 0, 0, 0]] * 3)
    grpo.policy_backward(model, *grpo.policy_rows(prompts, groups, 0), grpo.advantages(rewards), World(), 8)
    grpo.optimize(optimizer, 1, 8, still)
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 5))
def test_every_item_is_asked_once_an_epoch(n, prompts, seed):
    asked = [i for step in range(2 * n) for i in grpo.prompts_of_step(step, prompts, n, seed)]
    for epoch in range(2 * prompts):
        assert sorted(asked[epoch * n : (epoch + 1) * n]) == list(range(n))


# --- the stage itself, on a model that has learned nothing ------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose SFT stage left a random model."""
    run = tiny.make_run(tmp_path_factory.mktemp("grpo") / "one")
    tokenizer = Tokenizer.from_dir(run / "tokenizer")
    model = GPT(GPTConfig(64, tokenizer.vocab_size, n_layer=2, n_head=2, n_kv_head=2, n_embd=32)).init_weights(0)
    state = {"schema": checkpoint.SCHEMA, "tokenizer": tokenizer.digest, "dtype": "float32"}
    with Saver(run / "sft", World()) as saver:
        saver.start(1, model=model, optim={}, data={}, state=state)
    return run


KEYS = {"reward_first", "reward_last", "reward_zero_lr", "reward_more_sft", "heldout_before", "heldout_after"}


def test_one_process_and_two_take_the_same_steps(run):
    shutil.copytree(run.path, run.path.with_name("two"))
    two = open_run(run.path.with_name("two"))
    config = tiny.CONFIGS["grpo"]
    config = config.model_copy(update={"schedule": config.schedule.model_copy(update={"steps": 4})})
    results = [launch("grpo", config, r, tiny.machine(n)) for r, n in ((run, 1), (two, 2))]
    assert all(KEYS <= set(result) for result in results)
    rows = [[row for row in r.history("rl") if "reward" in row] for r in (run, two)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]] == [1, 2, 3, 4]
    for a, b in zip(*rows):
        assert (a["reward"], a["tokens"], a["tool_rate"]) == (b["reward"], b["tokens"], b["tool_rate"])
        assert a["replay_loss"] == pytest.approx(b["replay_loss"], abs=1e-4)
    weights = [checkpoint.load(checkpoint.latest(r / "rl"))[0] for r in (run, two)]
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-3, atol=1e-4)
    again = launch("grpo", config, run, tiny.machine())
    assert again == results[0] == json.loads((run / "rl" / "result.json").read_text())


def test_items_too_long_for_the_context_are_left_out(run):
    tokenizer = Tokenizer.from_dir(run / "tokenizer")
    task = load_task("toy-free", "train", world_folder=run / "data")
    lengths = [len(tokenizer.render_for_completion(task.prompt(i))) for i in range(len(task))]
    room = sorted(lengths)[len(lengths) // 2]
    assert grpo.answerable(task, tokenizer, room) == [i for i, n in enumerate(lengths) if n <= room]
    with pytest.raises(UserError, match="room"):
        grpo.answerable(task, tokenizer, min(lengths) - 1)


def test_prompts_that_do_not_divide_over_the_processes_are_refused(run):
    with pytest.raises(UserError, match="divide"):
        grpo.grpo(run, tiny.CONFIGS["grpo"], tiny.machine(), World(size=3))
