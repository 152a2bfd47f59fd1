"""The pretraining text of a run, wherever it comes from: training shards first, the validation shard last."""

from pathlib import Path

from nanochat.data.shards import list_shards
from nanochat.data.toyfiles import write_world


def text_shards(source: str, folder: Path, *, world: str = "toy", seed: int = 0, shards: int = 1,
                val_shard: str = "") -> list[Path]:
    """The parquet shards of `source`, made or fetched if they are not there yet.

    source "toy": the toy world of this seed, written to `folder`. Otherwise a hub repository: its first `shards` files
    shard_00000.parquet, … and the pinned `val_shard`. Raises UserError when they cannot be had.
    """
    if source == "toy":
        return list_shards(write_world(folder, seed=seed, scale=world) / "text")
    from nanochat.data import hub

    names = [f"shard_{i:05d}.parquet" for i in range(shards)]
    return [hub.file(source, name) for name in names + [val_shard]]
