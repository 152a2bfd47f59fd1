"""Parquet shards: what is written is read, and what is broken is named."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.data import TextShards, list_shards, write_shard
from nanochat.runtime import UserError

TEXTS = [f"document {i}: " + "naïve 文字 " * (i % 7) for i in range(50)]


def test_row_groups_are_numbered_through_all_files(tmp_path):
    for i in range(2):
        write_shard(tmp_path / f"shard_{i}.parquet", TEXTS[25 * i:25 * i + 25], row_group=10)
    shards = TextShards(list_shards(tmp_path))
    assert [len(shards.read(g)) for g in range(len(shards))] == [10, 10, 5, 10, 10, 5]
    assert [text for g in range(len(shards)) for text in shards.read(g)] == TEXTS
    assert shards.documents == 50


def test_the_last_shard_in_sorted_order_is_for_validation(tmp_path):
    for name in ("shard_00010", "shard_00002", "shard_06542"):
        write_shard(tmp_path / f"{name}.parquet", ["text"])
    assert [path.stem for path in list_shards(tmp_path)] == ["shard_00002", "shard_00010", "shard_06542"]


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def texts():
        yield "first"
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        write_shard(tmp_path / "shard.parquet", texts(), row_group=1)
    assert list(tmp_path.iterdir()) == []


def flipped(path):
    """Flip one bit in the middle of the second row group."""
    column = pq.read_metadata(path).row_group(1).column(0)
    at = column.data_page_offset + column.total_compressed_size // 2
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize(("damage", "message"), [
    (lambda path: path.unlink(), r"shard \S+bad.parquet is missing"),
    (lambda path: path.write_bytes(path.read_bytes()[:-100]), r"shard \S+bad.parquet: not a whole parquet file"),
    (lambda path: path.write_bytes(b""), r"shard \S+bad.parquet: not a whole parquet file"),
    (lambda path: pq.write_table(pa.table({"words": ["a"]}), path), r"bad.parquet has no string column `text`"),
    (lambda path: pq.write_table(pa.table({"text": [1, 2]}), path), r"no string column `text` \(it has text: int64\)"),
    (flipped, r"shard \S+bad.parquet, row group 1: damaged"),
    (lambda path: pq.write_table(pa.table({"text": ["a", "b", None]}), path, row_group_size=2),
     r"shard \S+bad.parquet, row group 1: an empty cell"),
    (lambda path: pq.write_table(pa.table({"text": pa.array([], "string")}), path), r"no documents in .*bad.parquet"),
])
def test_a_bad_shard_is_one_line_that_names_it(tmp_path, damage, message):
    path = tmp_path / "bad.parquet"
    write_shard(path, TEXTS, row_group=10)
    damage(path)
    with pytest.raises(UserError, match=message) as error:
        shards = TextShards([path])
        for group in range(len(shards)):
            shards.read(group)
    assert "\n" not in str(error.value)


def test_a_folder_without_two_shards_is_refused(tmp_path):
    with pytest.raises(UserError, match="no folder of text shards"):
        list_shards(tmp_path / "nowhere")
    write_shard(tmp_path / "shard_0.parquet", ["text"])
    with pytest.raises(UserError, match="holds 1 parquet shard"):
        list_shards(tmp_path)
