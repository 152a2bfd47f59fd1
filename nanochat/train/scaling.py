"""
Hyperparameters from depth: what a model of `depth` layers should be given, each number with the reason for it.

    derive(24, params=729_810_624, reference_params=110_100_912, ratio=8)     # a list of Derived
    batch_tokens(tokens, reference_tokens)                                    # or one rule at a time

Every rule is anchored at one small model, depth 12, at which learning rates, weight decay and batch were tuned; the
others follow from how far a model's width and horizon are from its. Plain functions, no torch. (Rules and constants:
nanochat, July 2026.)

`params` are the scaling parameters: the weights that are multiplied once per token (matrices of the blocks and the
head), not the tables that are looked up. Those predict the best horizon; all weights do not.
"""

import math
from dataclasses import dataclass

REFERENCE_DEPTH = 12
REFERENCE_WIDTH = 768
REFERENCE_BATCH = 2**19  # tokens a step
RATES = {"matrix rate": 0.02, "embedding rate": 0.3, "head rate": 0.008}  # the first Muon's, the others AdamW's
RATIO = 12.0  # tokens per scaling parameter
WEIGHT_DECAY = 0.28  # Muon's, at the reference
BATCH_EXPONENT = 0.383  # best batch against horizon; Bergsma et al. 2025, Power Lines


@dataclass(frozen=True)
class Derived:
    """One number, and why it is what it is."""

    name: str
    value: int | float
    reason: str


def width(depth: int, head_dim: int = 128) -> int:
    """64 a layer, rounded up to whole heads: width(24) == 1536."""
    return -(-64 * depth // head_dim) * head_dim


def heads(depth: int, head_dim: int = 128) -> int:
    """width(depth) / head_dim."""
    return width(depth, head_dim) // head_dim


def horizon(params: int, ratio: float = RATIO) -> float:
    """Tokens to train on."""
    return ratio * params


def batch_tokens(tokens: float, reference_tokens: float) -> int:
    """Tokens a step: the power of two nearest, by ratio, to REFERENCE_BATCH · (tokens / reference_tokens) ** 0.383."""
    return 2 ** round(math.log2(REFERENCE_BATCH * (tokens / reference_tokens) ** BATCH_EXPONENT))


def batch_factor(batch: int) -> float:
    """What every learning rate is multiplied by: √(batch / REFERENCE_BATCH)."""
    return math.sqrt(batch / REFERENCE_BATCH)


def width_factor(width: int) -> float:
    """What AdamW's learning rates are multiplied by besides: (width / 768) ** -½. Muon's need none."""
    return (width / REFERENCE_WIDTH) ** -0.5


def weight_decay(batch: int, tokens: float, reference_tokens: float) -> float:
    """Muon's, with batch / (learning rate · decay · tokens), the time the weights remember, held as at the reference."""
    return WEIGHT_DECAY * batch_factor(batch) * reference_tokens / tokens


def derive(depth: int, params: int, reference_params: int, ratio: float = RATIO, head_dim: int = 128) -> list[Derived]:
    """
    All of them for one depth. `params` and `reference_params`: scaling parameters of this model and of the one of
    depth 12 with the same vocabulary.
    """
    wide, tokens, reference_tokens = width(depth, head_dim), horizon(params, ratio), horizon(reference_params, ratio)
    batch = batch_tokens(tokens, reference_tokens)
    aim, b = tokens / reference_tokens, batch_factor(batch)
    return [
        Derived("width", wide, f"64 × depth, rounded up to whole heads of {head_dim}"),
        Derived("heads", wide // head_dim, f"width / {head_dim}"),
        Derived("tokens", round(tokens), f"{ratio:g} × {params:,} weights that are multiplied"),
        Derived("batch", batch, f"2^19 × {aim:.2f}^{BATCH_EXPONENT}, to a power of two; {aim:.2f}: tokens, depth 12 = 1"),
        Derived("steps", int(tokens // batch), "tokens / batch, rounded down"),
        Derived("matrix rate", RATES["matrix rate"] * b, f"{RATES['matrix rate']:g} × √(batch / 2^19); Muon's"),
        *(Derived(name, RATES[name] * b * width_factor(wide), f"{RATES[name]:g} × √(batch / 2^19) × "
                  f"(width / {REFERENCE_WIDTH})^-½; AdamW's") for name in ("embedding rate", "head rate")),
        Derived("matrix decay", weight_decay(batch, tokens, reference_tokens),
                f"{WEIGHT_DECAY} × {b:.3g} / {aim:.2f}: batch / (rate × decay × tokens) kept"),
    ]  # fmt: skip
