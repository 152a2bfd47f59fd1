"""What a scale will cost, before anyone pays: parameters, tokens, FLOPs, memory, hours, dollars.

    print(plan("speedrun").table())
    side_by_side("toy", "speedrun")           # markdown, for the last section of a lesson

FLOPs are counted (6 per weight and token, plus attention; only the forward third where nothing is learned). Memory
and time are estimates from stated assumptions, in ASSUMPTIONS and in the scale's `hardware`; evaluation and
compilation are not in them.
"""

from dataclasses import dataclass
from functools import cached_property

from nanochat.course.manifest import Scale, load

ACTIVATION_BYTES = 28  # per token, layer and unit of width: fitted to the reference's depth-20 run, 75,423 MiB a device
LOGIT_BYTES = 6            # per token and entry of the vocabulary
ASSUMPTIONS = (
    "weights, gradients and optimizer state in fp32, optimizer state split over the devices",
    f"activations {ACTIVATION_BYTES} bytes per token, layer and unit of width (bf16, compiled)",
    f"logits {LOGIT_BYTES} bytes per token and entry of the vocabulary",
    "GRPO samples at a third of the training FLOPs a token, and every sample runs to max_tokens",
    "evaluation, checkpoints and compilation are not counted",
)


@dataclass(frozen=True)
class StagePlan:
    """One stage: how much is read, computed and waited for."""

    name: str
    steps: int
    tokens: int
    flops: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """A scale in numbers."""

    scale: Scale

    @cached_property
    def model(self):
        """The model on no device: shapes only."""
        import torch

        from nanochat.model import GPT, GPTConfig

        m = self.scale.pretrain.model
        config = GPTConfig.from_depth(m.depth, self.scale.tokenizer.vocab_size, m.sequence_len, n_embd=m.n_embd,
                                      head_dim=m.head_dim, n_kv_head=m.n_kv_head)
        with torch.device("meta"):
            return GPT(config)

    @cached_property
    def params(self) -> int:
        return self.model.num_params()

    @cached_property
    def stages(self) -> list[StagePlan]:
        s, length = self.scale, self.scale.pretrain.model.sequence_len
        found = [self._stage(name, c.schedule.steps, c.schedule.steps * c.rows * length)
                 for name, c in (("pretrain", s.pretrain), ("midtrain", s.midtrain), ("sft", s.sft))]
        g = s.grpo
        sampled = g.schedule.steps * g.prompts * g.samples * g.max_tokens
        replayed = g.schedule.steps * g.replay_rows * length if g.replay_weight else 0
        return [*found, self._stage("grpo", g.schedule.steps, sampled + replayed, extra=sampled / 3)]

    def _stage(self, name: str, steps: int, tokens: int, extra: float = 0) -> StagePlan:
        flops = self.model.flops_per_token() * (tokens + extra)
        return StagePlan(name, steps, tokens, flops, flops / self.flops_per_second)

    @property
    def flops_per_second(self) -> float:
        h = self.scale.hardware
        return h.peak_tflops * 1e12 * h.mfu * self.scale.machine.nproc

    @property
    def memory_gb(self) -> float:
        """The peak of pretraining on one device, in 10⁹ bytes."""
        c, s = self.model.config, self.scale
        nproc = s.machine.nproc
        embeddings = 2 * c.vocab_size * c.n_embd
        state = (4 * (self.params - embeddings) + 8 * embeddings) / nproc         # Muon: momentum; AdamW: two moments
        rows = min(s.pretrain.device_rows or s.pretrain.rows, s.pretrain.rows // nproc or 1)
        tokens = rows * c.sequence_len
        activations = tokens * (ACTIVATION_BYTES * c.n_layer * c.n_embd + LOGIT_BYTES * c.vocab_size)
        return (8 * self.params + state + activations) / 1e9

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def dollars(self) -> float:
        return self.seconds / 3600 * self.scale.hardware.dollars_per_hour

    def facts(self) -> dict[str, str]:
        """The plan as rows of a table: what, how much."""
        c, s = self.model.config, self.scale
        base = self.stages[0]
        return {
            "machine": s.hardware.name,
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
            "FLOPs of all stages": f"{sum(stage.flops for stage in self.stages):.3g}",
            "memory a device": f"{self.memory_gb:.1f} GB",
            "time": duration(self.seconds),
            "cost": f"${self.dollars:,.2f}" if s.hardware.dollars_per_hour else "–",
        }

    def table(self) -> str:
        """What `nanochat plan` prints."""
        facts, h = self.facts(), self.scale.hardware
        width = max(map(len, facts))
        lines = [f"plan for scale {self.scale.name}: {self.scale.where}", ""]
        lines += [f"  {what:<{width}}  {much}" for what, much in facts.items()]
        lines += ["", f"  {'stage':<10} {'steps':>8} {'tokens':>16} {'FLOPs':>10} {'time':>12}"]
        lines += [
            f"  {s.name:<10} {s.steps:>8,} {s.tokens:>16,} {s.flops:>10.2e} {duration(s.seconds):>12}"
            for s in self.stages
        ]
        speed = f"{h.peak_tflops:g} TFLOP/s peak a device × {self.scale.machine.nproc} at {h.mfu:.0%} of it"
        lines += ["", f"  assumed: {speed}, ${h.dollars_per_hour:g} an hour", *(f"           {a}" for a in ASSUMPTIONS)]
        if self.memory_gb > h.memory_gb:
            lines += [
                "",
                f"  ! {self.memory_gb:.1f} GB a device is more than its {h.memory_gb:g} GB: lower pretrain.device_rows",
            ]
        return "\n".join(lines)


def plan(scale: str) -> Plan:
    """The plan of a scale of course.yml. Raises UserError for an unknown one."""
    return Plan(load().scale(scale))


def side_by_side(*scales: str, rows: tuple[str, ...] = ()) -> None:
    """Show several plans as one table: this run's numbers beside the big run's. `rows` picks some of the facts."""
    facts = {scale: plan(scale).facts() for scale in scales}
    names = [name for name in facts[scales[0]] if not rows or name in rows]
    lines = [f"| | {' | '.join(scales)} |", "|---|" + "--:|" * len(scales)]
    lines += [f"| {name} | {' | '.join(facts[scale][name] for scale in scales)} |" for name in names]
    from IPython.display import Markdown, display

    display(Markdown("\n".join(lines)))


def duration(seconds: float) -> str:
    """Seconds as a person says them: 41 s, 12.5 min, 3.1 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
