"""Lesson 08, the inference engine: the cases of its exercises.

Oracles: attention over the whole text at once with complex rotations (kv_step), evenly spread numbers u whose counts must
be the probabilities (sample), a tokenizer of letters (tool_step), exact bounds on rounding (quantize), a toy language that
is decoded with and without guesses (accept).
"""

import hashlib
import random
from collections import deque

import torch


def reference_kv_step(q, k, v, keys, values, length, turn):
    """Attention of one new token over a cache: q, k, v (H, D), keys, values (H, max_len, D) -> (H, D)."""
    q = turn(q, length)
    keys[:, length], values[:, length] = turn(k, length), v
    keys, values = keys[:, : length + 1], values[:, : length + 1]                       # (H, S, D)
    scores = (keys @ q.unsqueeze(-1)).squeeze(-1) / q.size(-1) ** 0.5                   # (H, S)
    return (scores.softmax(-1).unsqueeze(1) @ values).squeeze(1)


def reference_sample(logits, temperature, top_k, u):
    """The id that the number u in [0, 1) stands for, of logits (V,)."""
    if temperature == 0:
        return int(logits.argmax())
    logits = logits.double() / temperature
    if top_k is not None and top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], float("-inf"))
    sums = logits.softmax(-1).cumsum(-1)
    return int((sums <= u * sums[-1]).sum())


def reference_tool_step(state, token, tokenizer, tool):
    """Tell a row's tool loop that the model chose `token`."""
    special = tokenizer.special
    if token == special["<|python_start|>"]:
        state["call"] = []
    elif token == special["<|python_end|>"] and state["call"] is not None:
        result = tool(tokenizer.decode(state["call"]))
        state["call"] = None
        if result is not None:
            state["forced"] += [special["<|output_start|>"], *tokenizer.encode(result), special["<|output_end|>"]]
    elif state["call"] is not None:
        state["call"].append(token)


def reference_quantize(weight, bits=8):
    """Whole numbers int8 (n_out, n_in) and a scale (n_out, 1) a row; their product is close to `weight`."""
    most = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1, keepdim=True) / most
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (weight / scale).round().to(torch.int8), scale


def reference_accept(draft, best):
    """The ids to keep: the guesses that were right, up to the first wrong one, and the model's own choice after them."""
    right = 0
    while right < len(draft) and draft[right] == best[right]:
        right += 1
    return best[: right + 1]


# ---------------------------------------------------------------------------------------------------------------------
# 08.kv_step

H, D, MAX = 3, 8, 12


def _turn(x, position):
    """Rotary positions with complex numbers: pair i, i + D/2 of x (H, D) turned clockwise by position / 10000^(2i / D)."""
    a, b = x.double().chunk(2, dim=-1)
    angle = position * 10000.0 ** (-torch.arange(0, x.size(-1), 2, dtype=torch.float64) / x.size(-1))
    turned = torch.complex(a, b) * torch.polar(torch.ones_like(angle), -angle)
    return torch.cat((turned.real, turned.imag), dim=-1).to(x.dtype)


def _text(T):
    return (torch.randn(T, H, D, dtype=torch.float64) for _ in range(3))


def _whole(q, k, v):
    """What the last token's attention returns when the whole text (T, H, D) is read at once."""
    T = len(q)
    k = torch.stack([_turn(k[t], t) for t in range(T)])
    scores = torch.einsum("hd,shd->hs", _turn(q[-1], T - 1), k) / D**0.5
    return torch.einsum("hs,shd->hd", torch.softmax(scores, -1), v)


def _empty():
    return torch.zeros(H, MAX, D, dtype=torch.float64), torch.zeros(H, MAX, D, dtype=torch.float64)


def _close(got, wanted, what):
    assert isinstance(got, torch.Tensor), f"{what}: got {type(got).__name__}, not a tensor"
    assert got.shape == wanted.shape, f"{what}: shape {tuple(got.shape)}, should be {tuple(wanted.shape)}"
    off = (got.double() - wanted.double()).abs().max().item()
    assert off < 1e-6, f"{what}: off by {off:.3g}"


def first_token_sees_itself(kv_step):
    "in an empty cache the new token has only itself to look at: the answer is its own v"
    (q,), (k,), (v,) = _text(1)
    _close(kv_step(q, k, v, *_empty(), 0, _turn), v, "length 0")


def equals_reading_it_all(kv_step):
    "token after token: the same as attention over the whole text"
    q, k, v = _text(MAX)
    keys, values = _empty()
    for t in range(MAX):
        got = kv_step(q[t], k[t], v[t], keys, values, t, _turn)
        _close(got, _whole(q[: t + 1], k[: t + 1], v[: t + 1]), f"token {t}")


def stores_turned_keys_in_its_slot(kv_step):
    "slot `length` of keys holds the key turned to its position, of values the value; no other slot is touched"
    q, k, v = _text(1)
    keys, values = (torch.randn(H, MAX, D, dtype=torch.float64) for _ in range(2))
    before = keys.clone(), values.clone()
    kv_step(q[0], k[0], v[0], keys, values, 5, _turn)
    _close(keys[:, 5], _turn(k[0], 5), "keys[:, 5]")
    _close(values[:, 5], v[0], "values[:, 5]")
    for name, now, then in (("keys", keys, before[0]), ("values", values, before[1])):
        changed = [s for s in range(MAX) if s != 5 and not torch.equal(now[:, s], then[:, s])]
        assert not changed, f"{name}: slot {changed[0]} changed, only slot 5 is new"


def sees_no_later_slot(kv_step):
    "what lies in the slots behind the new token, zeros or rubbish, makes no difference"
    q, k, v = _text(4)
    results = []
    for rubbish in (0.0, 50.0):
        keys, values = (torch.full((H, MAX, D), rubbish, dtype=torch.float64) for _ in range(2))
        for t in range(4):
            got = kv_step(q[t], k[t], v[t], keys, values, t, _turn)
        results.append(got)
    _close(results[0], _whole(q, k, v), "zeros behind it")
    _close(results[1], _whole(q, k, v), "rubbish behind it")


# ---------------------------------------------------------------------------------------------------------------------
# 08.sample

SPREAD = [(i + 0.5) / 1000 for i in range(1000)]       # evenly spread numbers: counts are probabilities, without luck


def _counts(sample, logits, temperature, top_k):
    counts = [0] * len(logits)
    for u in SPREAD:
        i = int(sample(logits, temperature, top_k, u))
        assert 0 <= i < len(logits), f"u = {u:.4f} gave id {i}; there are {len(logits)} ids"
        counts[i] += 1
    return counts


def _demand(sample, logits, temperature, top_k, probs):
    counts = _counts(sample, logits, temperature, top_k)
    for i, (n, p) in enumerate(zip(counts, probs.tolist())):
        assert abs(n - p * len(SPREAD)) <= 2, (
            f"temperature {temperature}, top_k {top_k}: id {i} came {n} times in {len(SPREAD)}, "
            f"its probability is {p:.3f}")


def _weights(logits, temperature):
    weights = torch.exp((logits - logits.max()) / temperature)
    return weights / weights.sum()


def takes_the_best_at_zero(sample):
    "temperature 0 gives the id of the largest logit, whatever u and top_k"
    for _ in range(20):
        logits = torch.randn(12) - 5
        best = max(range(12), key=lambda i: float(logits[i]))
        for top_k in (None, 1, 5):
            got = sample(logits, 0, top_k, random.random())
            assert int(got) == best, f"top_k {top_k}: got {got}, the largest logit is number {best}"


def draws_in_proportion(sample):
    "at temperature 1 each id comes as often as its softmax says"
    logits = torch.randn(8)
    _demand(sample, logits, 1.0, None, _weights(logits, 1.0))


def divides_by_the_temperature(sample):
    "0.5 makes the large ones larger, 2 evens them out"
    logits = torch.tensor([0.3, 2.0, 1.0, -1.0])
    for temperature in (0.5, 2.0):
        _demand(sample, logits, temperature, None, _weights(logits, temperature))


def softens_after_top_k(sample):
    "the k that stay share all of the probability, in the proportion they had"
    logits = torch.tensor([1.0, -2.0, 0.5, 0.8, 0.0, -0.3])
    probs = torch.zeros(6)
    kept = [0, 3, 2]
    probs[kept] = _weights(logits[kept], 1.3)
    _demand(sample, logits, 1.3, 3, probs)


def keeps_all_when_k_is_large(sample):
    "top_k None, as large as the vocabulary or larger: nothing is cut"
    logits = torch.randn(5)
    for top_k in (None, 5, 50):
        _demand(sample, logits, 1.0, top_k, _weights(logits, 1.0))


def never_draws_what_was_cut(sample):
    "u = 0 is the first id that has any probability, not id 0"
    logits = torch.tensor([-4.0, -5.0, 3.0, 2.0])
    got = sample(logits, 1.0, 2, 0.0)
    assert int(got) == 2, f"top_k 2 leaves ids 2 and 3; u = 0 gave {got}"


# ---------------------------------------------------------------------------------------------------------------------
# 08.tool_step


START, END, OUT, OUT_END, STOP = 200, 201, 202, 203, 204


class _Letters:
    """A tokenizer whose ids are letters, with four special ids above them."""

    def __init__(self):
        self.special = {"<|python_start|>": START, "<|python_end|>": END, "<|output_start|>": OUT,
                        "<|output_end|>": OUT_END, "<|assistant_end|>": STOP}

    def encode(self, text):
        return [ord(c) for c in text]

    def decode(self, ids):
        return "".join(chr(i) for i in ids)


def _feed(tool_step, tokens, tool, state=None):
    state = {"call": None, "forced": deque()} if state is None else state
    for token in tokens:
        tool_step(state, token, _Letters(), tool)
    return state


def _ids(text):
    return [ord(c) for c in text]


def hands_over_the_call(tool_step):
    "the tool gets the text between python_start and python_end: all of it and nothing else"
    heard = []
    _feed(tool_step, [*_ids("so "), START, *_ids("34*57"), END, *_ids("!")], lambda call: heard.append(call))
    assert heard == ["34*57"], f"the tool heard {heard}, the call was '34*57'"


def forces_the_result(tool_step):
    "forced then holds output_start, the ids of the result, output_end"
    state = _feed(tool_step, [START, *_ids("6*7"), END], lambda call: "42")
    wanted = [OUT, *_ids("42"), OUT_END]
    assert list(state["forced"]) == wanted, f"forced is {list(state['forced'])}, should be {wanted}"


def forces_nothing_without_a_result(tool_step):
    "a tool that returns None has nothing to say, and an empty result is a result"
    state = _feed(tool_step, [START, *_ids("who?"), END], lambda call: None)
    assert not state["forced"], f"the tool returned None, but forced is {list(state['forced'])}"
    state = _feed(tool_step, [START, END], lambda call: "")
    assert list(state["forced"]) == [OUT, OUT_END], f"the tool returned '', forced is {list(state['forced'])}"


def begins_every_call_anew(tool_step):
    "a second call does not contain the first, and letters between calls belong to none"
    heard = []
    _feed(tool_step, [START, *_ids("1+1"), END, *_ids("and"), START, *_ids("2+2"), END], lambda call: heard.append(call))
    assert heard == ["1+1", "2+2"], f"the tool heard {heard}"
    heard.clear()
    _feed(tool_step, [START, *_ids("oops"), START, *_ids("3"), END], lambda call: heard.append(call))
    assert heard == ["3"], f"python_start in a call begins anew; the tool heard {heard}"


def ignores_an_end_without_a_start(tool_step):
    "python_end out of nowhere, or a second one, calls no tool and breaks nothing"
    heard = []
    state = _feed(tool_step, [*_ids("hm"), END, START, *_ids("5"), END, END, STOP], lambda call: heard.append(call))
    assert heard == ["5"], f"one call was made, the tool heard {heard}"
    assert state["call"] is None, f"no call is open, state['call'] is {state['call']}"


# ---------------------------------------------------------------------------------------------------------------------
# 08.quantize


def _rows():
    """Rows of very different size: one scale cannot fit all."""
    return torch.randn(6, 40) * torch.tensor([1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0])[:, None]


def gives_whole_numbers_and_scales(quantize):
    "int8 of the weight's shape, and one scale for each row: (n_out, 1)"
    whole, scale = quantize(torch.randn(5, 7), 8)
    assert whole.dtype == torch.int8, f"the numbers are {whole.dtype}, not torch.int8"
    assert whole.shape == (5, 7), f"the numbers have shape {tuple(whole.shape)}, the weight (5, 7)"
    assert scale.shape == (5, 1), f"the scale has shape {tuple(scale.shape)}, not (5, 1)"


def rows_have_their_own_scale(quantize):
    "a row of small weights is not drowned by a row of large ones"
    weight = _rows()
    whole, scale = quantize(weight, 8)
    for i in range(len(weight)):
        off = ((whole * scale)[i] - weight[i]).norm() / weight[i].norm()
        assert off < 0.02, f"row {i}, whose weights are about {weight[i].abs().mean():.2g}, is off by {off:.0%}"


def rounds_to_the_nearest(quantize):
    "no weight moves by more than half a step"
    weight = _rows()
    whole, scale = quantize(weight, 8)
    worst = (((whole * scale) - weight).abs() / scale).max().item()
    assert worst <= 0.501, f"a weight moved by {worst:.2f} steps; the nearest whole number is at most 0.5 away"


def largest_is_exact(quantize):
    "the largest weight of a row becomes ±127 and comes back as it was; both signs fit"
    weight = torch.tensor([[0.5, -2.0, 1.0], [3.0, 0.1, -0.2]])
    whole, scale = quantize(weight, 8)
    assert whole[0, 1] == -127 and whole[1, 0] == 127, f"the largest became {int(whole[0, 1])} and {int(whole[1, 0])}"
    back = whole * scale
    assert abs(float(back[0, 1]) + 2) < 1e-5 and abs(float(back[1, 0]) - 3) < 1e-5, f"-2 and 3 came back as {back}"


def zero_rows_stay_zero(quantize):
    "a row of zeros has no largest weight to divide by: its scale is any number but 0"
    weight = torch.randn(3, 4)
    weight[1] = 0
    whole, scale = quantize(weight, 8)
    assert float(scale[1]) > 0, f"row 1 has scale {float(scale[1])}: 0 / 0 is NaN, and what int8 makes of that is luck"
    back = whole * scale
    assert torch.isfinite(back).all(), f"row 1 came back as {back[1].tolist()}"
    assert (back[1] == 0).all(), f"row 1 came back as {back[1].tolist()}"


def fewer_bits_fewer_levels(quantize):
    "with b bits the numbers go from −(2^(b−1) − 1) to 2^(b−1) − 1, and the largest weight is still exact"
    weight = torch.randn(8, 200)
    for bits, most in ((6, 31), (4, 7), (2, 1)):
        whole, scale = quantize(weight, bits)
        assert int(whole.abs().max()) == most, f"{bits} bits: the largest number is {int(whole.abs().max())}, not {most}"
        worst = (((whole * scale) - weight).abs() / scale).max().item()
        assert worst <= 0.501, f"{bits} bits: a weight moved by {worst:.2f} steps"


# ---------------------------------------------------------------------------------------------------------------------
# 08.accept


def _next(ids) -> int:
    """The likeliest next word of a toy language with four words: a function of the last three."""
    return hashlib.sha256(bytes(ids[-3:])).digest()[0] % 4


def accepts_the_example(accept):
    "guesses 7, 8, 9 where the model wants 7, 8, 5: keep 7, 8 and take the 5"
    got = list(accept([7, 8, 9], [7, 8, 5, 1]))
    assert got == [7, 8, 5], f"got {got}"


def stops_at_the_first_miss(accept):
    "a guess that is right again after a wrong one is worth nothing: the model judged it after the wrong one"
    got = list(accept([7, 0, 9, 4], [7, 8, 9, 4, 2]))
    assert got == [7, 8], f"got {got}, should be [7, 8]"


def always_gains_one(accept):
    "no guess, no right guess, all right: there is always one id more than guesses accepted"
    for draft, best, wanted in (([], [3], [3]), ([1, 1], [2, 1, 1], [2]), ([4, 5], [4, 5, 6], [4, 5, 6])):
        got = list(accept(list(draft), list(best)))
        assert got == wanted, f"accept({draft}, {best}) is {got}, should be {wanted}"


def writes_what_greedy_writes(accept):
    "whatever the guesses, the text is the one without guesses"
    for _ in range(30):
        ids = [random.randrange(4) for _ in range(3)]
        plain, start = list(ids), len(ids)
        while len(plain) < start + 20:
            plain.append(_next(plain))
        while len(ids) < start + 20:
            draft, told = [], list(ids)
            for _ in range(3):                                  # right three times in four
                draft.append(_next(told) if random.random() < 0.75 else random.randrange(4))
                told.append(draft[-1])
            best = [_next(ids + draft[:i]) for i in range(4)]
            new = list(accept(draft, best))
            assert new, f"accept({draft}, {best}) is empty: decoding would never end"
            ids += new
        assert ids[: start + 20] == plain, f"{plain[start:]} was to be written, with guesses it is {ids[start:start + 20]}"


CASES = {
    "08.kv_step": [first_token_sees_itself, equals_reading_it_all, stores_turned_keys_in_its_slot, sees_no_later_slot],
    "08.sample": [takes_the_best_at_zero, draws_in_proportion, divides_by_the_temperature, softens_after_top_k,
                  keeps_all_when_k_is_large, never_draws_what_was_cut],
    "08.tool_step": [hands_over_the_call, forces_the_result, forces_nothing_without_a_result, begins_every_call_anew,
                     ignores_an_end_without_a_start],
    "08.quantize": [gives_whole_numbers_and_scales, rows_have_their_own_scale, rounds_to_the_nearest, largest_is_exact,
                    zero_rows_stay_zero, fewer_bits_fewer_levels],
    "08.accept": [accepts_the_example, stops_at_the_first_miss, always_gains_one, writes_what_greedy_writes],
}
