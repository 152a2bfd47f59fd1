"""What a scale will cost, before anyone pays: parameters, tokens, FLOPs, memory, hours, dollars.

    print(table(plan("speedrun", gpu="H200")))        # nanochat.course.plan_table
    side_by_side("toy", "speedrun")           # markdown, for the last section of a lesson

FLOPs are the model's own count (6 per weight and token, plus attention; only the forward third where nothing is
learned). Time is FLOPs over peak times efficiency, see `hardware`; memory is counted on fake tensors, see `memory`.
What is assumed is printed below the table; evaluation and compilation are not in it.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from nanochat.course.hardware import GPUS, NETWORK, machine
from nanochat.course.manifest import Scale, load
from nanochat.runtime import UserError

ROOM = 0.95  # of a device's memory: the rest goes to the driver, the context, fragments
ENGINE_ROWS = 256  # answers decoded at once, nanochat.engine's default where its cache fits
POLICY_ROWS = 64  # answers learned from at once, nanochat.train.grpo's default
LAUNCH = 0.3e-3  # seconds a layer and token step of decoding: many small kernels, one after the other


@dataclass(frozen=True)
class StagePlan:
    """One stage: how much is read, computed and waited for; a rank's rows of a step, and how many of them at once."""

    name: str
    steps: int
    tokens: int
    flops: float
    seconds: float
    rank_rows: int
    rows: int

    @property
    def micro_batches(self) -> int:
        return -(-self.rank_rows // self.rows)


@dataclass(frozen=True)
class Plan:
    """A scale in numbers, on `nodes` machines as the scale names them."""

    scale: Scale
    nodes: int = 1

    @property
    def ranks(self) -> int:
        return self.scale.machine.nproc * self.nodes

    @cached_property
    def model(self):
        """The scale's model on no device: shapes only."""
        import torch

        from nanochat.model import GPT, GPTConfig

        shape = self.scale.pretrain.model.model_dump()
        depth, sequence_len = shape.pop("depth"), shape.pop("sequence_len")
        config = GPTConfig.from_depth(depth, self.scale.tokenizer.vocab_size, sequence_len, **shape)
        with torch.device("meta"):
            return GPT(config)

    @cached_property
    def params(self) -> int:
        return self.model.num_params()

    @property
    def fp8_share(self) -> float:
        """Of the weights of the blocks' matrices those that machine.fp8 multiplies in fp8: the ones that gain from it."""
        matrices = [p for p in self.model.use_fp8().blocks.modules() if hasattr(p, "fp8")]
        return sum(m.weight.numel() for m in matrices if m.fp8) / sum(m.weight.numel() for m in matrices)

    @cached_property
    def stages(self) -> list[StagePlan]:
        s, length = self.scale, self.scale.pretrain.model.sequence_len
        found = []
        for name, c in (("pretrain", s.pretrain), ("midtrain", s.midtrain), ("sft", s.sft)):
            rows = max(1, c.rows // self.ranks)
            tokens = c.schedule.steps * c.rows * length
            found.append(self._stage(name, c.schedule.steps, tokens, tokens, rows, min(c.device_rows or rows, rows)))
        g = s.grpo
        steps, answers = g.schedule.steps, max(1, g.prompts * g.samples // self.ranks)
        sampled = steps * g.prompts * g.samples * g.max_tokens
        replayed = steps * g.replay_rows * length if g.replay_weight else 0
        waiting = steps * g.max_tokens * -(-answers // ENGINE_ROWS) * self.model.config.n_layer * LAUNCH
        return [*found, self._stage("grpo", steps, sampled + replayed, 4 / 3 * sampled + replayed, answers,
                                    min(g.device_rows or POLICY_ROWS, answers), waiting)]  # fmt: skip

    @cached_property
    def miniseries(self) -> StagePlan:
        """Lesson 05's small models, trained before the large one; what they need of memory never matters."""
        from nanochat.train.miniseries import series

        members = series(self.scale.pretrain, self.scale.miniseries, self.scale.tokenizer.vocab_size)
        steps, tokens = sum(m.config.schedule.steps for m in members), sum(m.tokens for m in members)
        flops = sum(m.flops for m in members)
        return StagePlan("miniseries", steps, tokens, flops, flops / self.flops_per_second, 0, 0)

    @property
    def everything(self) -> list[StagePlan]:
        return [self.miniseries, *self.stages]

    def _stage(
        self, name: str, steps: int, tokens: int, trained: float, rank_rows: int, rows: int, waiting: float = 0.0
    ) -> StagePlan:
        """`trained`: tokens that cost as much as training on as many. `waiting`: seconds in which little is computed."""
        flops = self.model.flops_per_token() * trained
        exchanged = 8 * self.params * (self.nodes - 1) / self.nodes  # gradients out, weights in, fp32
        network = steps * exchanged / (NETWORK * self.scale.machine.nproc)
        return StagePlan(name, steps, tokens, flops, flops / self.flops_per_second + network + waiting, rank_rows, rows)

    @property
    def flops_per_second(self) -> float:
        h = self.scale.hardware
        return h.peak_tflops * 1e12 * h.mfu * self.ranks

    def memory(self, stage: StagePlan | None = None, rows: int | None = None):
        """A step of a stage (pretraining) on one device, as `Memory`; `rows` at once, by default the stage's own."""
        import torch

        from nanochat.course.memory import memory

        stage, chosen = stage or self.stages[0], self.scale.machine
        rows = rows or stage.rows
        whole, g = rows, self.scale.grpo
        if stage.name == "grpo" and not g.replay_weight:  # answers and their prompts are shorter than the context
            whole = -(-rows * min(2 * g.max_tokens, self.model.config.sequence_len) // self.model.config.sequence_len)
        dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}.get(
            chosen.dtype, torch.float32 if chosen.device in ("auto", "cpu") else torch.bfloat16)  # fmt: skip
        needed = memory(
            self.model.config, self.scale.pretrain.optim, rows=whole, micro_batches=-(-stage.rank_rows // rows),
            ranks=self.ranks, dtype=dtype, compiled=self.scale.pretrain.compile and stage.name != "grpo",
        )  # fmt: skip
        return replace(needed, engine=dtype.itemsize * self.params) if stage.name == "grpo" else needed

    def gigabytes(self, stage: StagePlan | None = None, rows: int | None = None) -> float:
        """The peak of a stage (pretraining) on one device, in 10⁹ bytes."""
        return self.memory(stage, rows).peak / 1e9

    def fits(self, stage: StagePlan, rows: int | None = None) -> bool:
        return self.gigabytes(stage, rows) <= ROOM * self.scale.hardware.memory_gb

    def rows_that_fit(self, stage: StagePlan) -> int | None:
        """The most rows at once that fit a device and divide a rank's rows; None if one row is too many."""
        divisors = (rows for rows in range(stage.rows, 0, -1) if stage.rank_rows % rows == 0)
        return next((rows for rows in divisors if self.fits(stage, rows)), None)

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.everything)

    def dollars(self, seconds: float) -> float:
        return seconds / 3600 * self.scale.hardware.dollars_per_hour * self.nodes

    def facts(self) -> dict[str, str]:
        """The plan as rows of a table: what, how much."""
        c, s = self.model.config, self.scale
        base = self.stages[0]
        return {
            "machine": s.hardware.name if self.nodes == 1 else f"{self.nodes} nodes of {s.hardware.name}",
            "data": s.pretrain.data.source,
            "vocabulary": f"{c.vocab_size:,}",
            "depth × width": f"{c.n_layer} × {c.n_embd}",
            "heads (of keys)": f"{c.n_head} ({c.n_kv_head})",
            "context": f"{c.sequence_len:,}",
            "parameters": f"{self.params:,}",
            "tokens a step": f"{s.pretrain.rows * c.sequence_len:,}",
            "pretraining tokens": f"{base.tokens:,}",
            "tokens per parameter": f"{base.tokens / self.params:.1f}",
            "FLOPs a token": f"{self.model.flops_per_token():.3g}",
            "FLOPs of all stages": f"{sum(stage.flops for stage in self.everything):.3g}",
            "memory a device": sized(self.memory().peak),
            "time": duration(self.seconds),
            "cost": money(self.dollars(self.seconds)),
        }


def plan(scale: str, gpu: str = "", gpus: int | None = None, nodes: int = 1, fp8: bool | None = None) -> Plan:
    """
    The plan of a scale of course.yml; on `gpus` GPUs a node of another kind than the scale's if `gpu` names one.

    fp8: as in `nanochat run`, with machine.fp8 on or off; None: as the scale has it.
    UserError for an unknown scale or GPU, for counts below one, and for more devices than there are rows.
    """
    found = load().scale(scale)
    for name, count in (("--gpus", gpus), ("--nodes", nodes)):
        if count is not None and count < 1:
            raise UserError(f"{name} is {count}; it must be at least 1")
    if fp8 and not gpu:
        gpu = next((name for name in GPUS if name in found.hardware.name), "")
    if not gpu and (gpus or fp8):
        raise UserError(f"{'--gpus' if gpus else '--fp8'} needs --gpu: one of {', '.join(GPUS)}")
    if gpu:
        count, fp8 = gpus or found.machine.nproc, found.machine.fp8 if fp8 is None else fp8
        hardware = machine(gpu, count, "fp8" if fp8 else "bf16")
        kind = {"device": "cpu", "dtype": "auto"} if gpu.lower() == "cpu" else {"device": "cuda", "dtype": "bfloat16"}
        chosen = found.machine.model_copy(update={"nproc": count, "fp8": fp8, **kind})
        found = found.model_copy(update={"hardware": hardware, "machine": chosen})
        if fp8:                        # time adds up over the weights in fp8 and the others
            share, slow = Plan(found).fp8_share, machine(gpu, count).mfu
            mixed = hardware.model_copy(update={"mfu": 1 / (share / hardware.mfu + (1 - share) / slow)})
            found = found.model_copy(update={"hardware": mixed})
    if found.machine.nproc * nodes > found.pretrain.rows:
        raise UserError(f"{found.machine.nproc * nodes} devices are more than the {found.pretrain.rows} rows of a step "
                        f"(pretrain.rows of scale {scale}): take fewer devices or a larger batch")  # fmt: skip
    return Plan(found, nodes)


def side_by_side(*scales: str, rows: tuple[str, ...] = ()) -> None:
    """Show several plans as one table: this run's numbers beside the big run's. `rows` picks some of the facts."""
    facts = {scale: plan(scale).facts() for scale in scales}
    names = [name for name in facts[scales[0]] if not rows or name in rows]
    lines = [f"| | {' | '.join(scales)} |", "|---|" + "--:|" * len(scales)]
    lines += [f"| {name} | {' | '.join(facts[scale][name] for scale in scales)} |" for name in names]
    from IPython.display import Markdown, display

    display(Markdown("\n".join(lines)))


def duration(seconds: float) -> str:
    """Seconds as a person says them: 41 s, 12.5 min, 3.1 h, 4.2 days."""
    for size, unit, most in ((1, "s", 90), (60, "min", 5400), (3600, "h", 72 * 3600)):
        if seconds < most:
            return f"{seconds / size:.{0 if size == 1 else 1}f} {unit}"
    return f"{seconds / 86400:,.1f} days"


def sized(size: float) -> str:
    """Bytes in units of 10⁹, or of 10⁶ where they are few."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def money(dollars: float) -> str:
    return f"${dollars:,.2f}" if dollars else "–"
