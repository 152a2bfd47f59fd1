"""Checkpoints that are whole or not there, and the model that a stage left behind.

    <stage>/step_000300/model.safetensors     the weights, fp32
                        optim_rank0.safetensors   this rank's shard of the optimizer state (one file a rank)
                        rank0.json            this rank's data cursor
                        state.json            step, model shape, losses, clock
                        manifest.json         written last: size and SHA-256 of every file

Everything is written to `.tmp-step_000300` and renamed when the manifest is on disk: a directory without a valid manifest
does not exist. Nothing is pickled.
"""

import os
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nanochat.model import GPT, GPTConfig
from nanochat.runtime import Run, UserError, World, read_json, say, sha256_file, write_json
from nanochat.runtime.files import fsync_folder
from nanochat.tokenizer import Tokenizer

SCHEMA = 1
STAGES = ("base", "mid", "sft", "rl")     # in the order in which each starts from the one before


def save(folder: Path, step: int, world: World, *, model: GPT, optim: dict[str, torch.Tensor], data: dict, state: dict,
         keep: int = 2) -> bool:
    """Write checkpoint `step` of a stage, all ranks together; True when it is in place.

    `optim` and `data` are this rank's own; `model` and `state` are rank 0's. A full disk costs this checkpoint, not the
    run: what was written is removed, one line says so and False is returned.
    """
    final, temporary = folder / f"step_{step:06d}", folder / f".tmp-step_{step:06d}"
    if world.main:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    world.barrier()
    problem = ""
    files = {}
    try:
        names = [f"optim_rank{world.rank}.safetensors", f"rank{world.rank}.json"]
        _save_tensors(temporary / names[0], optim)
        write_json(temporary / names[1], data)
        if world.main:
            names += ["model.safetensors", "state.json"]
            _save_tensors(temporary / "model.safetensors", model.state_dict())
            write_json(temporary / "state.json", {**state, "step": step, "model": asdict(model.config)})
        files = {name: [(temporary / name).stat().st_size, sha256_file(temporary / name)] for name in names}
    except (OSError, SafetensorError) as error:       # safetensors reports a full disk in its own exception
        problem = f"rank {world.rank}: {error}"
    gathered = world.gather((problem, files))
    problems = [p for p, _ in gathered if p]
    if world.main and not problems:
        try:
            merged = {name: entry for _, part in gathered for name, entry in part.items()}
            write_json(temporary / "manifest.json", {"schema": SCHEMA, "step": step, "world_size": world.size, "files": merged})
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            fsync_folder(folder)
        except OSError as error:
            problems = [error.strerror or str(error)]
    problems = world.gather(problems)[0]
    if problems:
        if world.main:
            shutil.rmtree(temporary, ignore_errors=True)
            say(f"checkpoint {final} was not saved ({problems[0]}); free some space; training goes on from memory")
        return False
    if world.main:
        for old in _steps(folder)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    return True


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a stage whose files are all there with the sizes and digests of its manifest."""
    for path in reversed(_steps(folder)):
        problem = _damage(path)
        if not problem:
            return path
        say(f"checkpoint {path} is damaged ({problem}); using an older one")
    return None


def load(path: Path) -> tuple[dict, dict, list[dict], dict]:
    """(model tensors, optimizer tensors of all ranks merged, data states of all ranks, state) of a checkpoint."""
    world_size = read_json(path / "manifest.json")["world_size"]
    optim: dict[str, torch.Tensor] = {}
    for rank in range(world_size):
        optim.update(_load_tensors(path / f"optim_rank{rank}.safetensors"))
    data = [read_json(path / f"rank{rank}.json") for rank in range(world_size)]
    return _load_tensors(path / "model.safetensors"), optim, data, read_json(path / "state.json")


def load_model(run: Run, stage: str | None = None) -> tuple[GPT, Tokenizer, dict]:
    """The model a stage left, its tokenizer and the checkpoint's state; without a stage the newest one: rl, sft, mid, base.

    Raises UserError when there is none, when it is damaged, or when it belongs to another tokenizer.
    """
    if stage is not None and stage not in STAGES:
        raise UserError(f"unknown stage {stage!r}; choose one of {', '.join(STAGES)}")
    for name in [stage] if stage else reversed(STAGES):
        path = latest(run / name)
        if path is not None:
            break
    else:
        wanted = f"stage {stage}" if stage else "any stage"
        raise UserError(f"no finished checkpoint of {wanted} in {run.path}; run the course first: nanochat run --scale {run.scale}")
    state = read_json(path / "state.json")
    tokenizer = Tokenizer.from_dir(run / "tokenizer")
    if state["tokenizer"] != tokenizer.digest:
        raise UserError(f"{path} was trained with another tokenizer than {run / 'tokenizer'}; train the stage again")
    model = GPT(GPTConfig(**state["model"]))
    model.load_state_dict(_load_tensors(path / "model.safetensors"))
    return model, tokenizer, {**state, "stage": path.parent.name, "digest": read_json(path / "manifest.json")["files"]["model.safetensors"][1]}


def _steps(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step_*") if (path / "manifest.json").exists())


def _damage(path: Path) -> str:
    """What is wrong with a checkpoint directory; empty when nothing is."""
    try:
        manifest = read_json(path / "manifest.json")
    except UserError as error:
        return str(error)
    if manifest.get("schema") != SCHEMA:
        return f"schema {manifest.get('schema')}, this version reads {SCHEMA}"
    for name, (size, digest) in manifest["files"].items():
        file = path / name
        if not file.exists():
            return f"{name} is missing"
        if file.stat().st_size != size or sha256_file(file) != digest:
            return f"{name} does not match its manifest"
    return ""


def _save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)
    with open(path, "rb+") as f:
        os.fsync(f.fileno())


def _load_tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as f:
        return {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (safe_open is no dict)
