"""A plan as text: what `nanochat plan` prints, part by part, and in the end what will not work."""

from nanochat.course.hardware import GPUS, NETWORK
from nanochat.course.plan import LAUNCH, Plan, StagePlan, duration, money, sized
from nanochat.train import scaling


def table(plan: Plan) -> str:
    parts = (
        [f"plan for scale {plan.scale.name}: {plan.scale.where}"],
        facts(plan), stages(plan), memory(plan), hyperparameters(plan), assumptions(plan), warnings(plan),
    )  # fmt: skip
    return "\n\n".join("\n".join(part) for part in parts if part)


def facts(plan: Plan) -> list[str]:
    rows = plan.facts()
    return [f"  {what:<{max(map(len, rows))}}  {much}" for what, much in rows.items()]


def stages(plan: Plan) -> list[str]:
    rows = [("stage", "steps", "tokens", "FLOPs", "time", "cost", "memory")]
    for s in plan.everything:
        rows.append((s.name, f"{s.steps:,}", f"{s.tokens:,}", f"{s.flops:.2e}", duration(s.seconds),
                     money(plan.dollars(s.seconds)), sized(plan.memory(s).peak) if s.rows else ""))  # fmt: skip
    tokens, flops = sum(s.tokens for s in plan.everything), sum(s.flops for s in plan.everything)
    rows.append(
        ("all", "", f"{tokens:,}", f"{flops:.2e}", duration(plan.seconds), money(plan.dollars(plan.seconds)), "")
    )
    return ["  {:<10} {:>8} {:>16} {:>10} {:>12} {:>11} {:>10}".format(*row).rstrip() for row in rows]


def memory(plan: Plan) -> list[str]:
    """Pretraining, line by line."""
    needed, stage = plan.memory(), plan.stages[0]
    times = f"{stage.micro_batches} micro-batch{'es' * (stage.micro_batches > 1)}"
    parts = [
        ("weights", needed.weights, "fp32"),
        ("gradients", needed.gradients, "as the weights"),
        ("optimizer", needed.optimizer, f"1/{plan.ranks} of the state" if plan.ranks > 1 else "all of the state"),
        ("activations", needed.activations, f"{stage.rows} rows of {plan.model.config.sequence_len:,} tokens at once"),
        ("logits", needed.logits, "head and loss of those rows, at their worst moment"),
        ("update", needed.update, "copies made by the optimizer step"),
        ("peak", needed.peak, "inside a micro-batch or in the optimizer step, whichever is more"),
    ]
    lines = [f"  memory of one device, pretraining, {times} a step"]
    return lines + [f"  {what:<12} {sized(much):>10}  {note}" for what, much, note in parts]


def hyperparameters(plan: Plan) -> list[str]:
    return [f"  {line}" for line in scaling.table(plan.scale.pretrain, plan.scale.tokenizer.vocab_size)]


def assumptions(plan: Plan) -> list[str]:
    h = plan.scale.hardware
    speed = f"{h.peak_tflops:g} TFLOP/s peak a device × {plan.ranks} at {h.mfu:.3g} of it"
    found = [f"{speed}, ${h.dollars_per_hour * plan.nodes:g} an hour"]
    found += [f"efficiency on {name}: {GPUS[name].source}" for name in GPUS if f"×{name}," in h.name]
    if plan.scale.machine.fp8:
        found.append(f"{plan.fp8_share:.0%} of the blocks' weights multiplied in fp8, the rest gains nothing from it; memory as in bf16")
    if plan.nodes > 1:
        found.append(f"between nodes {NETWORK / 1e9:g} GB/s a device, waited for")
    found += [f"GRPO: answers of max_tokens, prompts as long; decoding waits {1e3 * LAUNCH:g} ms a layer and token",
              "evaluation, checkpoints and compilation are not counted, nor that the miniseries' small models reach less of the peak"]  # fmt: skip
    return [f"  {'assumed:' if i == 0 else '':<8} {line}" for i, line in enumerate(found)]


def warnings(plan: Plan) -> list[str]:
    """What will not fit or not divide, and what to change."""
    s, found = plan.scale, []
    for stage in plan.stages:
        if not plan.fits(stage):
            found.append(too_large(plan, stage))
        config = getattr(s, stage.name)
        setting = "prompts" if stage.name == "grpo" else "streams"
        if getattr(config, setting) % plan.ranks:
            found.append(f"{stage.name}.{setting} is {getattr(config, setting)}, which {plan.ranks} processes cannot "
                         f"share: set it to a multiple of {plan.ranks}")  # fmt: skip
    return [f"  ! {line}" for line in found]


def too_large(plan: Plan, stage: StagePlan) -> str:
    line = f"{stage.name} needs {sized(plan.memory(stage).peak)} of a device's {plan.scale.hardware.memory_gb:g} GB"
    rows = plan.rows_that_fit(stage)
    if rows is None:
        return f"{line}, and with one row at once still {sized(plan.memory(stage, 1).peak)}: take a larger device, a smaller depth or shorter rows"
    return f"{line}: set {stage.name}.device_rows to {rows} instead of {stage.rows} ({sized(plan.memory(stage, rows).peak)})"
