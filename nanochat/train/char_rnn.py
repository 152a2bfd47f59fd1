"""
Training the recurrent baseline on the run's text: the number that the Transformer has to beat at equal cost.

    fit(run, CharRNNConfig(steps=350))  ->  {"val_bpb": ..., "params": ..., "core_s": ..., "steps": ...}

The training shards become one long string of bytes, every document opened by BOS, cut into `rows` lanes. A step reads
the next `sequence_len` bytes of every lane and goes on from the state that the step before left (truncated
backpropagation through time, Williams & Peng 1990): what limits its memory is the state, not the length of a batch.
"""

import math
from collections.abc import Callable
from hashlib import sha256
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from nanochat.data import TextShards, list_shards
from nanochat.model.char_rnn import BOS, CharRNN
from nanochat.runtime import Run, UserError, atomic_write, core_seconds, pick_device, say
from nanochat.train.config import CharRNNConfig, MachineConfig
from nanochat.train.schedule import lr_scale
from nanochat.train.signals import Stop
from nanochat.train.stage import stage_folder

VAL_BYTES = 1 << 17  # how much of the validation shard is scored
WARMUP, FLAT, FINAL = 20, 0.4, 0.02  # the learning rate's shape, that of toy pretraining
SAVE_EVERY, LOG_EVERY = 50, 10  # steps


def fit(run: Run, config: CharRNNConfig, machine: MachineConfig | None = None, live: Callable | None = None,
        paths: list[Path] | None = None) -> dict:  # fmt: skip
    """
    Train the baseline and return its headline numbers; a finished one returns them at once, an interrupted one goes on
    from where it was saved last, to the same weights.

    live: called with every row of the metrics. paths: text shards, the last for validation (default: the run's own).
    Leaves char_rnn/{model.safetensors, metrics.jsonl, result.json}. Raises UserError where that folder holds a baseline
    of another configuration or other text, or where text is missing.
    """
    machine = machine or MachineConfig()
    *train_paths, val_path = paths or list_shards(run / "data" / "text")
    lanes = read_lanes(train_paths, config.rows, config.rows * (config.steps * config.sequence_len + 1))
    val = read_lanes([val_path], config.rows, VAL_BYTES)
    inputs = {"text": sha256(lanes.tobytes() + val.tobytes()).hexdigest()}

    def log(row: dict):
        run.log("char_rnn", row)
        if live is not None:
            live(row)

    with stage_folder(run, "char_rnn", config, inputs) as stage:
        if stage.result is not None:
            return stage.result
        if machine.threads:
            torch.set_num_threads(machine.threads)
        model = new_model(config).init_weights(run.seed).to(pick_device(machine.device))
        saved = stage.folder / "step_saved.safetensors"
        core_s = train(model, config, lanes, saved, log)
        val_bpb = bits_per_byte(model, val, config.sequence_len)
        log({"kind": "val", "step": config.steps, "val_bpb": val_bpb, "core_s": core_s})
        atomic_write(stage.folder / "model.safetensors", save(dict(model.cpu().named_parameters())))
        result = {"val_bpb": val_bpb, "params": model.num_params(), "core_s": core_s, "steps": config.steps}
        run.record("char_rnn", result)
        stage.finish(result)
        saved.unlink(missing_ok=True)
        say(f"char_rnn: val_bpb {val_bpb:.4f} with {model.num_params():,} parameters after {core_s:.0f} core seconds")
        return result


def load(run: Run, config: CharRNNConfig) -> CharRNN:
    """The trained baseline of a run, on the CPU."""
    path = run / "char_rnn" / "model.safetensors"
    if not path.exists():
        raise UserError(f"no trained baseline at {path}; train it first: it is the stage of lesson 03")
    model = new_model(config)
    model.load_state_dict(load_file(path), strict=False)  # a tied head has no entry of its own
    return model


def new_model(config: CharRNNConfig) -> CharRNN:
    return CharRNN(n_embd=config.n_embd, n_layer=config.n_layer, kind=config.kind, n_hidden=config.n_hidden)


def read_lanes(paths: list[Path], rows: int, most: int) -> np.ndarray:
    """The bytes of the first documents, BOS before each, as (rows, length) uint16: at most `most` ids, in order."""
    shards, ids, size = TextShards(paths), [], 0
    for text in chain.from_iterable(shards.read(group) for group in range(len(shards))):
        ids += [np.array([BOS], dtype=np.uint16), np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint16)]
        size += 1 + len(ids[-1])
        if size >= most:
            break
    length = min(size, most) // rows
    if length < 2:
        raise UserError(f"{paths[0]}: {size} bytes of text are too few for {rows} rows; make more text or fewer rows")
    return np.concatenate(ids)[: rows * length].reshape(rows, length)


def window(lanes: np.ndarray, step: int, length: int, device) -> tuple[Tensor, Tensor]:
    """Inputs and targets (rows, length) of a step: the lanes' next bytes, from the start again after their end."""
    at = np.arange(step * length, (step + 1) * length + 1) % lanes.shape[1]
    ids = torch.from_numpy(lanes[:, at].astype(np.int64)).to(device)
    return ids[:, :-1], ids[:, 1:]


def train(model: CharRNN, config: CharRNNConfig, lanes: np.ndarray, saved: Path, log: Callable) -> float:
    """Train `model` in place on `lanes`, from the resume point `saved` if it is there. Returns the core seconds."""
    params = list(model.parameters())
    optimizer = torch.optim.AdamW(params, lr=config.lr, weight_decay=0.0, fused=True)
    start, core_s, memory = 0, 0.0, None
    if saved.exists():
        start, core_s, memory = _restore(saved, params, optimizer)
        say(f"char_rnn: resuming at step {start} of {config.steps}")
    else:
        say(f"char_rnn: {config.steps} steps of {config.rows} x {config.sequence_len} bytes, "
            f"{model.num_params():,} parameters")  # fmt: skip
    began = core_seconds() - core_s
    with Stop() as stop:
        for step in range(start, config.steps):
            inputs, targets = window(lanes, step, config.sequence_len, params[0].device)
            logits, memory = model(inputs, memory)
            memory = tuple(m.detach() for m in memory)  # the past is remembered, not learned from again
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(params, config.clip)
            if not math.isfinite(loss.item() + norm.item()):
                raise UserError(f"char_rnn: loss {loss.item()}, gradient norm {norm.item()} at step {step + 1}; "
                                "the save before it is kept; lower lr or clip")  # fmt: skip
            scale = lr_scale(step, config.steps, min(WARMUP, config.steps // 10), FLAT, FINAL)
            for group in optimizer.param_groups:
                group["lr"] = config.lr * scale
            optimizer.step()
            done, core_s = step + 1, core_seconds() - began
            if done % LOG_EVERY == 0 or done == config.steps:
                log({"step": done, "loss": loss.item(), "core_s": core_s})
            if done % SAVE_EVERY == 0 or done == config.steps or stop.asked:
                _save(saved, params, optimizer, done, core_s, memory)
            if stop.asked:
                stop.leave(f"char_rnn: saved step {done} of {config.steps}, from which the same call goes on")
    return core_s


@torch.no_grad()
def bits_per_byte(model: CharRNN, lanes: np.ndarray, length: int) -> float:
    """Bits the model needs per byte of text, each lane read from an empty memory; BOS is read but not counted."""
    nats, counted, memory = 0.0, 0, None
    for step in range((lanes.shape[1] - 1) // length or 1):
        inputs, targets = window(lanes, step, min(length, lanes.shape[1] - 1), next(model.parameters()).device)
        logits, memory = model(inputs, memory)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=BOS, reduction="sum")
        nats, counted = nats + loss.item(), counted + int((targets != BOS).sum())
    return nats / counted / math.log(2)


def _save(path: Path, params: list[Tensor], optimizer, step: int, core_s: float, memory: tuple) -> None:
    """One file, hence whole or absent: weights, Adam's moments, and the state that the next step goes on from."""
    tensors = {f"memory/{i}": m for i, m in enumerate(memory)}
    for i, p in enumerate(params):
        tensors |= {f"weight/{i}": p.detach(), f"exp_avg/{i}": optimizer.state[p]["exp_avg"],
                    f"exp_avg_sq/{i}": optimizer.state[p]["exp_avg_sq"]}  # fmt: skip
    tensors = {name: t.contiguous() for name, t in tensors.items()}
    atomic_write(path, save(tensors, metadata={"step": str(step), "core_s": str(core_s)}))


def _restore(path: Path, params: list[Tensor], optimizer) -> tuple[int, float, tuple]:
    """Put weights and moments back; returns (steps done, core seconds so far, the state of the lanes)."""
    with safe_open(path, "pt") as f:
        tensors, meta = {name: f.get_tensor(name) for name in f.keys()}, f.metadata()  # noqa: SIM118
    step = int(meta["step"])
    for i, p in enumerate(params):
        p.data.copy_(tensors[f"weight/{i}"])
        moments = {key: tensors[f"{key}/{i}"].to(p.device) for key in ("exp_avg", "exp_avg_sq")}
        optimizer.state[p] = {"step": torch.tensor(float(step), device=p.device), **moments}
    memory = tuple(tensors[f"memory/{i}"].to(params[0].device) for i in range(2) if f"memory/{i}" in tensors)
    return step, float(meta["core_s"]), memory
