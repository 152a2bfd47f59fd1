"""Loaders: the same global batch for any number of ranks, resumption to the bit, each document once."""

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.data import Mixture, chat_loader, list_shards, pretrain_loader, write_shard
from nanochat.runtime import UserError

ROWS, T, STREAMS = 8, 48, 4
GREETING = {"messages": [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Good day to you."}]}


def question(a, b):
    call = [{"type": "python", "text": f"{a}*{b}"}, {"type": "python_output", "text": str(a * b)},
            {"type": "text", "text": f"{a * b}."}]
    return {"messages": [{"role": "user", "content": f"What is {a}*{b}?"}, {"role": "assistant", "content": call}]}


TASKS = [([question(a, b) for a in range(5) for b in range(6)], 0.6), ([GREETING], 0.1),
         ([{"text": f"Some plain text, number {i}." * (i % 3 + 1)} for i in range(20)], 0.3)]


@pytest.fixture(scope="module", params=["text", "chat"])
def make(request, world_folder, tokenizer):
    """make(rank=…, world=…) → a loader of one kind over fixed data."""
    settings = {"rows": ROWS, "sequence_len": T, "streams": STREAMS, "buffer": 40}
    if request.param == "chat":
        return lambda **ranks: chat_loader(Mixture(TASKS, 5), tokenizer, **settings, **ranks)
    paths = list_shards(world_folder / "text")[:-1]
    return lambda **ranks: pretrain_loader(paths, tokenizer, seed=5, **settings, **ranks)


def ranks(make, world):
    return [make(rank=rank, world=world) for rank in range(world)]


def global_batches(loaders, n):
    """n global batches: every rank's rows, one below the other."""
    return [tuple(np.concatenate(arrays) for arrays in zip(*(loader.next() for loader in loaders))) for _ in range(n)]


def equal(ours, theirs):
    return all(np.array_equal(a, b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("world", [2, 4])
def test_the_global_batch_does_not_depend_on_the_number_of_ranks(make, world):
    one, many = global_batches(ranks(make, 1), 12), global_batches(ranks(make, world), 12)
    assert one[0][0].shape == one[0][1].shape == (ROWS, T) and one[0][0].dtype == np.int64
    assert equal(one, many)
    assert not equal(one[:1], one[1:2])


worlds = st.sampled_from([1, 2, 4])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_resuming_anywhere_on_any_number_of_ranks_is_bit_identical(make, data):
    stop, before, after = data.draw(st.tuples(st.integers(0, 30), worlds, worlds))
    first = ranks(make, before)
    global_batches(first, stop)
    states = json.loads(json.dumps([loader.state() for loader in first]))
    second = ranks(make, after)
    for loader in second:
        loader.load(states)
    assert equal(global_batches(first, 6), global_batches(second, 6))


@pytest.fixture
def numbered(tmp_path):
    """40 documents in 8 row groups."""
    write_shard(tmp_path / "numbered.parquet", [f"{i} " + "some words " * (i % 5) for i in range(40)], row_group=5)
    return [tmp_path / "numbered.parquet"]


@pytest.fixture
def damaged(tmp_path):
    """40 documents in 8 row groups; group 3 has an empty cell."""
    texts = [None if i == 17 else f"{i} " + "some words " * (i % 5) for i in range(40)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "damaged.parquet", row_group_size=5)
    return [tmp_path / "damaged.parquet"]


def test_a_bad_row_group_is_skipped_alike_on_any_number_of_ranks_and_after_resuming(damaged, tokenizer):
    def make(**ranks):
        return pretrain_loader(damaged, tokenizer, rows=4, sequence_len=30, streams=4, buffer=8, **ranks)

    one, four = ranks(make, 1), ranks(make, 4)
    first = global_batches(one, 10)
    assert equal(first, global_batches(four, 10))
    states = json.loads(json.dumps([loader.state() for loader in four]))
    assert [state["skipped"] for state in states].count({"3": "an empty cell"}) >= 1
    two = ranks(make, 2)
    for loader in two:
        loader.load(states)
        assert loader.shards.bad == {3: "an empty cell"}
    assert equal(global_batches(one, 10), global_batches(two, 10))


def test_bad_row_groups_that_ranks_met_apart_are_counted_together(damaged, tokenizer):
    loader = pretrain_loader(damaged, tokenizer, rows=4, sequence_len=30)
    states = [{**loader.state(), "skipped": {"3": "an empty cell"}}, {**loader.state(), "skipped": {"5": "damaged"}}]
    with pytest.raises(UserError, match="2 of 8 row groups of text are bad .*the last: damaged"):
        loader.load(states)


@pytest.mark.parametrize("streams", [1, 2, 4, 16])
def test_a_finite_loader_reads_each_document_once(numbered, tokenizer, streams):
    loader = pretrain_loader(numbered, tokenizer, rows=16, sequence_len=100, streams=streams, loop=False, buffer=8)
    keys = [document.key for stream in loader.streams.values() for row in stream.rows(40) for document, _ in row]
    assert sorted(keys) == [[group, index] for group in range(8) for index in range(5)]
    with pytest.raises(StopIteration):
        loader.next()


def test_only_padding_is_no_target_in_text(numbered, tokenizer):
    batches = list(pretrain_loader(numbered, tokenizer, rows=4, sequence_len=100, streams=4, loop=False))
    padded = 0
    for ids, wanted in ((ids, wanted) for batch in batches for ids, wanted in zip(*batch)):
        end = len(ids)
        while end and ids[end - 1] == tokenizer.bos:
            end -= 1
        assert (wanted[:max(0, end - 1)] == ids[1:max(1, end)]).all()
        if end < len(ids) - 1:
            padded += 1
            assert (wanted[max(0, end - 1):] == -1).all()
    assert padded


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_an_endless_loader_shuffles_row_groups_every_epoch_and_deals_them_to_its_streams(numbered, tokenizer, streams):
    def order(seed):
        loader = pretrain_loader(numbered, tokenizer, rows=streams, sequence_len=8, streams=streams, seed=seed)
        turns = [[stream.source.draw().key[0] for stream in loader.streams.values()] for _ in range(80 // streams)]
        return [group for turn in turns[::5] for group in turn]

    groups = order(seed=0)
    assert sorted(groups[:8]) == sorted(groups[8:]) == list(range(8))
    assert groups[:8] != groups[8:] and groups != order(seed=1)


def test_packed_conversations_keep_their_masks(tokenizer):
    loader = chat_loader(Mixture(TASKS, 1), tokenizer, rows=ROWS, sequence_len=T)
    rendered = {}
    for items, _ in TASKS:
        for item in items:
            ids, mask = tokenizer.render(item, T + 1)
            rendered[tuple(ids)] = mask
    for _ in range(10):
        for ids, wanted in zip(*loader.next()):
            starts = [i for i, token in enumerate(ids) if token == tokenizer.bos] + [T]
            for start, end in pairwise(starts):
                piece = tuple(ids[start:end].tolist())
                if piece == (tokenizer.bos,):  # padding
                    assert wanted[start - 1] == -1 and wanted[start] == -1
                elif end < T:                  # the last item of a row has its last token as a target only
                    mask = rendered[piece]
                    assert wanted[start:end - 1].tolist() == [i if m else -1 for i, m in zip(piece[1:], mask[1:])]
                    assert wanted[end - 1] == -1


def test_a_long_conversation_is_cut_to_the_row(tokenizer):
    item = {"messages": [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "1 2 3 " * 100}]}
    inputs, targets = chat_loader(Mixture([([item], 1.0)]), tokenizer, rows=1, sequence_len=T, streams=1).next()
    ids, mask = tokenizer.render(item, T + 1)
    assert inputs[0].tolist() == ids[:-1]
    assert targets[0].tolist() == [i if m else -1 for i, m in zip(ids[1:], mask[1:])]


def test_a_state_of_other_data_or_settings_is_refused(world_folder, numbered, tokenizer):
    paths = list_shards(world_folder / "text")[:-1]

    def loader(paths=paths, **changes):
        return pretrain_loader(paths, tokenizer, **{"rows": 8, "sequence_len": 32, **changes})

    state = loader().state()
    for other in (loader(rows=16), loader(sequence_len=16), loader(seed=1), loader(streams=8), loader(paths=numbered)):
        with pytest.raises(UserError, match="cannot resume: the checkpoint's data had"):
            other.load([state])
    with pytest.raises(UserError, match=r"lacks the data streams \[2, 3\]"):
        loader().load([loader(rank=0, world=2).state()])


def test_rows_and_ranks_must_divide(numbered, tokenizer):
    with pytest.raises(UserError, match="6 rows does not divide into 4"):
        pretrain_loader(numbered, tokenizer, rows=6, sequence_len=8)
    with pytest.raises(UserError, match="4 data streams do not divide over 3"):
        pretrain_loader(numbered, tokenizer, rows=8, sequence_len=8, world=3)
