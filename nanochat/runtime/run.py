"""The run directory: the only thing the stages share.

    runs/<name>/run.json              scale and seed of the run
    runs/<name>/<stage>/…             what a stage leaves: data, tokenizer, char_rnn, base, mid, sft, rl
    runs/<name>/<stage>/metrics.jsonl one JSON object a line, written while the stage runs
    runs/<name>/results/<stage>.json  the stage's headline numbers, read by the report
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from nanochat.runtime.console import UserError, say
from nanochat.runtime.files import read_json, write_json

SCHEMA = 1


@dataclass(frozen=True)
class Run:
    """One run directory. `run / "base"` is the folder of a stage."""

    path: Path
    scale: str
    seed: int

    @property
    def name(self) -> str:
        return self.path.name

    def __truediv__(self, part: str) -> Path:
        return self.path / part

    def log(self, stage: str, row: dict) -> None:
        """Append one line to the stage's metrics.jsonl (whole lines only: a reader may be following the file).

        A full disk costs the line, not the run.
        """
        folder = self.path / stage
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(folder / "metrics.jsonl", "a") as f:
                f.write(json.dumps(row) + "\n")
        except OSError as error:
            say(f"{folder / 'metrics.jsonl'}: a line is lost ({error.strerror})")

    def history(self, stage: str) -> list[dict]:
        """The rows of the stage's metrics.jsonl in the order of their steps; of a step logged twice (before and after a
        restart) the later row counts. A last line cut by a kill is left out."""
        path = self.path / stage / "metrics.jsonl"
        if not path.exists():
            return []
        text = path.read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()
        rows: dict = {}
        for line in lines:
            row = json.loads(line)
            key = (row.get("kind", ""), row.get("step", len(rows)))
            rows.pop(key, None)
            rows[key] = row
        return list(rows.values())

    def record(self, stage: str, metrics: dict[str, float], chance: dict[str, float] | None = None) -> None:
        """Merge headline numbers into results/<stage>.json; `chance` gives what guessing would score."""
        path = self.path / "results" / f"{stage}.json"
        old = read_json(path) if path.exists() else {"metrics": {}, "chance": {}}
        old["metrics"].update({k: float(v) for k, v in metrics.items()})
        old["chance"].update({k: float(v) for k, v in (chance or {}).items()})
        write_json(path, old)

    def results(self) -> dict[str, float]:
        """All headline numbers as one flat dict: {"base.val_bpb": 0.59, …}."""
        return self._collect("metrics")

    def chance(self) -> dict[str, float]:
        """What guessing would score, under the same keys as `results()`."""
        return self._collect("chance")

    def _collect(self, field: str) -> dict[str, float]:
        flat = {}
        for path in sorted((self.path / "results").glob("*.json")):
            flat.update({f"{path.stem}.{k}": v for k, v in read_json(path)[field].items()})
        return flat


def runs_folder() -> Path:
    """Where runs live: $NANOCHAT_RUNS, else `runs/` at the top of the checkout that holds this package."""
    return Path(os.environ.get("NANOCHAT_RUNS") or Path(__file__).resolve().parents[2] / "runs")


def run_path(name: str | Path) -> Path:
    """The folder of the run `name`: a name under runs/, or a folder."""
    return (Path(name) if os.sep in str(name) or Path(name).is_absolute() else runs_folder() / str(name)).resolve()


def open_run(name: str | Path, scale: str | None = None, seed: int | None = None, create: bool = False) -> Run:
    """Open the run `name` (a name under runs/, or a folder).

    With create=True the folder is made when it is not there; `scale` and `seed` then say what it is. Raises UserError
    when the run is missing, or was made with another scale or seed.
    """
    path = run_path(name)
    if not (path / "run.json").exists():
        if not create:
            raise UserError(f"no run at {path}; make one with `nanochat run --scale toy`, or name another with --run")
        if scale is None:
            raise UserError(f"a new run at {path} needs a scale")
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "run.json", {"schema": SCHEMA, "scale": scale, "seed": seed or 0})
    info = read_json(path / "run.json")
    for field, wanted in (("scale", scale), ("seed", seed)):
        if wanted is not None and info.get(field) != wanted:
            raise UserError(
                f"run {path} was made with {field} {info.get(field)!r}, not {wanted!r}; choose another --run or delete the folder")
    return Run(path, info["scale"], info["seed"])
