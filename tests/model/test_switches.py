"""The switches of GPTConfig: each against a slow float64 twin, forward and backward, with a cache and without, and the
speedrun's published sizes."""

import math

import pytest
import torch

from nanochat.engine import Engine, KVCache
from nanochat.model import GPT, GPTConfig
from nanochat.model.config import SPEEDRUN
from nanochat.runtime import UserError

BOS = 7
SWITCHES = {
    "seed": {},
    "windows": {"window_pattern": "SL", "short_window": 3},
    "value embeddings": {"value_embeddings": True},
    "layer scalars": {"layer_scalars": True},
    "smear": {"smear": True},
    "backout": {"backout": True},
    "qk scale": {"qk_scale": 1.2},
    "softcap": {"softcap": 3.0},
    "padded vocabulary": {"vocab_multiple": 64},
    "rope base": {"rope_base": 100000.0},
    "documents": {"document_start": BOS},
    "speedrun": {**SPEEDRUN, "short_window": 3},
    "speedrun within documents": {**SPEEDRUN, "short_window": 4, "document_start": BOS},
}
each_switch = pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES.keys())


def small(switches, n_kv_head=2, T=12, n_layer=4, seed=0) -> GPT:
    """All weights random, so that nothing is hidden behind a zero; the scalars large enough to matter."""
    model = GPT(GPTConfig(T, 61, n_layer, 4, n_kv_head, 32, **switches)).init_weights(seed)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=g) * (0.1 if p.dim() > 1 else 0.3))
    return model


def tokens(B=2, T=12, seed=1):
    """Ids with a document's start here and there, never at the same places in all rows."""
    g = torch.Generator().manual_seed(seed)
    idx = torch.randint(8, 61, (B, T), generator=g)
    return idx.masked_fill(torch.rand(B, T, generator=g) < 0.2, BOS)


def twin_loss(w: dict, c: GPTConfig, idx, targets):
    """The speedrun's formulas token by token, head by head, in float64. w: weights by name; -> mean cross-entropy."""
    norm = lambda x: x / (x @ x / len(x) + 1e-6).sqrt()
    D, half = c.head_dim, c.head_dim // 2

    def rope(x, t):
        out = [None] * D
        for i in range(half):
            angle = t / c.rope_base ** (2 * i / D)
            out[i] = x[i] * math.cos(angle) + x[half + i] * math.sin(angle)
            out[half + i] = x[half + i] * math.cos(angle) - x[i] * math.sin(angle)
        return torch.stack(out)

    losses = []
    for ids, answers in zip(idx.tolist(), targets.tolist(), strict=True):
        T = len(ids)
        document = [sum(i == c.document_start for i in ids[: t + 1]) for t in range(T)]
        raw = [norm(w["wte.weight"][i]) for i in ids]
        x = list(raw)
        if c.smear:
            for t in range(1, T):
                if document[t] == document[t - 1]:
                    gate = 1 / (1 + torch.exp(-(w["smear.gate.weight"][0] @ raw[t][:24])))
                    x[t] = raw[t] + w["smear.scale"] * gate * raw[t - 1]
        first = x
        for n in range(c.n_layer):
            b = f"blocks.{n}."
            if c.layer_scalars:
                x = [w["resid_lambdas"][n] * a + w["x0_lambdas"][n] * o for a, o in zip(x, first, strict=True)]
            short = n < c.n_layer - 1 and c.window_pattern[n % len(c.window_pattern)] == "S"
            q, k, v = [], [], []  # [token][head]
            for t in range(T):
                h = norm(x[t])
                heads = [(w[f"{b}attn.c_{m}.weight"] @ h).split(D) for m in "qkv"]
                q.append([c.qk_scale * norm(rope(z, t)) for z in heads[0]])
                k.append([c.qk_scale * norm(rope(z, t)) for z in heads[1]])
                values = list(heads[2])
                if c.value_embeddings and (c.n_layer - 1 - n) % 2 == 0:
                    for g, more in enumerate(w[f"{b}attn.value.table.weight"][ids[t]].split(D)):
                        gate = 3 / (1 + torch.exp(-(w[f"{b}attn.value.gate.weight"][g] @ h[:12])))
                        values[g] = values[g] + gate * more
                v.append(values)
            new = []
            for t in range(T):
                seen = [s for s in range(t + 1)
                        if not (short and t - s > c.short_window) and document[s] == document[t]]  # fmt: skip
                out = []
                for head in range(c.n_head):
                    g = head // (c.n_head // c.n_kv_head)
                    weights = torch.stack([q[t][head] @ k[s][g] / math.sqrt(D) for s in seen]).softmax(0)
                    out.append(sum(a * v[s][g] for a, s in zip(weights, seen, strict=True)))
                y = x[t] + w[f"{b}attn.c_proj.weight"] @ torch.cat(out)
                new.append(y + w[f"{b}mlp.c_proj.weight"] @ (w[f"{b}mlp.c_fc.weight"] @ norm(y)).clamp(min=0) ** 2)
            x = new
            if n == c.n_layer // 2:
                middle = x
        for t in range(T):
            end = x[t] - w["backout_lambda"] * middle[t] if c.backout else x[t]
            z = (w["lm_head.weight"] @ norm(end))[: c.vocab_size]
            losses.append(-(c.softcap * torch.tanh(z / c.softcap)).log_softmax(0)[answers[t]])
    return sum(losses) / len(losses)


@each_switch
def test_loss_and_gradients_equal_the_formulas_in_float64(switches):
    model, idx, targets = small(switches), tokens(), tokens(seed=2)
    loss = model(idx, targets)
    loss.backward()
    w = {name: p.detach().double().requires_grad_() for name, p in model.named_parameters()}
    want = twin_loss(w, model.config, idx, targets)
    want.backward()
    assert abs(loss.item() - want.item()) < 1e-6
    grads = {name: (p.grad.double(), w[name].grad) for name, p in model.named_parameters()}
    for name, (got, right) in grads.items():
        assert (got - right).abs().max() < 1e-6 and (got - right).norm() < 1e-5 * right.norm(), name
    got, right = (torch.cat([g[side].flatten() for g in grads.values()]) for side in (0, 1))
    assert (got - right).norm() < 1e-6 * right.norm()


@each_switch
def test_every_switch_but_padding_changes_the_logits_of_equal_weights(switches):
    """Else the other tests would prove little."""
    model, seed = small(switches), small({})
    with torch.no_grad():
        for name, p in seed.named_parameters():
            model.get_parameter(name)[: len(p)] = p
    off = (model(tokens()) - seed(tokens())).abs().max()
    assert off < 1e-5 if switches in ({}, {"vocab_multiple": 64}) else off > 1e-2


@each_switch
def test_reading_ragged_rows_in_pieces_through_the_cache_equals_reading_at_once(switches):
    model, idx, lengths = small(switches, T=20), tokens(B=3, T=20), torch.tensor([4, 9, 1])
    want, cache = model(idx), KVCache(model.config, rows=3, max_len=20)
    first = model(idx[:, :9], cache=cache)  # rows are padded on the right
    cache.advance(lengths)
    for b, n in enumerate(lengths):
        torch.testing.assert_close(first[b, :n], want[b, :n], atol=1e-5, rtol=1e-5)
    cache = cache.take([2, 0, 1, 0], max_len=20)
    rows = torch.tensor([2, 0, 1, 0])
    for T in (1, 1, 2, 3, 1):
        at = cache.lengths[:, None] + torch.arange(T)  # (4, T)
        got = model(idx[rows].gather(1, at), cache=cache)
        torch.testing.assert_close(got, want[rows[:, None], at], atol=1e-5, rtol=1e-5)
        cache.advance(T)


class Bytes:
    """As much of a tokenizer as an engine needs."""

    bos, special = BOS, {f"<|{name}|>": 50 + i for i, name in enumerate(
        ("assistant_end", "python_start", "python_end", "output_start", "output_end"))}  # fmt: skip

    def id_to_bytes(self, i):
        return bytes([i])

    def decode(self, ids):
        return bytes(ids).decode("utf-8", "replace")

    encode = None


@each_switch
def test_the_engine_says_what_repeated_full_passes_say_whatever_shares_the_batch(switches):
    model = small(switches, T=24)
    engine, prompts = Engine(model, Bytes()), [[BOS, 9], [BOS, 10, 11, BOS, 12, 13, 14], [BOS], [BOS, 60, 59, 58]]
    together = engine.generate(prompts, max_tokens=14, temperature=0, tools=False)
    for prompt, (answer,) in zip(prompts, together, strict=True):
        ids = list(prompt)
        while len(ids) - len(prompt) < 14 and ids[len(prompt) :][-1:] not in ([BOS], [50]):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        assert answer.ids == ids[len(prompt) :]
    sampled = engine.generate(prompts, num_samples=3, max_tokens=14, seed=4, tools=False)
    for prompt, answers in zip(prompts, sampled, strict=True):
        assert engine.generate([prompt], num_samples=3, max_tokens=14, seed=4, tools=False)[0] == answers


def test_a_document_is_read_as_if_it_stood_alone():
    model = small(SWITCHES["speedrun within documents"], T=16)
    a, b = [BOS, 9, 10, 11, 12], [BOS, 20, 21, 22, 23, 24]
    alone, both = model(torch.tensor([b]))[0], model(torch.tensor([a + b]))[0]
    # rotary positions tell distances alone, so where the document stands in its row does not matter either
    torch.testing.assert_close(both[len(a) :], alone, atol=1e-5, rtol=1e-5)
    shared = small(SWITCHES["speedrun"], T=16)
    assert (shared(torch.tensor([a + b]))[0, len(a) :] - shared(torch.tensor([b]))[0]).abs().max() > 1e-2


def test_the_pattern_repeats_over_layers_and_the_last_layer_sees_all():
    c = GPTConfig.from_depth(6, 512, 2048, arch="speedrun")
    assert [c.window(i) for i in range(6)] == [512, 512, 512, None, 512, None]
    assert [c.has_value_embedding(i) for i in range(6)] == [False, True] * 3
    c = GPTConfig.from_depth(5, 512, 600, arch="speedrun")
    assert [c.window(i) for i in range(5)] == [256, 256, 256, None, None]
    assert [c.has_value_embedding(i) for i in range(5)] == [True, False, True, False, True]
    assert c.n_embd == 384 and GPTConfig.from_depth(25, 512, 600, arch="speedrun").n_embd == 1664


@pytest.mark.parametrize("depth, total, blocks, scaling, flops", [
    (4, 36_700_242, 3_145_776, 11.5e6, 8.02e7), (12, 286_261_730, 84_935_088, 110.1e6, 7.597e8),
    (20, 896_533_746, 393_217_200, 435.2e6, 2.886e9), (24, 1_384_122_122, 679_478_976, 729.8e6, 4.775e9),
    (26, 1_681_786_938, 863_897_580, 918.4e6, 5.991e9), (34, 3_286_633_962, 1_931_873_676, 2003.2e6, 1.283e10),
])  # fmt: skip
def test_the_speedruns_sizes_are_the_published_ones(depth, total, blocks, scaling, flops):
    with torch.device("meta"):
        model = GPT(GPTConfig.from_depth(depth, vocab_size=32768, sequence_len=2048, arch="speedrun"))
    d = model.config.n_embd
    counted = sum(p.numel() for n, p in model.named_parameters() if n.startswith("blocks") and "table" not in n)
    assert (model.num_params(), counted, d) == (total, blocks, 64 * depth)
    assert counted + 32768 * d == pytest.approx(scaling, rel=5e-3)
    assert model.flops_per_token() == pytest.approx(flops, rel=5e-4)


def test_a_vocabulary_is_padded_in_the_weights_and_never_in_the_logits():
    c = GPTConfig.from_depth(2, vocab_size=100, sequence_len=8, arch="speedrun")
    model = GPT(c).init_weights(0)
    assert model.wte.weight.shape == model.lm_head.weight.shape == (128, 128)
    assert model(tokens(T=8)).shape == (2, 8, 100)


def test_the_speedrun_begins_as_published():
    model = GPT(GPTConfig.from_depth(4, vocab_size=512, sequence_len=64, arch="speedrun")).init_weights(0)
    w, s = model.state_dict(), math.sqrt(3 / 256)
    bounds = {"blocks.0.attn.c_q.weight": s, "blocks.3.attn.c_v.weight": s, "blocks.1.mlp.c_fc.weight": 0.4 * s,
              "blocks.1.attn.value.table.weight": s}  # fmt: skip
    for name, bound in bounds.items():
        assert bound * 0.99 < w[name].max() <= bound and -bound <= w[name].min() < -bound * 0.99, name
        assert w[name].std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03), name
    assert w["wte.weight"].std().item() == pytest.approx(0.8, rel=0.02)
    assert w["lm_head.weight"].std().item() == pytest.approx(0.001, rel=0.02)
    for name in ("blocks.1.attn.value.gate.weight", "smear.gate.weight"):
        assert 0 <= w[name].min() < w[name].max() <= 0.02, name
    assert not any(w[f"blocks.{i}.{m}.c_proj.weight"].any() for i in range(4) for m in ("attn", "mlp"))
    torch.testing.assert_close(w["resid_lambdas"], torch.linspace(1.15, 1.05, 4))
    torch.testing.assert_close(w["x0_lambdas"], torch.linspace(0.20, 0.05, 4))
    assert (w["smear.scale"], w["backout_lambda"]) == (0, torch.tensor(0.2))


def test_the_switches_add_weights_of_their_own_and_leave_the_seeds_alone():
    seed, speedrun = (GPT(GPTConfig.from_depth(4, 512, 64, n_embd=64, head_dim=32, arch=a)) for a in
                      ("seed", "speedrun"))  # fmt: skip
    new = speedrun.state_dict().keys() - seed.state_dict().keys()
    assert seed.state_dict().keys() <= speedrun.state_dict().keys()
    assert new == {"resid_lambdas", "x0_lambdas", "smear.gate.weight", "smear.scale", "backout_lambda"} | {
        f"blocks.{i}.attn.value.{part}.weight" for i in (1, 3) for part in ("table", "gate")
    }


def test_bf16_compiled_and_copied_the_speedrun_stays_itself():
    model, idx = small(SWITCHES["speedrun"], n_layer=2), tokens()
    want = model(idx)
    torch.testing.assert_close(torch.compile(model, dynamic=False)(idx), want, atol=1e-5, rtol=1e-5)
    model.compute_dtype = torch.bfloat16
    logits, copy = model(idx), model.inference_copy()
    assert model.hidden(idx).dtype == torch.bfloat16 and logits.dtype == torch.float32
    assert 0 < (logits - want).abs().max() < 0.3
    assert {p.dtype for p in copy.parameters() if p.dim() > 1} == {torch.bfloat16}
    assert torch.equal(copy(idx), logits)  # the scalars stay fp32: they multiply the stream in every layer


@pytest.mark.parametrize("change, word", [
    ({"window_pattern": "SXL"}, "window_pattern"), ({"window_pattern": ""}, "window_pattern"),
    ({"short_window": 0}, "short_window"), ({"init": "zeros"}, "init"), ({"vocab_multiple": 0}, "vocab_multiple"),
    ({"n_embd": 16, "smear": True}, "smear"), ({"n_embd": 8, "value_embeddings": True}, "value_embeddings"),
])  # fmt: skip
def test_impossible_switches_are_refused_in_one_line(change, word):
    with pytest.raises(UserError, match=word) as error:
        GPTConfig(**{**vars(GPTConfig(8, 10, 1, 4, 4, 32)), **change})
    assert "\n" not in str(error.value)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(UserError, match="seed or speedrun"):
        GPTConfig.from_depth(4, 512, 64, arch="gpt3")
