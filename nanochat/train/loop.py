"""The training loop: one for pretraining, midtraining and SFT.

    batch → forward → loss / (targets in the GLOBAL batch) → backward → optimizer (sums gradients over ranks) → log, evaluate, save

The loss is divided by the number of counted targets of the whole batch, over all ranks and micro-batches, before it is
differentiated. So neither the number of ranks nor the size of a micro-batch changes the gradient.

Beside the loop: `saver` writes checkpoints in the background, `signals` turns SIGTERM and Ctrl-C into "finish the step,
save, leave", `watch` tells of steps that are not finite, of spikes and of slow ranks.
"""

import math
import os
import shutil
import time
from collections.abc import Callable

import torch

from nanochat.data import Loader
from nanochat.data.shards import agree
from nanochat.model import GPT, fp8
from nanochat.model.sight import choose_path
from nanochat.runtime import Run, World, core_seconds, pick_dtype, say
from nanochat.runtime.heap import keep_heap
from nanochat.tokenizer import Tokenizer
from nanochat.train import checkpoint
from nanochat.train.config import MachineConfig, StageConfig
from nanochat.train.optim import MuonAdamW
from nanochat.train.saver import Saver
from nanochat.train.schedule import decay_scale, lr_scale, momentum
from nanochat.train.signals import Stop
from nanochat.train.stage import Stage
from nanochat.train.watch import Watch

Live = Callable[[dict], None]      # called with every logged row, e.g. a live plot


def train(run: Run, stage: Stage, config: StageConfig, machine: MachineConfig, world: World, model: GPT, tokenizer: Tokenizer,
          loader: Loader, evaluate: Callable[[GPT], float], live: Live | None = None) -> dict:
    """Train `model` in place for the stage's steps, resuming from its newest checkpoint if there is one.

    `evaluate(model)` gives validation bits per byte. Returns the stage's headline numbers and leaves a final checkpoint.
    Raises UserError when three steps in a row are not finite or three saves in a row fail; checkpoints stay whole.
    SIGTERM and SIGINT end it after the step and a save (see `signals.Stop`).
    """
    name, schedule = stage.folder.name, config.schedule
    belongs = {"config": stage.digest, "tokenizer": tokenizer.digest}
    start, state, optim_state = 0, {}, None
    path = checkpoint.latest(stage.folder, **belongs)
    if path is not None:
        weights, optim_state, data, state = checkpoint.load(path)
        model.load_state_dict(weights)
        loader.load(data)
        start = state["step"]
        if world.rank < len(state["rng"]):
            checkpoint.restore_random_state(state["rng"][world.rank])
        say(f"{name}: resuming at step {start} of {schedule.steps}")
    if loader.shards is not None:
        agree(world.gather(loader.shards.listing))         # names the file; the digest in `same` could only differ
    world.agree({**belongs, **loader.same, "first step": start})
    prepare(model, machine, world, state.get("dtype"))
    optimizer = MuonAdamW(model, config.optim, world)
    if optim_state is not None:
        optimizer.load_tensors(optim_state)
    forward = compiled(model) if config.compile else model
    if not state:
        say(f"{name}: {schedule.steps} steps of {config.rows} × {model.config.sequence_len} tokens on {world.size} × "
            f"{world.device.type}, {model.num_params():,} parameters in {str(model.compute_dtype).removeprefix('torch.')}")

    loss_sum = state.get("loss_average", 0.0)              # of an exponential average that begins at 0
    clock = Clock(state.get("core_s", 0.0), state.get("wall_s", 0.0))
    rows = loader.rows                                     # this rank's rows of the global batch
    micro = min(config.device_rows or rows, rows)
    val_bpb = state.get("val_bpb")
    watch = Watch(run, name, world)
    with Stop() as stop, Saver(stage.folder, world, keep=config.keep, belongs=belongs, last=start) as saver:
        for step in range(start, schedule.steps):
            with clock:
                with watch.own_work:
                    inputs, targets = (torch.from_numpy(a).to(world.device) for a in loader.next())     # (rows, T)
                counted = int(world.sum((targets >= 0).sum()))
                loss = torch.zeros((), device=world.device)
                with watch.own_work:
                    for i in range(0, rows, micro):
                        part = forward(inputs[i : i + micro], targets[i : i + micro], reduction="sum") / max(counted, 1)
                        part.backward()
                        loss += part.detach()
                loss, asked, written = world.sum(torch.stack((loss, *flags(stop.asked, saver.written, world)))).tolist()
                grad_norm = math.nan                       # a loss that is not finite: no update, on no rank
                if math.isfinite(loss):
                    scale = lr_scale(step, schedule.steps, schedule.warmup, schedule.flat, schedule.final)
                    grad_norm = optimizer.step(lr_scale=schedule.scale * scale,
                                               momentum=momentum(step, schedule.steps, config.optim, schedule),
                                               decay_scale=decay_scale(step, schedule.steps))
                optimizer.zero_grad()
            done = step + 1
            watch(done, loss, grad_norm, loader.keys)
            if math.isfinite(grad_norm):
                loss_sum = 0.9 * loss_sum + 0.1 * loss
                if done % config.log_every == 0 or done == schedule.steps:
                    row = {"step": done, "loss": loss, "loss_average": loss_sum / (1 - 0.9**optimizer.count),
                           "grad_norm": grad_norm, "tok_per_s": clock.rate(config.rows * model.config.sequence_len),
                           "core_s": clock.core_s}
                    report(run, name, row, schedule.steps, world, live)
            if done % config.eval_every == 0 or done == schedule.steps:
                val_bpb = evaluate(model)
                report(run, name, {"kind": "val", "step": done, "val_bpb": val_bpb}, schedule.steps, world, live)
            if written == world.size:
                saver.finish()
            if done % config.save_every == 0 or done == schedule.steps or asked:
                state = {"schema": checkpoint.SCHEMA, "tokenizer": tokenizer.digest,
                         "dtype": str(model.compute_dtype).removeprefix("torch."), "loss_average": loss_sum,
                         "core_s": clock.core_s, "wall_s": clock.wall_s, "val_bpb": val_bpb}
                saver.start(done, model=model, optim=optimizer.state_tensors(), data=loader.state(), state=state)
            if asked:
                stop.leave(saver.stopped(done, schedule.steps))
    saver.require(schedule.steps)
    average = loss_sum / (1 - 0.9**optimizer.count) if optimizer.count else None
    return {"val_bpb": val_bpb, "loss": average, "core_s": clock.core_s, "wall_s": clock.wall_s,
            "tokens": schedule.steps * config.rows * model.config.sequence_len, "params": model.num_params()}


def flags(asked: int, written: bool, world: World) -> tuple[torch.Tensor, torch.Tensor]:
    """What a rank tells the others with its loss: that it should stop, that its part of a checkpoint is written."""
    return tuple(torch.tensor([float(asked > 0), float(written)], device=world.device))


def prepare(model: GPT, machine: MachineConfig, world: World, dtype: str | None = None) -> None:
    """Move the model to this rank's device and give it its compute dtype (a resumed stage keeps the one it began with)."""
    if machine.threads:
        torch.set_num_threads(machine.threads)
    if world.device.type == "cpu":
        keep_heap()
    torch.set_float32_matmul_precision("high")
    model.to(world.device)
    # all ranks take rank 0's choice: a probe may come out differently on each
    model.compute_dtype = pick_dtype(world.device, dtype or world.gather(str(pick_dtype(world.device, machine.dtype)).removeprefix("torch."))[0])
    if machine.fp8:
        fp8.check(world.device)
        model.use_fp8()
    model.attention_path = choose_path(world.device, model.compute_dtype, model.config)
    model.train()


def compiled(model: GPT):
    """The model compiled for static shapes, or the model itself, with one line, where no C++ compiler is at hand."""
    if next(model.parameters()).device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        say("no C++ compiler found: training without torch.compile, about three times slower (install g++)")
        return model
    return torch.compile(model, dynamic=False)


def report(run: Run, name: str, row: dict, steps: int, world: World, live: Live | None) -> None:
    """Log a row, pass it to the live plot, and print a line at every tenth of the way."""
    if not world.main:
        if os.getppid() == 1:                              # the launcher is gone: do not train on as an orphan
            raise SystemExit(1)
        return
    run.log(name, row)
    if live is not None:
        live(row)
    if "loss" in row and (row["step"] * 10 // steps) != ((row["step"] - 1) * 10 // steps) or row["step"] == steps:
        shown = {k: v for k, v in row.items() if k not in ("step", "kind", "grad_norm")}
        say(f"{name} {row['step']:>5}/{steps}  " + "  ".join(f"{k} {v:.4g}" for k, v in shown.items()))


class Clock:
    """Core seconds and wall seconds of the steps. The first step of a process (compilation) counts as an average one."""

    def __init__(self, core_s: float, wall_s: float):
        self._core, self._wall, self._steps, self._last = core_s, wall_s, 0, 0.0
        self._own_core = self._own_wall = 0.0

    def __enter__(self):
        self._t = core_seconds(), time.perf_counter()

    def __exit__(self, *_):
        core, wall = core_seconds() - self._t[0], time.perf_counter() - self._t[1]
        self._steps += 1
        self._last = wall
        if self._steps > 1:
            self._own_core += core
            self._own_wall += wall

    def _with_first(self, seconds: float) -> float:
        return seconds * self._steps / (self._steps - 1) if self._steps > 1 else 0.0

    @property
    def core_s(self) -> float:
        return self._core + self._with_first(self._own_core)

    @property
    def wall_s(self) -> float:
        return self._wall + self._with_first(self._own_wall)

    def rate(self, tokens: int) -> float:
        """Tokens a second over the steps of this process, the first left out."""
        return tokens * (self._steps - 1) / self._own_wall if self._own_wall else tokens / self._last
