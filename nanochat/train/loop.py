"""The training loop: one for pretraining, midtraining and SFT.

    batch → forward → loss / (targets in the GLOBAL batch) → backward → optimizer (sums gradients over ranks) → log, evaluate, save

The loss is divided by the number of counted targets of the whole batch, over all ranks and micro-batches, before it is
differentiated. So neither the number of ranks nor the size of a micro-batch changes the gradient.

Beside the loop: `feed` prepares batches ahead, `saver` writes checkpoints in the background, `signals` turns SIGTERM and
Ctrl-C into "finish the step, save, leave", `watch` tells of steps that are not finite, of spikes and of slow ranks,
`progress` of all others.
"""

import copy
import math
import os
import shutil
from collections.abc import Callable
from contextlib import suppress

import torch

from nanochat.data import Loader
from nanochat.data.shards import agree
from nanochat.model import GPT, fp8
from nanochat.model.sight import choose_path
from nanochat.runtime import Run, World, pick_dtype, say
from nanochat.runtime.files import cache
from nanochat.runtime.heap import keep_heap
from nanochat.tokenizer import Tokenizer
from nanochat.train import checkpoint
from nanochat.train.config import MachineConfig, StageConfig
from nanochat.train.feed import Feed
from nanochat.train.garbage import Garbage
from nanochat.train.optim import MuonAdamW
from nanochat.train.progress import Clock, Live, Progress, Speed
from nanochat.train.saver import Saver
from nanochat.train.schedule import decay_scale, lr_scale, momentum
from nanochat.train.signals import Stop
from nanochat.train.stage import Stage
from nanochat.train.watch import Watch


def train(run: Run, stage: Stage, config: StageConfig, machine: MachineConfig, world: World, model: GPT, tokenizer: Tokenizer,
          loader: Loader, evaluate: Callable[[GPT], float], live: Live | None = None) -> dict:
    """Train `model` in place for the stage's steps, resuming from its newest checkpoint if there is one.

    `evaluate(model)` gives validation bits per byte. Returns the stage's headline numbers and leaves a final checkpoint.
    Raises UserError when three steps in a row are not finite or three saves in a row fail; checkpoints stay whole.
    SIGTERM and SIGINT end it after the step and a save (see `signals.Stop`).
    """
    name, schedule = stage.folder.relative_to(run.path).as_posix(), config.schedule
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
    forward = compiled(model, world.size) if config.compile else model
    if not state:
        say(f"{name}: {schedule.steps} steps of {config.rows} × {model.config.sequence_len} tokens on {world.size} × "
            f"{world.device.type}, {model.num_params():,} parameters in {str(model.compute_dtype).removeprefix('torch.')}")

    loss_sum = state.get("loss_average", 0.0)              # of an exponential average that begins at 0
    clock = Clock(state.get("core_s", 0.0), state.get("wall_s", 0.0))
    rows = loader.rows                                     # this rank's rows of the global batch
    micro = min(config.device_rows or rows, rows)
    val_bpb = state.get("val_bpb")
    tokens = config.rows * model.config.sequence_len       # of a step
    speed, watch = Speed(model, world), Watch(run, name, world)
    with (Stop() as stop, Garbage() as garbage, Feed(loader, world.device) as feed,
          Progress(run, name, schedule.steps, world, machine.tracker, live) as progress,
          Saver(stage.folder, world, keep=config.keep, belongs=belongs, last=start) as saver):
        for step in range(start, schedule.steps):
            with clock:
                with watch.own_work:
                    inputs, targets = feed.next()          # (rows, T) each
                counted = world.sum((targets >= 0).sum()).clamp(min=1)
                loss = torch.zeros((), device=world.device)
                with watch.own_work:
                    for i in range(0, rows, micro):
                        part = forward(inputs[i : i + micro], targets[i : i + micro], reduction="sum") / counted
                        with optimizer.overlap(last=i + micro >= rows):
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
            watch(done, loss, grad_norm, feed.keys)
            if math.isfinite(grad_norm):
                loss_sum = 0.9 * loss_sum + 0.1 * loss
                progress({"step": done, "loss": loss, "loss_average": loss_sum / (1 - 0.9**optimizer.count),
                          "grad_norm": grad_norm, **speed(tokens, clock.step_s), "core_s": clock.core_s},
                         logged=done % config.log_every == 0 or done == schedule.steps)
            if done == start + 1 or done % config.eval_every == 0:
                garbage.collect()
            if done % config.eval_every == 0 or done == schedule.steps:
                val_bpb = evaluate(model)
                progress({"kind": "val", "step": done, "val_bpb": val_bpb})
            if written == world.size:
                saver.finish()
            if done % config.save_every == 0 or done == schedule.steps or asked:
                state = {"schema": checkpoint.SCHEMA, "tokenizer": tokenizer.digest,
                         "dtype": str(model.compute_dtype).removeprefix("torch."), "loss_average": loss_sum,
                         "core_s": clock.core_s, "wall_s": clock.wall_s, "val_bpb": val_bpb}
                saver.start(done, model=model, optim=optimizer.state_tensors(), data=feed.state(), state=state)
            if asked:
                stop.leave(saver.stopped(done, schedule.steps))
    saver.require(schedule.steps)
    average = loss_sum / (1 - 0.9**optimizer.count) if optimizer.count else None
    trained = schedule.steps * tokens
    return {"val_bpb": val_bpb, "loss": average, "core_s": clock.core_s, "wall_s": clock.wall_s,
            "tokens": trained, "params": model.num_params(), **speed(trained, clock.wall_s)}


def flags(asked: int, written: bool, world: World) -> tuple[torch.Tensor, torch.Tensor]:
    """What a rank tells the others with its loss: that it should stop, that its part of a checkpoint is written."""
    return tuple(torch.tensor([float(asked > 0), float(written)], device=world.device))


def prepare(model: GPT, machine: MachineConfig, world: World, dtype: str | None = None) -> None:
    """Move the model to this rank's device and give it its compute dtype (a resumed stage keeps the one it began with)."""
    if machine.threads:
        torch.set_num_threads(machine.threads)
    keep_compiled()
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


def keep_compiled() -> None:
    """Let torch find at the next start what it compiles now: in the user's cache folder, if nothing else is set.

    Torch's own choice, made when it first compiles, is a temporary folder, and stays where the cache cannot be written to.
    """
    folder = cache() / "inductor"
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


def compiled(model: GPT, ranks: int = 1):
    """
    The model compiled for static shapes, or the model itself, with one line, where no C++ compiler is at hand.

    One graph is fastest, but hands over all its gradients at its end. With several ranks every block has a graph of its own,
    so that a block's gradients travel while those before it are still at work.
    """
    if next(model.parameters()).device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        say("no C++ compiler found: training without torch.compile, about three times slower (install g++)")
        return model
    if ranks == 1:
        return torch.compile(model, dynamic=False)
    twin = copy.deepcopy(model, {id(p): p for p in model.parameters()})        # the same weights; `model` itself stays as it is
    for block in twin.blocks:
        block.compile(dynamic=False)
    twin.loss = torch.compile(twin.loss, dynamic=False)
    return twin
