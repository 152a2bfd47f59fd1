"""The text of a run stays what it was when the run began."""

import os
import shutil

import pytest

from nanochat.data.source import pin, text_shards
from nanochat.runtime import UserError, read_json


@pytest.fixture
def data(world_folder, tmp_path):
    """A run's data folder, used once."""
    folder = tmp_path / "run" / "data"
    shutil.copytree(world_folder, folder)
    return folder


def shards(folder):
    return text_shards("toy", folder, world="smoke")


def test_a_run_records_its_shards_and_a_moved_run_goes_on(data):
    paths = shards(data)
    record = read_json(data / "shards.json")
    assert list(record) == [path.name for path in paths] and len(paths) == 3
    for path in paths:
        os.utime(path, ns=(5, 5))                  # as after a copy to another machine
    assert shards(data) == paths
    assert {name: stamp["sha256"] for name, stamp in read_json(data / "shards.json").items()} == {
        name: stamp["sha256"] for name, stamp in record.items()}


def test_a_shard_that_was_replaced_is_noticed_at_the_next_start_or_by_a_full_check(data):
    first, second, _ = shards(data)
    content = first.read_bytes()
    first.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    with pytest.raises(UserError, match=r"shard_00000.parquet is not the file that this run has read .*; restore it"):
        shards(data)
    time = read_json(data / "shards.json")[first.name]["mtime_ns"]
    os.utime(first, ns=(time, time))               # size and time as they were
    shards(data)
    with pytest.raises(UserError, match="shard_00000.parquet is not the file"):
        pin(data / "shards.json", [first, second], full=True)
    first.write_bytes(content)
    pin(data / "shards.json", [first, second], full=True)
