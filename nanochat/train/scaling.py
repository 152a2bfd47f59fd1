"""
Hyperparameters from depth: what a model of `depth` layers should be given, each number with the reason for it.

    filled({"model": {"depth": 24, ...}, "horizon": 8, ...}, vocab_size=32768)     # a pretraining stage, whole
    derive(24, params=729_810_624, reference_params=110_100_912, ratio=8)          # its numbers, a list of Derived
    batch_tokens(tokens, reference_tokens)                                         # or one rule at a time

Every rule is anchored at one small model, depth 12, at which learning rates, weight decay and batch were tuned; the
others follow from how far a model's width and horizon are from its. Plain functions, no torch. (Rules and constants:
nanochat, July 2026.)

`params` are the scaling parameters: the weights that are multiplied once per token (matrices of the blocks and the
head), not the tables that are looked up. Those predict the best horizon; all weights do not.
"""

import math
from dataclasses import dataclass

from pydantic import BaseModel, Field

from nanochat.train.config import ModelConfig, PretrainConfig

REFERENCE_DEPTH = 12
REFERENCE_WIDTH = 768
REFERENCE_BATCH = 2**19  # tokens a step
RATES = {"matrix rate": 0.02, "embedding rate": 0.3, "head rate": 0.008, "scalar rate": 0.5}  # the first is Muon's
RATIO = 12.0  # tokens per scaling parameter
WEIGHT_DECAY = 0.28  # Muon's, at the reference
BATCH_EXPONENT = 0.383  # best batch against horizon; Bergsma et al. 2025, Power Lines
SHARD_TOKENS = 34.4e6  # of a hub shard's 250 million characters: 4.8 a token, a third cut off by packing
SETTINGS = {  # where in a PretrainConfig a number goes
    "width": "model.n_embd", "shards": "data.shards", "batch": "rows", "steps": "schedule.steps", "matrix rate": "optim.matrix_lr",
    "embedding rate": "optim.embedding_lr", "head rate": "optim.unembedding_lr", "scalar rate": "optim.scalar_lr",
    "matrix decay": "optim.matrix_decay",
}  # fmt: skip


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


def derive(depth: int, params: int, reference_params: int, ratio: float = RATIO, head_dim: int = 128,
           n_embd: int | None = None, batch: int | None = None) -> list[Derived]:  # fmt: skip
    """
    All of them for one depth. `params` and `reference_params`: scaling parameters of this model and of the one of
    depth 12 with the same vocabulary. Where `n_embd` or `batch` are given, the numbers after them belong to those.
    """
    wide, tokens, reference_tokens = width(depth, head_dim), horizon(params, ratio), horizon(reference_params, ratio)
    best = batch_tokens(tokens, reference_tokens)
    n_embd, batch = n_embd or wide, batch or best
    aim, b, w = tokens / reference_tokens, batch_factor(batch), width_factor(n_embd)
    return [
        Derived("width", wide, f"64 × depth, rounded up to whole heads of {head_dim}"),
        Derived("heads", -(-n_embd // head_dim), f"width / {head_dim}"),
        Derived("tokens", round(tokens), f"{ratio:g} × {params:,} weights that are multiplied"),
        Derived("shards", math.ceil(tokens / SHARD_TOKENS), f"tokens / {SHARD_TOKENS / 1e6:g} million a shard of the hub's"),
        Derived("batch", best, f"2^19 × {aim:.2f}^{BATCH_EXPONENT}, to a power of two; {aim:.2f}: tokens, depth 12 = 1"),
        Derived("steps", int(tokens // batch), "tokens / batch, rounded down"),
        Derived("matrix rate", RATES["matrix rate"] * b, f"{RATES['matrix rate']:g} × √(batch / 2^19); Muon's"),
        *(Derived(name, RATES[name] * b * w, f"{RATES[name]:g} × √(batch / 2^19) × (width / {REFERENCE_WIDTH})^-½; AdamW's")
          for name in ("embedding rate", "head rate")),
        Derived("scalar rate", RATES["scalar rate"] * b, f"{RATES['scalar rate']:g} × √(batch / 2^19); AdamW's"),
        Derived("matrix decay", weight_decay(batch, tokens, reference_tokens),
                f"{WEIGHT_DECAY} × {b:.3g} / {aim:.2f}: batch / (rate × decay × tokens) kept"),
    ]  # fmt: skip


def model_width(model: ModelConfig) -> int:
    """The width that a stage's model has; an odd depth of the seed architecture has heads that are smaller instead."""
    return model.n_embd or width(model.depth, model.head_dim if model.arch == "speedrun" else 1)


def scaling_params(model: ModelConfig, vocab_size: int) -> int:
    """A model's scaling parameters, counted without building it: 12 L C² + V C, and the speedrun's gates."""
    wide = model_width(model)
    n_head = -(-wide // model.head_dim)
    n_kv_head = model.n_kv_head or n_head
    matrices = 10 * wide**2 + 2 * wide * (n_kv_head * wide // n_head)  # queries, output, MLP; keys and values
    if model.arch == "seed":
        return model.depth * matrices + vocab_size * wide
    gates = 12 * n_kv_head * -(-model.depth // 2)  # of value embeddings, in every other layer
    return model.depth * matrices + gates + -(-vocab_size // 64) * 64 * wide


class Written(BaseModel, extra="allow"):
    """What must be right in a stage as written before the rest can follow from it."""

    model: ModelConfig
    horizon: float = Field(gt=0)
    rows: int | None = Field(None, gt=0)
    data: dict = {}
    optim: dict = {}
    schedule: dict = {}


def filled(stage: dict, vocab_size: int) -> dict:
    """
    A PretrainConfig as written, with a horizon; -> with all numbers that follow from its depth. What it writes itself
    stays, and the others follow from that. Raises pydantic's ValidationError where it cannot be understood.
    """
    written = Written.model_validate(stage)
    stage = written.model_dump(exclude_unset=True)  # a copy
    model = written.model
    model = model.model_copy(update={"n_embd": model.n_embd or width(model.depth, model.head_dim)})
    adamw = width_factor(model.n_embd) if written.optim.get("scale_by_width") else 1
    for rule in rules(model, vocab_size, written.horizon, written.rows and written.rows * model.sequence_len):
        if rule.name in SETTINGS:
            section, _, key = SETTINGS[rule.name].rpartition(".")
            value = rule.value // model.sequence_len if rule.name == "batch" else rule.value
            if rule.name in ("embedding rate", "head rate"):
                value /= adamw  # the optimizer multiplies by it
            if isinstance(value, float):
                value = float(f"{value:.6g}")  # the same on every machine, so that any can resume the stage
            (stage.setdefault(section, {}) if section else stage).setdefault(key, value)
    return stage


def rules(model: ModelConfig, vocab_size: int, ratio: float, batch: int | None = None) -> list[Derived]:
    """`derive` for the model of a stage that has a horizon."""
    reference = model.model_copy(update={"depth": REFERENCE_DEPTH, "n_embd": None})
    counts = scaling_params(model, vocab_size), scaling_params(reference, vocab_size)
    return derive(model.depth, *counts, ratio, model.head_dim, model.n_embd, batch)


def table(config: PretrainConfig, vocab_size: int) -> list[str]:
    """
    Lines to print: every rule for a stage's depth, what the stage has, and why. Where the stage has no horizon, the
    rules take 12 tokens a weight, and their own batch.
    """
    model, optim, batch = config.model, config.optim, config.rows * config.model.sequence_len
    found = rules(model, vocab_size, config.horizon or RATIO, batch if config.horizon else None)
    wide = model_width(model)
    adamw = width_factor(wide) if optim.scale_by_width else 1
    has = {
        "width": wide, "heads": -(-wide // model.head_dim), "tokens": config.schedule.steps * batch,
        "shards": config.data.shards, "batch": batch, "steps": config.schedule.steps, "matrix rate": optim.matrix_lr,
        "embedding rate": optim.embedding_lr * adamw, "head rate": optim.unembedding_lr * adamw,
        "scalar rate": optim.scalar_lr, "matrix decay": optim.matrix_decay,
    }  # fmt: skip
    lines = [f"{'from depth':<18} {'rule':>14} {'this scale':>14}  why"]
    return lines + [f"{rule.name:<18} {number(rule.value):>14} {number(has[rule.name]):>14}  {rule.reason}"
                    for rule in found]  # fmt: skip


def number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
