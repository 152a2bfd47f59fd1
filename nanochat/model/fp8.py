"""
Matrix products in float8: twice bf16's speed on the GPUs that have it, for tensors first scaled into its small range.

    y = fp8_linear(x, weight)          # x (..., K), weight (M, K) -> (..., M); gradients of both come out as usual

Each tensor gets one scale, so that its largest entry becomes the largest that the format can hold ("tensorwise").
Values and weights take e4m3 (three bits of mantissa), gradients e5m2 (two, and the range they need). Sums are fp32.
(Micikevicius et al. 2022, FP8 formats for deep learning)

All three products of a layer go through `product`. Without such a GPU it multiplies the same rounded numbers in fp32:
as slow as can be, and the same arithmetic, so that all but the kernel itself is tested everywhere.
"""

import torch
from torch import Tensor

from nanochat.runtime import UserError

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
MULTIPLE = 16  # of both sides of a matrix and of the rows: the kernel's demand

# What fp8 gains is a share of K M multiplications a row, what it costs is passes over K + M numbers that find the
# largest, round and transpose. On an H100 (some 700 TFLOP/s in bf16, 1,200 in fp8, 2.8 TB/s, 6 bytes more moved for
# each number) they are even where K M / (K + M) is about 620. So width 768 has nothing to gain, as others measured;
# at 1,280 all matrices of a block do. An estimate from rates, not a timing of this code.
PAYS = 620


def pays(n_out: int, n_in: int, least: float = PAYS) -> bool:
    """Whether a matrix (n_out, n_in) is of a shape that fp8 can multiply and large enough to gain from it."""
    return n_in % MULTIPLE == n_out % MULTIPLE == 0 and n_in * n_out / (n_in + n_out) >= least


def check(device: torch.device) -> None:
    """UserError where the hardware has no fp8 products: they came with NVIDIA's Ada and Hopper (8.9 and 9.0)."""
    if device.type != "cuda":
        raise UserError(f"fp8 was asked for, but a device of type {device.type} has none; set machine.fp8 to false")
    if torch.version.cuda and torch.cuda.get_device_capability(device) < (8, 9):
        name = torch.cuda.get_device_name(device)
        raise UserError(
            f"fp8 was asked for, but {name} has none (an RTX 4090, H100 or newer has); set machine.fp8 to false"
        )


def scaled(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x in `dtype` after scaling, and the factor, a fp32 scalar, that undoes the scaling."""
    largest = x.abs().amax().float().clamp(min=1e-12)  # a tensor of zeros stays one
    scale = torch.finfo(dtype).max / largest
    return (x.float() * scale).to(dtype), scale.reciprocal()


def product(a: Tensor, b: Tensor, a_factor: Tensor, b_factor: Tensor, dtype: torch.dtype, fast: bool = False) -> Tensor:
    """
    a (n, k) @ b (k, m) of fp8 tensors, scaling undone -> (n, m) in `dtype`.

    The kernel wants `a` stored by rows and `b` by columns. `fast` lets it add in less than fp32.
    """
    if a.is_cuda:
        by_rows, by_columns = a.contiguous(), b.t().contiguous().t()
        return torch._scaled_mm(
            by_rows, by_columns, scale_a=a_factor, scale_b=b_factor, out_dtype=dtype, use_fast_accum=fast
        )
    return (a.float() @ b.float() * (a_factor * b_factor)).to(dtype)


class FP8Product(torch.autograd.Function):
    """x (N, K), weight (M, K) -> x weight^T (N, M) in x's dtype. Kept for the backward pass: both in fp8."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        x8, x_factor = scaled(x, E4M3)
        w8, w_factor = scaled(weight, E4M3)
        ctx.save_for_backward(x8, x_factor, w8, w_factor)
        ctx.dtypes = x.dtype, weight.dtype
        return product(x8, w8.t(), x_factor, w_factor, x.dtype, fast=True)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x8, x_factor, w8, w_factor = ctx.saved_tensors
        g8, g_factor = scaled(grad, E5M2)  # (N, M)
        dx = product(g8, w8, g_factor, w_factor, ctx.dtypes[0])  # (N, K)
        dw = product(g8.t(), x8, g_factor, x_factor, ctx.dtypes[1])  # (M, K)
        return dx, dw


def fp8_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., K) times weight (M, K) transposed, in fp8 -> (..., M); the rows of x must be a multiple of MULTIPLE."""
    return FP8Product.apply(x.flatten(0, -2), weight).unflatten(0, x.shape[:-1])
