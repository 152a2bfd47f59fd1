"""Parquet shards: what is written is read, and what is broken is named."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.data import TextShards, list_shards, write_shard
from nanochat.data.shards import agree
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
    (lambda path: pq.write_table(pa.table({"text": pa.array([], "string")}), path), r"no documents in .*bad.parquet"),
    (lambda path: pq.write_table(pa.table({"text": pa.array([None], "string")}), path), r"1 of 1 row groups of text are bad .row group 0 of bad.parquet; "),
])
def test_a_bad_shard_is_one_line_that_names_it(tmp_path, damage, message):
    path = tmp_path / "bad.parquet"
    write_shard(path, TEXTS, row_group=10)
    damage(path)
    with pytest.raises(UserError, match=message) as error:
        everything(TextShards([path]))
    assert "\n" not in str(error.value)


def everything(shards):
    return [text for group in range(len(shards)) for text in shards.read(group)]


def with_second_group(documents):
    """Write 5 row groups of 10, the second one of these documents."""
    schema = pa.schema([("text", pa.string())])

    def write(path):
        with pq.ParquetWriter(path, schema) as writer:
            for g in range(5):
                texts = pa.array(documents if g == 1 else TEXTS[10 * g:10 * g + 10], type=pa.string())
                writer.write_table(pa.Table.from_arrays([texts], schema=schema))
    return write


def not_utf8(path):
    texts = pa.array([b"\xff\xfe"] * 10, pa.binary())
    with_second_group(pa.Array.from_buffers(pa.string(), 10, texts.buffers()))(path)


BAD_GROUPS = {
    "damaged": flipped,
    "an empty cell": with_second_group([*TEXTS[:9], None]),
    "damaged ('utf-8' codec can't decode": not_utf8,
    "a document of 1,000,001 bytes": with_second_group([*TEXTS[:9], "long " * 200_000 + "."]),
    "a document of 1,000,001 bytes ": with_second_group([*TEXTS[:9], " " * 1_000_001]),
}


@pytest.mark.parametrize("what", BAD_GROUPS)
def test_a_bad_row_group_is_named_once_and_skipped_and_the_rest_is_read(tmp_path, what, capsys):
    path = tmp_path / "bad.parquet"
    write_shard(path, TEXTS, row_group=10)
    BAD_GROUPS[what](path)
    shards = TextShards([path])
    assert len(shards) == 5 and everything(shards) == everything(shards) == TEXTS[:10] + TEXTS[20:]
    assert list(shards.bad) == [1] and shards.bad[1].startswith(what.strip())
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and f"{path}, row group 1: {what.strip()}" in printed


def test_a_row_group_too_large_for_memory_is_not_even_read(tmp_path, monkeypatch):
    path = tmp_path / "bad.parquet"
    with_second_group([f"{i}" + "long " * 1000 for i in range(10)])(path)
    monkeypatch.setattr("nanochat.data.shards.MAX_GROUP", 20_000)
    shards = TextShards([path])
    assert everything(shards) == TEXTS[:10] + TEXTS[20:] and shards.bad[1].startswith("too large (50,")


def test_one_bad_row_group_may_be_and_a_thousandth_of_many_but_no_more(tmp_path):
    def shards(groups, bad):
        texts = [None if g < bad else "text" for g in range(groups)]
        pq.write_table(pa.table({"text": texts}), tmp_path / "many.parquet", row_group_size=1)
        return TextShards([tmp_path / "many.parquet"])

    assert len(everything(shards(3000, 3))) == 2997
    assert len(everything(shards(10, 1))) == 9
    for groups, bad in ((3000, 4), (10, 2)):
        with pytest.raises(UserError, match=f"{bad} of {groups} row groups of text are bad .row group 0 of many.parquet, .*an empty cell"):
            everything(shards(groups, bad))


def test_no_flipped_bit_of_the_data_is_read_as_text_and_none_ends_in_a_traceback(tmp_path):
    path, rng = tmp_path / "shard.parquet", random.Random(1)
    write_shard(path, TEXTS, row_group=10)
    data = path.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")    # has no checksum of its own: the file's SHA-256 guards it
    for _ in range(300):
        bit = rng.randrange(8 * len(data))
        path.write_bytes(data[:bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1:])
        try:
            shards = TextShards([path])
            texts = everything(shards)
        except UserError:
            continue
        assert bit // 8 >= footer or texts == [text for g in range(len(shards)) if g not in shards.bad for text in TEXTS[10 * g:10 * g + 10]]


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path):
    path = tmp_path / "shard.parquet"
    write_shard(path, TEXTS, row_group=10)
    shards = TextShards([path])
    shards.read(0)
    write_shard(path, TEXTS[::-1], row_group=10)
    with pytest.raises(UserError, match="shard.parquet was changed while it is being read"):
        shards.read(1)


def test_the_digest_is_that_of_the_row_groups_and_ranks_with_other_files_are_told_which(tmp_path):
    for name, texts in (("a", TEXTS), ("b", TEXTS[:20]), ("c", TEXTS[:20][::-1] + ["more"])):
        write_shard(tmp_path / name / "shard_0.parquet", TEXTS, row_group=10)
        write_shard(tmp_path / name / "shard_1.parquet", texts, row_group=10)
    a, b, c = (TextShards(sorted((tmp_path / name).iterdir())) for name in "abc")
    assert len({a.digest, b.digest, c.digest}) == 3
    assert TextShards(a.paths).digest == a.digest != TextShards(a.paths[::-1]).digest
    agree([a.listing] * 4)
    with pytest.raises(UserError, match=r"file 1 is \[shard_1.parquet: \d+ bytes, 5 row groups.* on rank 0 and \[shard_1.* on rank 2"):
        agree([a.listing, a.listing, b.listing])
    with pytest.raises(UserError, match=r"file 1 is \[shard_1.*on rank 0 and \[none\] on rank 1"):
        agree([a.listing, a.listing[:1]])


def test_a_folder_without_two_shards_is_refused(tmp_path):
    with pytest.raises(UserError, match="no folder of text shards"):
        list_shards(tmp_path / "nowhere")
    write_shard(tmp_path / "shard_0.parquet", ["text"])
    with pytest.raises(UserError, match="holds 1 parquet shard"):
        list_shards(tmp_path)
