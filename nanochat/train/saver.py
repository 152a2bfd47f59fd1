"""Saves checkpoints while the training goes on.

    with Saver(folder, world, keep=2, belongs={"config": …, "tokenizer": …}) as saver:
        for step in …:
            if all ranks have saver.written: saver.finish()   # put the one in flight in place, or report its failure
            if it is time: saver.start(step, model=…, optim=…, data=…, state=…)

`start` copies everything to host memory, which takes as long as a copy does; a thread writes the copy. At most one save
is in flight. What the ranks must do together (agree that there is room, that all have written) they do in the main
thread, at the same place of the same step: a collective in a thread could meet the training's own.
"""

import shutil
import threading
from pathlib import Path

import torch
from safetensors import SafetensorError

from nanochat.runtime import UserError, World, say
from nanochat.train import checkpoint

FAILURES = 3                          # this many in a row end the run


class Saver:
    """The checkpoints of one stage; all ranks call everything together. `last`: the step of the newest that is in place."""

    def __init__(self, folder: Path, world: World, *, keep: int = 2, belongs: dict[str, str] | None = None,
                 last: int = 0):
        self.folder, self.world, self.keep, self.belongs, self.last = folder, world, keep, belongs or {}, last
        self.failures = 0
        self._thread: threading.Thread | None = None
        self._step, self._outcome = 0, ("", {})        # of the one in flight: what went wrong, {file: [bytes, SHA-256]}
        self._error: Exception | None = None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is None or self.world.size == 1:
            self.finish()
        elif self._thread:                             # the other ranks may be gone: this checkpoint stays unfinished
            self._thread.join()

    @property
    def written(self) -> bool:
        """This rank's files of the save in flight are on disk, or could not be written."""
        return self._thread is not None and not self._thread.is_alive()

    def start(self, step: int, *, model, optim: dict, data: dict, state: dict) -> None:
        """Begin to save `step` (see `checkpoint.snapshot`). One that is in flight is finished first."""
        self.finish()
        self._step = step
        files = checkpoint.snapshot(step, self.world, model=model, optim=optim, data=data, state=state)
        size = sum(t.nbytes for content in files.values() for t in content.values() if isinstance(t, torch.Tensor))
        problem, free = "", 0
        try:
            if self.world.main:
                shutil.rmtree(self._temporary, ignore_errors=True)
                self._temporary.mkdir(parents=True)
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            problem = f"rank {self.world.rank}: {error}"
        problems, sizes, room = zip(*self.world.gather((problem, size, free)), strict=True)
        problems = [p for p in problems if p]
        if not problems and 2 * sum(sizes) > room[0]:
            problems = [f"it needs {2 * sum(sizes) / 1e6:.1f} MB of free space, the disk has {room[0] / 1e6:.1f}"]
        if problems:
            self._failed(problems[0])
        else:
            self._thread = threading.Thread(target=self._write, args=(files,), name=f"save step {step}")
            self._thread.start()

    def finish(self) -> None:
        """Wait for the save in flight, if there is one, and put it in place.

        A failure (the disk is full) costs this checkpoint and not the run: what was written is removed, one line says so.
        Raises UserError at the third in a row.
        """
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        if self._error:
            raise self._error
        problems, files = zip(*self.world.gather(self._outcome), strict=True)
        problem = next((p for p in problems if p), "")
        if self.world.main and not problem:
            manifest = {"step": self._step, "world_size": self.world.size, **self.belongs,
                        "files": {name: entry for part in files for name, entry in part.items()}}
            try:
                checkpoint.commit(self._temporary, self.folder / f"step_{self._step:06d}", manifest, self.keep)
            except OSError as error:
                problem = str(error)
        problem = self.world.gather(problem)[0]
        if problem:
            self._failed(problem)
        else:
            self.failures, self.last = 0, self._step

    def require(self, step: int) -> None:
        """Raise UserError unless the checkpoint of `step` is in place."""
        if self.last != step:
            raise UserError(f"{self.folder.name}: the final checkpoint could not be saved in {self.folder}; "
                            "free some space and run the stage again")

    def stopped(self, done: int, steps: int) -> str:
        """Finish the save in flight; -> what to say of a stage that ends before its time."""
        self.finish()
        return (f"{self.folder.name}: stopped after step {done} of {steps}; "
                f"saved is step {self.last}, from which the same call goes on")

    @property
    def _temporary(self) -> Path:
        return self.folder / f".tmp-step_{self._step:06d}"

    def _write(self, files: dict[str, dict]) -> None:
        try:
            self._outcome = "", checkpoint.write(self._temporary, files)
        except (OSError, SafetensorError) as error:    # safetensors reports a full disk in its own exception
            self._outcome = f"rank {self.world.rank}: {error}", {}
        except Exception as error:  # noqa: BLE001       not the disk but a mistake of ours: `finish` raises it
            self._error = error

    def _failed(self, problem: str) -> None:
        self.failures += 1
        if self.world.main:
            shutil.rmtree(self._temporary, ignore_errors=True)
        where = f"checkpoint {self._step} was not saved in {self.folder} ({problem}); free some space"
        if self.failures >= FAILURES:
            raise UserError(f"{where}; {FAILURES} saves in a row have failed, the last good one is step {self.last}")
        say(f"{where}; training goes on from memory and tries again at the next save")
