"""A stage's folder: finished, interrupted, new, or another configuration's.

    with stage_folder(run, "base", config, inputs) as stage:
        if stage.result is None:
            ...train, resuming from the newest checkpoint...
            stage.finish({"val_bpb": …})
        return stage.result
"""

import hashlib
import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from nanochat.runtime import Run, UserError, World, read_json, write_json
from nanochat.runtime.lock import locked


@dataclass
class Stage:
    folder: Path
    result: dict | None
    digest: str                                # of the configuration and of what the stage starts from

    def finish(self, result: dict) -> None:
        """Declare the stage complete: written last, so its presence proves the rest."""
        self.result = result
        write_json(self.folder / "result.json", result)


@contextmanager
def stage_folder(run: Run, name: str, config: BaseModel, inputs: dict[str, str], world: World | None = None):
    """The folder of stage `name`, held by one process (rank 0 of a world) at a time.

    `inputs` are digests of what the stage starts from (tokenizer, parent model). Raises UserError when another process is
    at work here, or when the folder holds a stage of another configuration; the message lists what differs.
    """
    folder = run / name
    wanted = {"config": config.model_dump(mode="json"), "inputs": inputs}
    stated = {**wanted, "config": config.model_dump(mode="json", exclude_defaults=True)}      # outlives a new setting
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:16]
    if world is not None and not world.main:
        world.barrier()                        # rank 0 has looked at the folder
        yield Stage(folder, _result(folder), digest)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        path = folder / "config.json"
        started = (folder / "result.json").exists() or any(folder.glob("step_*"))
        if started and path.exists() and (differences := _differences(_with_defaults(read_json(path), config), wanted)):
            raise UserError(f"{folder} holds a run with another configuration ({'; '.join(differences)}); "
                            f"choose another --run or delete {folder}")
        for leftover in folder.glob(".tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if not started:
            (folder / "metrics.jsonl").unlink(missing_ok=True)
            write_json(path, wanted)
        if world is not None:
            world.barrier()
        yield Stage(folder, _result(folder), digest)


def _result(folder: Path) -> dict | None:
    return read_json(folder / "result.json") if (folder / "result.json").exists() else None


def _with_defaults(old: dict, config: BaseModel) -> dict:
    """What an older version wrote: a setting that did not exist yet had what is its default now."""
    try:
        return {**old, "config": type(config).model_validate(old["config"]).model_dump(mode="json")}
    except (KeyError, ValidationError):
        return old


def _differences(old, new, where: str = "") -> list[str]:
    """Readable differences of two JSON values: ["schedule.steps 550 → 600", …]."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted(old.keys() | new.keys()):
            lines += _differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
        return lines
    return [] if old == new else [f"{where.removeprefix('config.')} {old} → {new}"]
