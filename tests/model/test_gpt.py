"""The Transformer: its numbers against plain oracles, what may and may not depend on what, and its published sizes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.model import GPT, GPTConfig
from nanochat.runtime import UserError


def small(n_kv_head=2, T=16, seed=0, n_layer=2, **more) -> GPT:
    """A model whose weights are all random: init_weights leaves zeros that would hide mistakes."""
    model = GPT(GPTConfig(T, 61, n_layer, 4, n_kv_head, 32, **more)).init_weights(seed)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.1)
    return model


def tokens(B=3, T=16, V=61, seed=1):
    return torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(seed))


class ListCache:
    """The cache's duck type in its plainest form: concatenate; every row may be at its own length."""

    def __init__(self, rows):
        self.lengths, self.store = torch.zeros(rows, dtype=torch.long), {}

    def positions(self, T):
        return self.lengths[:, None] + torch.arange(T)

    def write(self, layer, k, v):
        B, _, T, _ = k.shape
        at = self.positions(T)
        S = int(at.max()) + 1
        old = self.store.get(layer)
        new = [x.new_zeros(B, x.shape[1], S, x.shape[3]) for x in (k, v)]
        for b in range(B):
            for n, x in zip(range(2), (k, v), strict=True):
                if old is not None:
                    new[n][b, :, : self.lengths[b]] = old[n][b, :, : self.lengths[b]]
                new[n][b, :, at[b]] = x[b]
        self.store[layer] = new
        return *new, (torch.arange(S) <= at[:, :, None])[:, None]

    def advance(self, n):
        self.lengths = self.lengths + n


def plain_forward(model: GPT, idx):
    """The architecture once more, in float64, one row at a time, with loops where the model has batched products."""
    w = {name: p.double() for name, p in model.named_parameters()}
    c = model.config
    rms = lambda x: x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    i = torch.arange(c.head_dim // 2, dtype=torch.float64)
    angle = torch.arange(idx.shape[1])[:, None] * c.rope_base ** (-2 * i / c.head_dim)  # (T, D/2)

    def rope(x):  # (T, D)
        a, b = x[:, : c.head_dim // 2], x[:, c.head_dim // 2 :]
        return torch.cat((a * angle.cos() + b * angle.sin(), b * angle.cos() - a * angle.sin()), 1)

    rows = []
    for row in idx:
        x = rms(w["wte.weight"][row])
        for n in range(c.n_layer):
            b, h = f"blocks.{n}.", rms(x)
            q, k, v = ((h @ w[f"{b}attn.c_{m}.weight"].T).split(c.head_dim, 1) for m in "qkv")
            out = []
            for head in range(c.n_head):
                kv = head * c.n_kv_head // c.n_head
                scores = rms(rope(q[head])) @ rms(rope(k[kv])).T / c.head_dim**0.5
                scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
                out.append(scores.softmax(1) @ v[kv])
            x = x + torch.cat(out, 1) @ w[f"{b}attn.c_proj.weight"].T
            x = x + (rms(x) @ w[f"{b}mlp.c_fc.weight"].T).clamp(min=0) ** 2 @ w[f"{b}mlp.c_proj.weight"].T
        rows.append(c.softcap * torch.tanh(rms(x) @ w["lm_head.weight"].T / c.softcap))
    return torch.stack(rows)


@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_logits_and_loss_equal_the_architecture_written_plainly_in_float64(n_kv_head):
    model, idx, targets = small(n_kv_head), tokens(), tokens(seed=2)
    targets[0, 3:9] = -1
    want = plain_forward(model, idx)
    logits = model(idx)
    assert logits.shape == (3, 16, 61) and logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), want, atol=2e-5, rtol=1e-5)
    each = -want.log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0] * (targets >= 0)
    torch.testing.assert_close(model(idx, targets, reduction="none").double(), each, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(model(idx, targets, reduction="sum").double(), each.sum(), atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(model(idx, targets).double(), each.sum() / (targets >= 0).sum(), atol=2e-5, rtol=1e-5)


def test_grouped_heads_equal_full_attention_with_repeated_key_and_value_weights():
    shared = small(n_kv_head=2)
    full = GPT(GPTConfig(16, 61, 2, 4, 4, 32))
    weights = shared.state_dict()
    for name, w in weights.items():
        if name.endswith(("c_k.weight", "c_v.weight")):
            weights[name] = w.view(2, 8, 32).repeat_interleave(2, dim=0).reshape(32, 32)
    full.load_state_dict(weights)
    torch.testing.assert_close(shared(tokens()), full(tokens()), atol=1e-5, rtol=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 15), st.integers(0, 1000))
def test_the_future_cannot_change_the_past(cut, seed):
    model, idx = small(), tokens()
    changed = idx.clone()
    changed[:, cut:] = tokens(seed=seed + 5)[:, cut:]
    torch.testing.assert_close(model(idx)[:, :cut], model(changed)[:, :cut], atol=1e-6, rtol=0)


def test_a_row_does_not_know_its_neighbours():
    model, idx = small(), tokens(B=5)
    together = model(idx)
    for b in range(5):
        torch.testing.assert_close(together[b], model(idx[b : b + 1])[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n_kv_head", [1, 4])
def test_reading_in_pieces_through_a_cache_equals_reading_at_once(n_kv_head):
    model, idx = small(n_kv_head), tokens()
    want, cache, got = model(idx), ListCache(3), []
    for piece in idx.split([5, 1, 1, 6, 3], dim=1):
        got.append(model(piece, cache=cache))
        cache.advance(piece.shape[1])
    torch.testing.assert_close(torch.cat(got, 1), want, atol=1e-5, rtol=1e-5)


def test_rows_of_different_lengths_share_a_cache():
    model, idx, lengths = small(), tokens(), torch.tensor([4, 9, 7])
    want, cache = model(idx), ListCache(3)
    model(idx[:, :9], cache=cache)  # right-padded prefill: what lies behind a row's length is overwritten later
    cache.advance(lengths)
    for step in range(4):
        at = (lengths + step)[:, None]
        got = model(idx.gather(1, at), cache=cache)
        torch.testing.assert_close(got[:, 0], want[torch.arange(3), at[:, 0]], atol=1e-5, rtol=1e-5)
        cache.advance(1)


def test_logits_stay_within_the_cap():
    model = small(softcap=3.0)
    with torch.no_grad():
        model.lm_head.weight.mul_(1000)
    logits = model(tokens())
    assert logits.abs().max() <= 3.0 and logits.abs().max() > 2.9


def test_bf16_compute_keeps_fp32_weights_gradients_and_logits():
    model, idx = small(), tokens()
    want = model(idx)
    model.compute_dtype = torch.bfloat16
    logits = model(idx)
    assert model.hidden(idx).dtype == torch.bfloat16 and logits.dtype == torch.float32
    assert 0 < (logits - want).abs().max() < 0.3
    model(idx, idx).backward()
    assert {p.dtype for p in model.parameters()} == {p.grad.dtype for p in model.parameters()} == {torch.float32}


def test_an_inference_copy_answers_the_same_and_shares_nothing():
    model, idx = small(), tokens()
    model.compute_dtype = torch.bfloat16
    want, copy = model(idx), model.inference_copy()
    assert {(p.dtype, p.requires_grad) for p in copy.parameters()} == {(torch.bfloat16, False)}
    assert torch.equal(copy(idx), want)
    same = model.inference_copy(torch.float32)
    with torch.no_grad():
        model.wte.weight.zero_()
    model.compute_dtype = torch.float32
    assert not torch.equal(same(idx), model(idx))
    assert torch.equal(same.cos, model.cos)


def test_compiled_equals_eager():
    model, idx = small(T=8, n_layer=1), tokens(T=8)
    loss = model(idx, idx)
    loss.backward()
    want = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    compiled = torch.compile(model, dynamic=False)(idx, idx)
    compiled.backward()
    torch.testing.assert_close(compiled, loss, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close({n: p.grad for n, p in model.named_parameters()}, want, atol=1e-5, rtol=1e-4)


def test_initial_weights_depend_on_the_seed_alone():
    config = GPTConfig(16, 61, 2, 4, 2, 32)
    torch.manual_seed(1)
    a = GPT(config).init_weights(7).state_dict()
    torch.manual_seed(2)
    torch.randn(100)
    with torch.device("meta"):
        model = GPT(config)
    b = model.to_empty(device="cpu").init_weights(7)
    torch.testing.assert_close(a, b.state_dict(), atol=0, rtol=0)
    assert torch.equal(b.cos, GPT(config).cos) and torch.equal(b.sin, GPT(config).sin)
    c = GPT(config).init_weights(8).state_dict()
    assert not torch.equal(a["wte.weight"], c["wte.weight"])


def test_initial_weights_have_the_stated_spread_and_begin_at_uniform_predictions():
    model = GPT(GPTConfig.from_depth(2, vocab_size=512, sequence_len=16)).init_weights(0)
    w, C = model.state_dict(), 128
    stds = {"wte.weight": 1, "blocks.0.attn.c_q.weight": C**-0.5, "blocks.1.mlp.c_fc.weight": C**-0.5,
            "blocks.0.attn.c_proj.weight": 0, "blocks.1.mlp.c_proj.weight": 0, "lm_head.weight": 0}  # fmt: skip
    for name, std in stds.items():
        assert w[name].std().item() == pytest.approx(std, rel=0.03), name
    assert not torch.equal(w["blocks.0.attn.c_q.weight"], w["blocks.1.attn.c_q.weight"])
    idx = tokens(V=512)
    assert model(idx, idx).item() == pytest.approx(torch.tensor(512.0).log().item(), abs=1e-5)
    few = GPT(GPTConfig(16, 61, 1, 4, 1, 128)).init_weights(0).state_dict()["blocks.0.attn.c_k.weight"]  # (32, 128)
    assert few.std().item() == pytest.approx(128**-0.5 * 0.5, rel=0.05)


@pytest.mark.parametrize("depth, heads, params, flops", [
    (4, 2, 36_700_160, 1.447e8), (8, 4, 92_274_688, 4.530e8), (12, 6, 185_597_952, 1.038e9),
    (20, 10, 560_988_160, 3.491758e9), (26, 13, 1_081_999_360, 6.901e9), (30, 15, 1_578_762_240, 1.0133e10),
    (32, 16, 1_879_048_192, 1.20796e10), (34, 17, 2_217_082_880, 1.42651e10),
])  # fmt: skip
def test_sizes_from_depth_are_the_published_ones(depth, heads, params, flops):
    config = GPTConfig.from_depth(depth, vocab_size=65536, sequence_len=2048)
    with torch.device("meta"):
        model = GPT(config)
    assert (config.n_layer, config.n_head, config.n_kv_head, config.n_embd) == (depth, heads, heads, 64 * depth)
    assert model.num_params() == params == 2 * 65536 * config.n_embd + 12 * depth * config.n_embd**2
    assert model.flops_per_token() == pytest.approx(flops, rel=5e-4)


def test_the_toy_model_has_917504_weights():
    assert GPT(GPTConfig.from_depth(4, 512, 128, n_embd=128, head_dim=64)).num_params() == 917_504


@pytest.mark.parametrize("depth", range(1, 40))
def test_every_depth_gives_a_valid_shape(depth):
    config = GPTConfig.from_depth(depth, vocab_size=512, sequence_len=128)
    assert config.n_head * config.head_dim == 64 * depth and config.head_dim <= 128 and config.head_dim % 2 == 0


@pytest.mark.parametrize("change, word", [
    ({"n_head": 3}, "n_head"), ({"n_kv_head": 3}, "n_kv_head"), ({"n_layer": 0}, "n_layer"), ({"n_embd": 12}, "even"),
])  # fmt: skip
def test_an_impossible_shape_is_refused_in_one_line(change, word):
    with pytest.raises(UserError, match=word) as error:
        GPTConfig(**{**vars(GPTConfig(8, 10, 1, 4, 4, 32)), **change})
    assert "\n" not in str(error.value)


def test_positions_beyond_the_tables_are_refused():
    model = small(T=4)
    model(tokens(B=1, T=40))
    with pytest.raises(UserError, match="40 positions"):
        model(tokens(B=1, T=41))


def test_a_tiny_model_learns_a_text_by_heart():
    model, idx = GPT(GPTConfig(16, 61, 2, 4, 2, 32)).init_weights(0), tokens(B=2, T=17)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss = model(idx[:, :-1], idx[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    assert torch.equal(model(idx[:, :-1]).argmax(-1), idx[:, 1:])
