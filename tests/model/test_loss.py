"""The chunked loss against the plain one: values and gradients, every reduction, compiled too, and what it never makes."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from nanochat.model import GPT, GPTConfig, loss
from nanochat.model.loss import head_loss

N, C, V, CAP = 37, 16, 61, 3.0


def example(dtype=torch.float32, seed=0):
    """x (N, C) in dtype, weight (V, C) in fp32, targets (N,), a quarter of them not counted; logits beyond the cap."""
    g = torch.Generator().manual_seed(seed)
    x, weight = torch.randn(N, C, generator=g).to(dtype), torch.randn(V, C, generator=g)
    targets = torch.randint(0, V, (N,), generator=g).masked_fill(torch.rand(N, generator=g) < 0.25, -1)
    return x.requires_grad_(), weight.requires_grad_(), targets


def plain(x, weight, targets, cap, reduction):
    logits = cap * torch.tanh((x @ weight.to(x.dtype).T).float() / cap)
    return F.cross_entropy(logits, targets, ignore_index=-1, reduction=reduction)


def results(function, reduction, x, weight, targets):
    """The loss, and the gradients of x and weight where every loss counts differently."""
    value = function(x, weight, targets, CAP, reduction)
    upstream = torch.linspace(0.5, 2.0, value.numel()).view(value.shape)
    return value.detach(), *torch.autograd.grad(value, (x, weight), upstream)


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
@pytest.mark.parametrize("rows", [5, 37, 1], ids=["ragged chunks", "one chunk", "a row each"])
def test_equals_the_plain_loss(monkeypatch, reduction, rows):
    monkeypatch.setattr(loss, "LOGITS", rows * V)
    for ours, right in zip(
        results(head_loss, reduction, *example()), results(plain, reduction, *example()), strict=True
    ):
        assert ours.dtype == right.dtype and ours.shape == right.shape
        assert (ours - right).norm() <= 1e-6 * right.norm()
    with torch.no_grad():
        torch.testing.assert_close(head_loss(*example(), CAP, reduction), plain(*example(), CAP, reduction))


def test_bf16_is_as_close_to_fp32_as_the_plain_loss_is(monkeypatch):
    monkeypatch.setattr(loss, "LOGITS", 5 * V)
    x, weight, targets = example(torch.bfloat16)
    exact = results(
        plain, "sum", x.detach().float().requires_grad_(), weight.detach().bfloat16().float().requires_grad_(), targets
    )
    for ours, theirs, right in zip(
        results(head_loss, "sum", x, weight, targets), results(plain, "sum", x, weight, targets), exact, strict=True
    ):
        off, usual = (ours - right).norm(), (theirs - right).norm()
        assert off <= 1.5 * usual + 1e-3 * right.norm()


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_compiles_whole(monkeypatch, reduction):
    monkeypatch.setattr(loss, "LOGITS", 16 * V)
    compiled = torch.compile(head_loss, fullgraph=True, dynamic=False, backend="aot_eager")
    for ours, right in zip(
        results(compiled, reduction, *example()), results(plain, reduction, *example()), strict=True
    ):
        torch.testing.assert_close(ours, right, rtol=1e-5, atol=1e-6)


class Largest(TorchDispatchMode):
    """The most entries any tensor had that was made while this is active."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, torch.Tensor):
                self.entries = max(self.entries, t.numel())
        return out


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_the_model_takes_chunks_above_the_bound_and_never_has_all_logits(monkeypatch, reduction):
    model = GPT(GPTConfig(12, 509, 1, 2, 2, 16, vocab_multiple=64)).init_weights(0)  # 512 rows of the head, 509 words
    with torch.no_grad():
        model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    idx = torch.randint(0, 509, (6, 12), generator=g)
    targets = torch.randint(-1, 509, (6, 12), generator=g)

    def gradients():
        model.zero_grad()
        with Largest() as seen:
            value = model(idx, targets, reduction)
            value.sum().backward()
        return value.detach(), seen.entries, {n: p.grad for n, p in model.named_parameters()}

    value, whole, right = gradients()
    assert whole >= 72 * 509
    monkeypatch.setattr(loss, "LOGITS", 20 * 509)
    chunked, most, ours = gradients()
    assert most <= 20 * 512
    torch.testing.assert_close(chunked, value)
    for name, grad in right.items():
        assert (ours[name] - grad).norm() <= 1e-6 * grad.norm(), name
