"""The packers against slow, obvious ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.data.packing import BestFitCrop, BestFitPad, Document, lot, write_rows

CAPACITY = 12
lengths = st.lists(st.integers(1, 20), max_size=60)
fitting = st.lists(st.integers(1, CAPACITY), max_size=60)


def documents(lengths):
    """Documents of these lengths; every token of every document is a different number."""
    starts = np.cumsum([0, *lengths])
    return [Document(i, np.arange(starts[i], starts[i + 1]) + 1, np.ones(n, int)) for i, n in enumerate(lengths)]


def rows_of(packer, docs):
    source = iter(docs)
    rows = []
    while row := packer.row(lambda: next(source, None)):
        rows.append([(document.key, take) for document, take in row])
    return rows


def slow_best_fit(lengths, buffer, crop):
    """The policy as one would say it: longest that fits, oldest first; else cut the shortest, or end the row."""
    waiting, shelf, rows = list(enumerate(lengths)), [], []
    while True:
        row, room = [], CAPACITY
        while room:
            while len(shelf) < buffer and waiting:
                shelf.append(waiting.pop(0))
            fits = [d for d in shelf if d[1] <= room]
            if fits:
                chosen = max(fits, key=lambda d: (d[1], -d[0]))
            elif crop and shelf:
                chosen = min(shelf, key=lambda d: (d[1], d[0]))
            else:
                break
            shelf.remove(chosen)
            row.append((chosen[0], min(room, chosen[1])))
            room -= row[-1][1]
        if not row:
            return rows
        rows.append(row)


@given(lengths, st.integers(1, 10))
def test_best_fit_crop_follows_its_rule(lengths, buffer):
    assert rows_of(BestFitCrop(CAPACITY, buffer), documents(lengths)) == slow_best_fit(lengths, buffer, crop=True)


@given(fitting, st.integers(1, 10))
def test_best_fit_pad_follows_its_rule(lengths, buffer):
    assert rows_of(BestFitPad(CAPACITY, buffer), documents(lengths)) == slow_best_fit(lengths, buffer, crop=False)


@given(lengths, st.integers(1, 10))
def test_best_fit_crop_fills_every_row_but_the_last_and_uses_each_document_once(lengths, buffer):
    rows = rows_of(BestFitCrop(CAPACITY, buffer), documents(lengths))
    assert all(sum(take for _, take in row) == CAPACITY for row in rows[:-1])
    assert sorted(key for row in rows for key, _ in row) == list(range(len(lengths)))


@given(fitting, st.integers(1, 10))
def test_best_fit_pad_keeps_every_token(lengths, buffer):
    rows = rows_of(BestFitPad(CAPACITY, buffer), documents(lengths))
    assert all(sum(take for _, take in row) <= CAPACITY for row in rows)
    assert sorted(piece for row in rows for piece in row) == list(enumerate(lengths))


def test_best_fit_pad_refuses_an_item_that_can_never_fit():
    with pytest.raises(ValueError, match="13 tokens does not fit a row of 12"):
        rows_of(BestFitPad(CAPACITY, 4), documents([13]))


@given(fitting.filter(bool), st.randoms(use_true_random=False))
def test_targets_are_the_next_tokens_where_the_mask_says_so(lengths, random):
    docs = [doc._replace(mask=np.array([random.randint(0, 1) for _ in doc.ids])) for doc in documents(lengths)]
    source, packer, rows = iter(docs), BestFitPad(CAPACITY, 5), []
    while row := packer.row(lambda: next(source, None)):
        rows.append(row)
    inputs, targets = write_rows(rows, CAPACITY, pad=0)
    for row, ids, wanted in zip(rows, inputs, targets):
        stream = [(int(i), int(m)) for document, _ in sorted(row, key=lot) for i, m in zip(document.ids, document.mask)]
        stream += [(0, 0)] * (CAPACITY - len(stream))
        assert ids.tolist() == [i for i, _ in stream[:-1]]
        assert wanted.tolist() == [i if m else -1 for i, m in stream[1:]]


def test_the_order_in_a_row_is_drawn_by_lot_and_a_cut_document_comes_last():
    rng = np.random.default_rng(0)
    source = iter(documents(list(rng.integers(2, CAPACITY, size=400))))
    packer, firsts, cut = BestFitCrop(CAPACITY, 20), [], 0
    for _ in range(100):
        row = packer.row(lambda: next(source, None))
        laid = sorted(row, key=lot)
        partial = [take < len(document.ids) for document, take in laid]
        assert sum(partial) <= 1 and not any(partial[:-1])
        cut += sum(partial)
        whole = [len(document.ids) for document, take in laid if take == len(document.ids)]
        if len(set(whole)) > 1:
            firsts.append(whole[0] == max(whole))
    assert cut > 0 and len(firsts) > 20
    assert 0.2 < np.mean(firsts) < 0.8        # best fit alone would give 1
