"""The pretraining text of a run, wherever it comes from: training shards first, the validation shard last."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nanochat.data import hub
from nanochat.data.download import locked, stamp_of
from nanochat.data.shards import list_shards
from nanochat.data.stamps import make_stamp, still
from nanochat.data.toyfiles import write_world
from nanochat.runtime import UserError, read_json, write_json


def text_shards(source: str, folder: Path, *, world: str = "toy", seed: int = 0, shards: int = 1,
                val_shard: str = "") -> list[Path]:
    """The parquet shards of `source`, made or fetched if they are not there yet.

    source "toy": the toy world of this seed, written to `folder`. Otherwise a hub repository: its first `shards` files
    shard_00000.parquet, … and the pinned `val_shard`. The first call records in `folder`/shards.json what they are.
    Raises UserError when they cannot be had, or are no longer what they were.
    """
    if source == "toy":
        paths = list_shards(write_world(folder, seed=seed, scale=world) / "text")
    else:
        paths = hub.files(source, [f"shard_{i:05d}.parquet" for i in range(shards)] + [val_shard])
    pin(folder / "shards.json", paths)
    return paths


def pin(record: Path, paths: list[Path], full: bool = False) -> None:
    """Record what these files are, or raise UserError for one that differs from the record.

    Size and time tell a change, and where the time differs the SHA-256; full=True compares the SHA-256 of all.
    """
    old = read_json(record) if record.exists() else {}
    if not full and all(path.name in old and still(path, old[path.name]) == old[path.name] for path in paths):
        return
    with locked(record), ThreadPoolExecutor(4) as pool:
        old = read_json(record) if record.exists() else {}
        for path, now in zip(paths, pool.map(lambda path: _stamp_now(path, old.get(path.name), full), paths)):
            if now is None:
                raise UserError(f"shard {path} is not the file that this run has read (its size or SHA-256 differs); "
                                f"restore it, or begin a new run with another --run")
            old[path.name] = now
        write_json(record, old)


def _stamp_now(path: Path, old: dict | None, full: bool) -> dict | None:
    if old:
        return still(path, old, full)
    known = read_json(stamp_of(path))["sha256"] if stamp_of(path).exists() else None  # checked as it was downloaded
    return make_stamp(path, known)
