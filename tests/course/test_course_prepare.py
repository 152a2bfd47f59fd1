"""Text and tokenizer of a scale, and what `nanochat data` does with everything it reads."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.course import load
from nanochat.course.prepare import contamination, fetch, first_characters, text, train_tokenizer, verify
from nanochat.course.report import contamination_table
from nanochat.runtime import UserError, open_run


def test_the_first_characters_end_inside_a_document():
    assert list(first_characters(iter(["abc", "defg", "never"]), 5)) == ["abc", "de"]


def test_a_scales_tokenizer_is_trained_once_and_then_loaded(tmp_path, monkeypatch):
    scale = load().scale("smoke")
    run = open_run(tmp_path / "run", scale="smoke", seed=0, create=True)
    first = train_tokenizer(scale, run)
    assert first.vocab_size == scale.tokenizer.vocab_size
    assert text(scale, run)[-1].exists()
    before = (run / "tokenizer" / "model.json").stat().st_mtime_ns
    assert train_tokenizer(scale, run).digest == first.digest
    assert (run / "tokenizer" / "model.json").stat().st_mtime_ns == before


@pytest.fixture(scope="module", params=["smoke", "toy"])
def prepared(request, tmp_path_factory):
    """(scale, run) with everything the scale reads."""
    scale = load().scale(request.param)
    run = open_run(tmp_path_factory.mktemp("prepared") / "run", scale=scale.name, seed=0, create=True)
    fetch(scale, run)
    return scale, run


def test_no_scale_trains_on_an_exam_question_but_where_the_exam_says_so(prepared):
    table = contamination(*prepared)
    recall = {"toy-qa-seen", "toy-cloze"}             # they ask what was taught, by their names
    assert set(table) >= recall | {"toy-qa-heldout", "toy-tool", "toy-free", "toy-chat-sums", "toy-addition", "toy-problems"}
    for exam, found in table.items():
        assert found["questions"] > 0
        assert exam in recall or found == {"questions": found["questions"], "exact": 0, "overlap": 0, "sources": {}}
    assert table["toy-qa-seen"]["exact"] == table["toy-qa-seen"]["questions"]
    assert table["toy-cloze"]["overlap"] > 0.5 * table["toy-cloze"]["questions"]
    assert f"| toy-free | {table['toy-free']['questions']} | 0 (0.0%) | 0 (0.0%) | – |" in contamination_table(table)


def test_a_test_row_in_a_training_file_is_found(tmp_path):
    scale = load().scale("smoke")
    run = open_run(tmp_path / "run", scale="smoke", seed=0, create=True)
    text(scale, run)
    train, test = (pq.read_table(run / f"data/chat/tool.{split}.parquet") for split in ("train", "test"))
    pq.write_table(pa.concat_tables([train, test.slice(0, 3)]), run / "data/chat/tool.train.parquet")
    world = (run / "data/world.json").read_text()     # the change is one that the size of the file does not tell
    old, new = (f'"bytes": {n}' for n in (train_size(world), (run / "data/chat/tool.train.parquet").stat().st_size))
    (run / "data/world.json").write_text(world.replace(old, new))
    assert contamination(scale, run)["toy-tool"] == {"questions": 300, "exact": 3, "overlap": 3, "sources": {"toy-tool": [3, 3]}}


def train_size(world):
    return json.loads(world)["files"]["chat/tool.train.parquet"]["bytes"]


def test_verify_reads_everything_again(prepared, capsys):
    scale, run = prepared
    verify(scale, run)
    assert f"text: {len(text(scale, run))} shards are what they were" in capsys.readouterr().out
    shard = text(scale, run)[0]
    time, content = shard.stat().st_mtime_ns, shard.read_bytes()
    shard.write_bytes(content[:-30] + bytes([content[-30] ^ 1]) + content[-29:])
    os.utime(shard, ns=(time, time))
    with pytest.raises(UserError, match="shard_00000.parquet is not the file that this run has read"):
        verify(scale, run)
