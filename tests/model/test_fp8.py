"""float8 products: equal to a twin that rounds in float64, within the format's error of fp32, and good enough to train."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from nanochat.model import GPT, GPTConfig, fp8
from nanochat.model.fp8 import E4M3, E5M2, FP8Product, fp8_linear, pays, scaled
from nanochat.model.precision import Linear
from nanochat.runtime import UserError, World
from nanochat.train.config import MachineConfig
from nanochat.train.loop import prepare

FORMATS = {E4M3: (3, -6, 448.0), E5M2: (2, -14, 57344.0)}  # bits of mantissa, smallest normal exponent, largest number


def twin(x, dtype):
    """x scaled, rounded to nearest even in `dtype` by arithmetic alone, and scaled back: float64 -> float64."""
    bits, lowest, largest = FORMATS[dtype]
    scale = largest / x.abs().max()
    exponent = torch.frexp(x * scale).exponent - 1
    step = 2.0 ** (exponent.clamp(min=lowest) - bits).double()
    return (x * scale / step).round() * step / scale


def example(N=32, K=48, M=64, seed=0):
    """x (N, K), w (M, K), grad (N, M) whose scales are powers of two, so that float32 scales them without rounding."""
    g = torch.Generator().manual_seed(seed)
    out = []
    for shape, largest in (((N, K), 7.0), ((M, K), 0.4375), ((N, M), 1.75 * 2**-12)):
        t = torch.randn(shape, generator=g).exp() * torch.randn(shape, generator=g).sign()  # over several decades
        t = t / t.abs().max() * largest * 0.99
        t[1, 2] = largest
        out.append(t)
    return out


def test_rounding_equals_the_twin():
    for t, dtype in zip(example(), (E4M3, E4M3, E5M2), strict=True):
        rounded, factor = scaled(t, dtype)
        assert torch.equal(rounded.double() * factor.double(), twin(t.double(), dtype))
        assert rounded.isfinite().all() and rounded.float().abs().max() == FORMATS[dtype][2]
    rounded, factor = scaled(torch.zeros(3, 4), E4M3)
    assert torch.equal(rounded.float() * factor, torch.zeros(3, 4))


def test_the_three_products_equal_the_twin_s():
    x, w, grad = example()
    y = fp8_linear(x.requires_grad_(), w.requires_grad_())
    y.backward(grad)
    x8, w8, g8 = twin(x.detach().double(), E4M3), twin(w.detach().double(), E4M3), twin(grad.double(), E5M2)
    for ours, right in ((y, x8 @ w8.T), (x.grad, g8 @ w8), (w.grad, g8.T @ x8)):
        assert ours.dtype == torch.float32
        assert (ours - right).norm() <= 1e-6 * right.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_errors_stay_within_what_the_formats_promise(dtype):
    """Half a step: 1/16 of an e4m3 number, 1/8 of an e5m2 number; on average far less."""
    g = torch.Generator().manual_seed(3)
    x, w, grad = (torch.randn(s, generator=g) for s in ((64, 128), (96, 128), (64, 96)))
    x, grad = x.to(dtype).requires_grad_(), grad.to(dtype)
    w.requires_grad_()
    y = fp8_linear(x, w)
    assert y.dtype == dtype
    dx, dw = torch.autograd.grad(y, (x, w), grad)
    assert dx.dtype == dtype and dw.dtype == torch.float32
    X, W, G = x.detach().double(), w.detach().double(), grad.double()
    for ours, a, b, most, usual in ((y, X, W.T, 1 / 16, 0.05), (dx, G, W, 1 / 8, 0.08), (dw, G.T, X, 1 / 8, 0.08)):
        error = (ours.double() - a @ b).abs()
        assert (error <= ((1 + most) * (1 + 1 / 16) - 1 + 0.01) * (a.abs() @ b.abs())).all()
        assert 0.005 < error.norm() / (a @ b).norm() < usual


def test_what_the_kernel_is_given():
    """On fake tensors of a GPU: types, layouts and scales pass the kernel's own rules, and a wrong layout does not."""

    class Kept:
        def save_for_backward(self, *tensors):
            self.saved_tensors = tensors

    with FakeTensorMode():
        kept = Kept()
        x = torch.empty(64, 48, device="cuda", dtype=torch.bfloat16)
        y = FP8Product.forward(kept, x, torch.empty(96, 48, device="cuda"))
        dx, dw = FP8Product.backward(kept, torch.empty_like(y))
        assert (y.shape, dx.shape, dw.shape) == ((64, 96), (64, 48), (96, 48))
        assert (y.dtype, dx.dtype, dw.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
        x8, x_factor, w8, w_factor = kept.saved_tensors
        with pytest.raises(RuntimeError):
            torch._scaled_mm(x8, w8.t().contiguous(), scale_a=x_factor, scale_b=w_factor, out_dtype=torch.bfloat16)


def test_which_matrices_take_it():
    assert pays(1280, 1280) and pays(6144, 1536) and not pays(768, 768) and not pays(3072, 768) and not pays(12, 1536)
    assert not pays(4000, 1288, least=0), "1288 is no multiple of 16"
    with torch.device("meta"):
        model = GPT(GPTConfig.from_depth(24, 32768, 2048, arch="speedrun")).use_fp8()
    names = {n.rsplit(".", 1)[1] for n, m in model.named_modules() if isinstance(m, Linear) and m.fp8}
    assert names == {"c_q", "c_k", "c_v", "c_proj", "c_fc"} and not model.lm_head.fp8
    assert not any(m.fp8 for m in GPT(model.config).modules() if isinstance(m, Linear)), "a copy that samples is plain"


def test_only_training_on_whole_tiles_is_rounded():
    layer = Linear(32, 32)
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    layer.fp8 = True
    x = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(1))
    right = x @ layer.weight.T
    assert not torch.allclose(layer(x), right, rtol=1e-3)
    torch.testing.assert_close(layer(x[:, :15]), right[:, :15])
    with torch.no_grad():
        torch.testing.assert_close(layer(x), right)


def test_training_follows_fp32(monkeypatch):
    """30 steps of a language with something to learn: the next token is a fixed function of this one, but for noise."""
    g = torch.Generator().manual_seed(0)
    follows = torch.randperm(64, generator=g)
    rows = torch.randint(0, 64, (16, 33), generator=g)
    for t in range(1, 33):
        kept = torch.rand(16, generator=g) < 0.8
        rows[:, t] = torch.where(kept, follows[rows[:, t - 1]], rows[:, t])

    def losses(use_fp8):
        model = GPT(GPTConfig(32, 64, 2, 2, 2, 64)).init_weights(0)
        calls = []
        if use_fp8:
            model.use_fp8(least=0)
            forward = FP8Product.forward
            monkeypatch.setattr(FP8Product, "forward", staticmethod(lambda *a: calls.append(1) or forward(*a)))
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        found = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = model(rows[:, :-1], rows[:, 1:])
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        assert len(calls) == (30 * 2 * 6 if use_fp8 else 0)
        return torch.tensor(found)

    plain, rounded = losses(False), losses(True)
    assert plain[-1] < 0.75 * plain[0], "the test learns something"
    assert ((rounded - plain).abs() <= 0.03 * plain).all() and not torch.equal(plain, rounded)


def test_a_compiled_model_is_one_graph():
    """No graph break at the layer's own gradient, and the same numbers. The kernels that a compiler makes are not run."""
    model, idx = GPT(GPTConfig(16, 64, 2, 2, 2, 64)).init_weights(0).use_fp8(least=0), torch.arange(34).view(2, 17)
    grads = []
    for forward in (model, torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)):
        model.zero_grad()
        forward(idx[:, :-1], idx[:, 1:]).backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*grads)


def test_fp8_is_refused_where_there_is_none(monkeypatch):
    model = GPT(GPTConfig(8, 16, 1, 1, 1, 16))
    machine = MachineConfig(device="cpu", dtype="float32", fp8=True)
    with pytest.raises(UserError, match="cpu has none; set machine.fp8 to false"):
        prepare(model, machine, World())
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    with pytest.raises(UserError, match="A100 has none"):
        fp8.check(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    fp8.check(torch.device("cuda"))
