"""Text and tokenizer of a scale, and what `nanochat data` does with everything it reads."""

import json
import os
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import flaky

from nanochat.course import load
from nanochat.course.prepare import (
    contamination,
    fetch,
    fetching,
    first_characters,
    first_text,
    missing,
    text,
    train_tokenizer,
    verify,
)
from nanochat.course.report import contamination_table
from nanochat.data import write_shard
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


def test_shards_come_in_the_background_the_first_ones_first_and_go_on_after_a_stop(tmp_path, monkeypatch):
    """The hub is a server here; the third shard's first transfer hangs half way, until the run is stopped."""
    scale = load().scale("laptop")
    names = [*(f"shard_{i:05d}.parquet" for i in range(4)), scale.pretrain.data.val_shard]
    where = f"/datasets/{scale.pretrain.data.source}/resolve/main/"
    bodies = {}
    for name in names:
        write_shard(tmp_path / name, [f"{name} {i} {os.urandom(30).hex()}" for i in range(4000)])
        bodies[where + name] = (tmp_path / name).read_bytes()
    monkeypatch.delenv("NANOCHAT_HUB", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    run = open_run(tmp_path / "run", scale="laptop", create=True)
    cache = tmp_path / "cache" / "nanochat" / "hub" / scale.pretrain.data.source
    with flaky.serve(bodies) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.script[where + names[2]] = [flaky.stall(at=100_000, seconds=60)]
        with fetching(scale, run):
            assert [path.name for path in first_text(scale, run)] == [names[0], names[-1]]
            deadline = time.monotonic() + 120
            while len(missing(scale)) > 1 or not any(p.stat().st_size > 80_000 for p in cache.glob(f".{names[2]}.part-*")):
                assert time.monotonic() < deadline, (run / "data" / "fetch.log").read_text()
                time.sleep(0.05)
            before = time.monotonic()
        assert time.monotonic() - before < 30, "the process does not wait for a hanging server"
        assert missing(scale) == [names[2]]
        with fetching(scale, run):
            assert [path.name for path in text(scale, run)] == names
        assert server.sent[where + names[2]] < len(bodies[where + names[2]]) + 20_000, "what was here did not come again"
    assert not missing(scale)
