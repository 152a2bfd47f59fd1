"""
Muon's rule on a stack of matrices (K, m, n), a plain function for each of its parts; `nanochat.train.optim` joins them.

The gradient's running mean is replaced by the nearest matrix whose singular values are all 1, so that a step moves all
directions alike, the rare ones too. `newton_schulz` is how the first Muon did it. The speedrun's recipe adds what was
found later: rows made equal before, a better iteration, and after it equal norms and a variance per row or column.
"""

import math

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # maximises the slope at zero; singular values end in about [0.7, 1.2]
POLAR_EXPRESS = (  # each is best for what the one before leaves; singular values from 0.001 up end in [0.85, 1.15]
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def newton_schulz(g: Tensor, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """
    Replace every matrix U S V^T of a stack by about U V^T: all singular values become about 1. (Jordan 2024, Muon)

    The quintic a x + b x^3 + c x^5 pushes singular values towards 1; applied to the matrix itself it needs only matrix
    products. g (K, m, n) -> (K, m, n) in `dtype`, which is the precision of the products; bf16 is enough.
    """
    return quintics((g / (norm(g) + 1e-7)).to(dtype), [NEWTON_SCHULZ] * steps)


def polar_express(g: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """
    As `newton_schulz`, with another quintic at each of five steps. (Amsel et al. 2025, The Polar Express)

    The division by a little more than the norm leaves room for what bf16 rounds up.
    """
    return quintics((g / (1.01 * norm(g) + 1e-6)).to(dtype), POLAR_EXPRESS)


def quintics(x: Tensor, coefficients) -> Tensor:
    """One a x + b x x^T x + c x x^T x x^T x after the other; x (K, m, n), singular values at most about 1."""
    tall = x.size(-2) > x.size(-1)
    if tall:  # the Gram matrix of the short side is the small one
        x = x.mT
    for a, b, c in coefficients:
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def equal_rows(g: Tensor) -> Tensor:
    """Every row (.., n) of a matrix (m, n) scaled to the rows' root mean square norm; rows of zeros stay. (MuonEq)"""
    return g * (norm(g) / math.sqrt(g.size(-2)) / g.norm(dim=-1, keepdim=True).clamp_min(1e-6))


def full_norm(x: Tensor) -> Tensor:
    """Every matrix scaled to the norm it would have with singular values of exactly 1: √min(m, n). (Muon+)"""
    return x * (math.sqrt(min(x.shape[-2:])) / norm(x).clamp_min(1e-7))


def mean_square(x: Tensor) -> Tensor:
    """The mean square of each row where m >= n, else of each column: (K, m, n) -> (K, m, 1) or (K, 1, n), fp32."""
    return x.float().square().mean(dim=-1 if x.size(-2) >= x.size(-1) else -2, keepdim=True)


def equal_variance(x: Tensor, second_moment: Tensor, beta: float) -> Tensor:
    """
    Rows (or columns) over the root of their running mean square, the matrix's norm kept. (NorMuon, Li et al. 2025)

    The rows of a tall matrix with orthonormal columns differ in norm: some neurons would move far more than others.
    `second_moment`, shaped as `mean_square` gives it, is updated in place.
    """
    now = mean_square(x)
    second_moment.lerp_(now, 1 - beta)
    factor = second_moment.clamp_min(1e-10).rsqrt()
    before, after = (t.sum(dim=(-2, -1), keepdim=True) for t in (now, now * factor.square()))  # squared norms / length
    return x * (factor * (before / after.clamp_min(1e-20)).sqrt()).to(x.dtype)


def cautious(x: Tensor, weights: Tensor) -> Tensor:
    """The weights that the step -x already takes towards zero, others 0: only they decay. (Chen et al. 2025)"""
    return torch.where(x * weights >= 0, weights, 0)


def norm(x: Tensor) -> Tensor:
    """Frobenius norms, (K, m, n) -> (K, 1, 1)."""
    return x.norm(dim=(-2, -1), keepdim=True)
