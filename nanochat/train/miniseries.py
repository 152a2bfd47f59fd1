"""
A miniseries: small models of one family, trained like the large run, that tell beforehand how good it will be.

    members = series(S.pretrain, S.miniseries, tokenizer.vocab_size)      # sizes and settings; nothing is trained
    losses = [train(member, run, S.machine) for member in members]        # each once; later it is read from the run

Every member is trained on as many tokens per parameter as the run, with the run's own settings moved to its size by the
rules of `nanochat.train.scaling`. It leaves miniseries/dN in the run: settings, curve and result, no weights.
"""

import math
from dataclasses import dataclass

import torch

from nanochat.model import GPT
from nanochat.runtime import Run
from nanochat.train import checkpoint, scaling
from nanochat.train.config import MachineConfig, MiniseriesConfig, PretrainConfig
from nanochat.train.launch import launch
from nanochat.train.pretrain import model_config


@dataclass(frozen=True)
class Member:
    """A model that is to be trained: all its weights, and the tokens and FLOPs of its training."""

    config: PretrainConfig
    params: int
    tokens: int
    flops: int


def sized(config: PretrainConfig, vocab_size: int) -> Member:
    """What a pretraining of these settings comes to: for the run itself, too."""
    with torch.device("meta"):
        model = GPT(model_config(config.model, vocab_size))
    tokens = config.schedule.steps * config.rows * config.model.sequence_len
    return Member(config, model.num_params(), tokens, model.flops_per_token() * tokens)


def series(config: PretrainConfig, chosen: MiniseriesConfig, vocab_size: int) -> list[Member]:
    """A member for every depth that is chosen, with settings that follow from those of the run, `config`."""
    big, m = sized(config, vocab_size), config.model
    found = []
    for depth in chosen.depths:
        width = chosen.width * depth
        shape = {"depth": depth, "n_embd": width, "head_dim": min(m.head_dim, width)}
        small = config.model_copy(update={"model": m.model_copy(update=shape), "compile": chosen.compile,
                                          "folder": f"miniseries/d{depth}",
                                          "horizon": None})  # fmt: skip
        share = sized(small, vocab_size).params / big.params  # and of the tokens
        found.append(sized(_moved(small, share, m.n_embd or 64 * m.depth), vocab_size))
    return found


def _moved(config: PretrainConfig, share: float, width: int) -> PretrainConfig:
    """
    The settings of a run `width` wide, moved to a model that gets `share` of its tokens.

    Tokens a step: share ** 0.383 of the run's, to a power of two. All rates: times the root of what became of that;
    AdamW's besides times the root of how much narrower the model is. Muon's decay: so that the weights remember the same
    share of the training. The schedule keeps its shape.
    """
    o, s = config.optim, config.schedule
    parts = config.rows * share**scaling.BATCH_EXPONENT / config.streams  # rows for each stream
    rows = config.streams * 2 ** max(0, round(math.log2(parts)))
    steps = max(2, round(s.steps * share * config.rows / rows))
    rate = math.sqrt(rows / config.rows)
    adamw = rate * (1 if o.scale_by_width else math.sqrt(width / config.model.n_embd))
    optim = {"matrix_lr": o.matrix_lr * rate, "scalar_lr": o.scalar_lr * rate, "embedding_lr": o.embedding_lr * adamw,
             "unembedding_lr": o.unembedding_lr * adamw, "matrix_decay": o.matrix_decay * rate / share}  # fmt: skip
    return config.model_copy(update={
        "optim": o.model_copy(update=optim), "rows": rows, "eval_every": steps, "log_every": -(-steps // 2), "keep": 1,
        "schedule": s.model_copy(update={"steps": steps, "warmup": round(s.warmup * steps / s.steps)})})  # fmt: skip


def train(member: Member, run: Run, machine: MachineConfig) -> float:
    """
    Bits per byte on the run's validation rows, of a member trained now, or to its end, or before; its weights are
    dropped then. Raises UserError as `launch` does.
    """
    result = launch("pretrain", member.config, run, machine)
    for path in (run / member.config.folder).glob("step_*"):
        checkpoint.discard(path)
    return result["val_bpb"]
