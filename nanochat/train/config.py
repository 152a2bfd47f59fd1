"""What each training stage can be told: one small frozen model a stage, free of torch so that course.yml can be read anywhere.

A scale in course.yml fills these in. Unknown keys are refused by name.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MachineConfig(Config):
    """Where a stage runs. Not part of what a stage *is*: a run may be resumed on another machine."""

    device: str = "auto"
    dtype: str = "auto"
    nproc: int = Field(1, gt=0)       # processes of a node, one a GPU; more than one go through torchrun
    nodes: int = Field(1, gt=0)       # machines; the others run `nanochat join`
    rendezvous: str = ""              # of several machines: HOST:PORT, a free port of the first one
    threads: int | None = None        # CPU threads a process; None: torch decides
    fp8: bool = False                 # train the large matrices in float8, see nanochat.model.fp8
    tracker: Literal["tensorboard", "wandb"] | None = None      # where metrics go beside metrics.jsonl

    @model_validator(mode="after")
    def _meets(self):
        if self.nodes > 1 and ":" not in self.rendezvous:
            raise ValueError(f"{self.nodes} nodes need a rendezvous, HOST:PORT")
        return self


class DataConfig(Config):
    """Where the pretraining text comes from: the toy world, or a hub repository of parquet shards."""

    source: str = "toy"               # "toy", or a repository such as karpathy/climbmix-400b-shuffle
    world: str = "toy"                # size of the toy world: smoke or toy
    shards: int = 1                   # training shards of a repository
    val_shard: str = ""               # its pinned validation shard


class ModelConfig(Config):
    """The shape of the model. Width and heads follow from depth unless stated (nanochat: width 64·depth, head size 128)."""

    depth: int = Field(gt=0)
    sequence_len: int = Field(gt=0)
    n_embd: int | None = None
    head_dim: int = 128
    n_kv_head: int | None = None      # None: as many as query heads; 1: multi-query attention
    arch: Literal["seed", "speedrun"] = "seed"      # see nanochat.model.config


class OptimConfig(Config):
    """Muon on the block matrices, AdamW on embedding, head and the speedrun's scalars (defaults: nanochat v0).

    Muon's parts are functions of `nanochat.train.muon`; the defaults are the first Muon, the gpt2 scale takes them all.
    """

    matrix_lr: float = 0.02
    embedding_lr: float = 0.2
    unembedding_lr: float = 0.004
    betas: tuple[float, float] = (0.8, 0.95)
    eps: float = 1e-10
    momentum: float = 0.95
    momentum_start: float = 0.95      # ramps to `momentum` over `momentum_warmup` steps
    momentum_warmup: int = 0
    momentum_final: float | None = None     # `momentum` falls to it as the learning rate falls; None: it stays
    orthogonal: Literal["newton_schulz", "polar_express"] = "newton_schulz"
    muoneq: bool = False              # rows of equal norm before
    muon_plus: bool = False           # the norm of an orthogonal matrix after
    normuon_beta: float | None = None       # rows or columns of equal variance, a mean over 1 / (1 - beta) steps
    matrix_decay: float = 0.0         # weight decay, only where the step goes towards zero too; half a cosine to 0
    scalar_lr: float = 0.5            # of the speedrun's x0 scalars; a hundredth of it of its residual scalars
    embedding_betas: tuple[float, float] | None = None      # None: `betas`
    unembedding_betas: tuple[float, float] | None = None
    embedding_decay: float = 0.0      # weight decay
    unembedding_decay: float = 0.0
    scale_by_width: bool = False      # AdamW rates of embeddings and head times (n_embd / 768) ** -0.5


class ScheduleConfig(Config):
    """Linear warm-up, flat, linear down to `final`; `scale` multiplies every learning rate of the stage."""

    steps: int = Field(gt=0)
    warmup: int = 0
    flat: float = Field(0.8, ge=0, le=1)    # share of the steps after which the rate starts to fall
    final: float = 0.0
    scale: float = 1.0


class StageConfig(Config):
    """What pretraining, midtraining and SFT share."""

    schedule: ScheduleConfig
    optim: OptimConfig = OptimConfig()
    rows: int = Field(gt=0)                 # rows of the global batch: tokens a step = rows × sequence_len
    device_rows: int | None = None          # rows a rank puts through the model at once; None: all its rows
    streams: int = 4                        # independent data streams; ranks share them out, so they must divide evenly
    log_every: int = 10
    eval_every: int = 100                   # validation bits per byte
    eval_rows: int = 128                    # rows of validation text
    save_every: int = 100
    keep: int = 2                           # checkpoints kept
    compile: bool = True

    @model_validator(mode="after")
    def _divides(self):
        if self.rows % self.streams:
            raise ValueError(f"rows ({self.rows}) must be a multiple of streams ({self.streams})")
        return self


class PretrainConfig(StageConfig):
    data: DataConfig
    model: ModelConfig
    horizon: float | None = None            # tokens a weight; what a scale leaves out follows, see nanochat.train.scaling
    folder: str = "base"                    # where in the run it is kept; a miniseries has folders of its own


class MiniseriesConfig(Config):
    """Small models of one family, trained before the large one. See nanochat.train.miniseries."""

    depths: list[int] = Field(min_length=5)     # rising; the last is predicted from the others
    width: int = Field(64, gt=0)                # channels for each layer of depth
    compile: bool = True                        # compiling five models takes longer than training tiny ones


class Share(Config):
    """One task of a mixture and its share of the tokens."""

    task: str
    share: float = Field(gt=0)
    options: dict = {}


class ChatTrainConfig(StageConfig):
    """Midtraining and SFT: the same loop over a mixture of tasks, loss on the assistant's words."""

    mixture: list[Share] = Field(min_length=1)


class GRPOConfig(Config):
    """Group-relative policy optimisation on one task with a checkable answer."""

    task: str
    schedule: ScheduleConfig
    optim: OptimConfig = OptimConfig()
    prompts: int = 16                       # per step, over all ranks
    samples: int = 16                       # per prompt
    max_tokens: int = 20
    temperature: float = 1.0
    top_k: int | None = None
    device_rows: int | None = None          # sampled rows a rank puts through the model at once
    replay_weight: float = 0.5              # weight of the SFT batch's loss in the same step; 0: no replay
    replay_rows: int = 32
    mixture: list[Share] = []               # what is replayed
    eval_prompts: int = 64                  # fixed training prompts for reward_first / reward_last
    eval_samples: int = 16
    heldout_items: int = 300
    log_every: int = 1
    save_every: int = 10
    keep: int = 2
    streams: int = 4


class CharRNNConfig(Config):
    """The baseline: a recurrent network over bytes."""

    kind: str = "lstm"
    n_embd: int = 224
    n_hidden: int = 224
    n_layer: int = 2
    steps: int = 550
    rows: int = 32
    sequence_len: int = 128
    lr: float = 5e-3
    clip: float = 1.0
