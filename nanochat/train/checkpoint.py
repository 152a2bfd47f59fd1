"""Checkpoints that are whole or not there, and the model that a stage left behind.

    <stage>/latest                            the newest one's name, replaced by rename
            step_000300/model.safetensors     the weights, fp32
                        optim_rank0.safetensors   this rank's shard of the optimizer state (one file a rank)
                        rank0.json            this rank's data cursor and random state
                        state.json            step, model shape, losses, clock
                        manifest.json         written last: size and SHA-256 of every file, what it belongs to

Everything is written to `.tmp-step_000300` and renamed when the manifest is on disk: a directory without a valid manifest
does not exist. Nothing is pickled. `nanochat.train.saver` writes them while the training goes on.
"""

import base64
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from nanochat.model import GPT, GPTConfig
from nanochat.runtime import Run, UserError, World, atomic_write, read_json, say, sha256_file, write_json
from nanochat.runtime.files import fsync_folder
from nanochat.tokenizer import Tokenizer

SCHEMA = 1
STAGES = ("base", "mid", "sft", "rl")     # in the order in which each starts from the one before


# --- writing ----------------------------------------------------------------------------------------------------------


def snapshot(step: int, world: World, *, model: GPT, optim: dict[str, torch.Tensor], data: dict,
             state: dict) -> dict[str, dict]:
    """The files that this rank writes, {name: tensors or JSON value}, copied to host memory: the training may go on.

    `optim` and `data` are this rank's own; `model` and `state` are written by rank 0.
    """
    files = {f"optim_rank{world.rank}.safetensors": _on_host(optim),
             f"rank{world.rank}.json": {**data, "rng": random_state()}}
    if world.main:
        files["model.safetensors"] = _on_host(model.state_dict())
        files["state.json"] = {**state, "step": step, "model": asdict(model.config)}
    return files


def write(folder: Path, files: dict[str, dict]) -> dict[str, list]:
    """Write and fsync a snapshot; -> {name: [bytes, SHA-256]}. Raises OSError or SafetensorError (a full disk)."""
    for name, content in files.items():
        if name.endswith(".json"):
            write_json(folder / name, content)
        else:
            save_file(content, folder / name)
            with open(folder / name, "rb+") as f:
                os.fsync(f.fileno())
    return {name: [(folder / name).stat().st_size, sha256_file(folder / name)] for name in files}


def commit(temporary: Path, final: Path, manifest: dict, keep: int) -> None:
    """Make what all ranks wrote to `temporary` a checkpoint: manifest, rename, pointer. Only the newest `keep` stay."""
    write_json(temporary / "manifest.json", {"schema": SCHEMA, **manifest})
    discard(final)                                 # a damaged one of this step
    temporary.rename(final)
    fsync_folder(final.parent)
    atomic_write(final.parent / "latest", final.name + "\n")
    for old in _steps(final.parent)[:-keep]:
        discard(old)


def discard(path: Path) -> None:
    """Remove a checkpoint, its manifest first: half removed it must not look whole."""
    (path / "manifest.json").unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def random_state() -> dict[str, str]:
    """The state of torch's generators. Nothing in the course's own stages draws from them: what is random there follows
    from the seed and the step. A function of the learner's may."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return {device: base64.b64encode(state.numpy().tobytes()).decode() for device, state in states.items()}


def restore_random_state(saved: dict[str, str]) -> None:
    """Put the generators back; one of a device that is not here stays as it is."""
    for device, text in saved.items():
        state = torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
        if device == "cpu":
            torch.set_rng_state(state)
        elif torch.cuda.is_available():
            torch.cuda.set_rng_state(state)


# --- reading ----------------------------------------------------------------------------------------------------------


def latest(folder: Path, **belongs: str) -> Path | None:
    """The checkpoint to go on from, or None in a stage that has none: the one `latest` names, else the newest usable.

    Usable is one whose files are all there with the sizes and digests of its manifest and that was made for what
    `belongs` says (config=…, tokenizer=…: digests). What is passed over is named with its reason. Raises UserError where
    there are checkpoints and none is usable: a stage must not start again from nothing unnoticed.
    """
    paths, pointer = _steps(folder)[::-1], folder / "latest"
    named = pointer.read_text().strip() if pointer.exists() else ""
    problem = ""
    for path in sorted(paths, key=lambda path: path.name != named):         # a stable sort: else from new to old
        problem = _problem(path, belongs)
        if not problem:
            return path
        say(f"checkpoint {path} is passed over: {problem}")
    if paths:
        raise UserError(f"no checkpoint in {folder} can be used ({path.name}: {problem}); restore one, or delete the "
                        "folder and run the stage again")
    return None


def load(path: Path) -> tuple[dict, dict, list[dict], dict]:
    """(model tensors, optimizer tensors of all ranks merged, data states of all ranks, state) of a checkpoint.

    state["rng"] holds the random states, one a rank.
    """
    world_size = read_json(path / "manifest.json")["world_size"]
    optim: dict[str, torch.Tensor] = {}
    for rank in range(world_size):
        optim.update(_load_tensors(path / f"optim_rank{rank}.safetensors"))
    data = [read_json(path / f"rank{rank}.json") for rank in range(world_size)]
    state = {**read_json(path / "state.json"), "rng": [one.pop("rng", {}) for one in data]}
    return _load_tensors(path / "model.safetensors"), optim, data, state


def load_model(run: Run, stage: str | None = None) -> tuple[GPT, Tokenizer, dict]:
    """The model a stage left, its tokenizer and the checkpoint's state; without a stage the newest one: rl, sft, mid, base.

    Raises UserError when there is none, when it is damaged, or when it belongs to another tokenizer.
    """
    if stage is not None and stage not in STAGES:
        raise UserError(f"unknown stage {stage!r}; choose one of {', '.join(STAGES)}")
    tokenizer = Tokenizer.from_dir(run / "tokenizer")
    for name in [stage] if stage else reversed(STAGES):
        path = latest(run / name, tokenizer=tokenizer.digest)
        if path is not None:
            break
    else:
        wanted = f"stage {stage}" if stage else "any stage"
        raise UserError(f"no finished checkpoint of {wanted} in {run.path}; run the course first: nanochat run --scale {run.scale}")
    state = read_json(path / "state.json")
    model = GPT(GPTConfig(**state["model"]))
    model.load_state_dict(_load_tensors(path / "model.safetensors"))
    return model, tokenizer, {**state, "stage": path.parent.name, "digest": read_json(path / "manifest.json")["files"]["model.safetensors"][1]}


def _steps(folder: Path) -> list[Path]:
    """The checkpoints of a stage, from old to new."""
    return sorted(path for path in folder.glob("step_*") if (path / "manifest.json").exists())


def _problem(path: Path, belongs: dict[str, str]) -> str:
    """Why a checkpoint cannot be used; empty when it can."""
    try:
        manifest = read_json(path / "manifest.json")
    except UserError as error:
        return str(error)
    if manifest.get("schema") != SCHEMA:
        return f"manifest.json has schema {manifest.get('schema')}, this version reads {SCHEMA}"
    files = manifest["files"]
    needed = ["model.safetensors", "state.json"]
    for rank in range(manifest["world_size"]):
        needed += [f"optim_rank{rank}.safetensors", f"rank{rank}.json"]
    for name in dict.fromkeys([*needed, *files]):
        file = path / name
        if name not in files or not file.exists():
            return f"{name} is missing"
        size, digest = files[name]
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes, its manifest says {size}"
        if sha256_file(file) != digest:
            return f"{name} does not have the SHA-256 of its manifest"
    for what, mine in belongs.items():
        if manifest.get(what, mine) != mine:
            return f"it was made with another {what} ({manifest[what]}, here {mine})"
    return ""


def _on_host(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies in host memory, even of what is there already."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _load_tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as f:
        return {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (safe_open is no dict)
