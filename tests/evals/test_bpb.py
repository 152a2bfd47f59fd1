"""Bits per byte against the formula, and that no way of cutting the data changes it."""

import math
from functools import partial

import numpy as np
import pytest
from scripted import ByteTokenizer, FakeWorld, Scripted, pseudo_random

from nanochat.data.packing import BestFitCrop, BestFitPad, Document, write_rows
from nanochat.evals import bits_per_byte, bpb

V = ByteTokenizer.vocab_size
LENGTHS = np.where(np.arange(V) < 256, 1 + np.arange(V) % 5, 0).astype(np.int32)     # tokens of one to five bytes; specials none


def data(rows=12, T=9, seed=0):
    """Rows with specials and masked targets among them."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, V, (rows, T + 1))
    ids[rng.random(ids.shape) < 0.2] = ByteTokenizer.bos
    targets = ids[:, 1:].copy()
    targets[rng.random(targets.shape) < 0.3] = -1
    return ids[:, :-1].copy(), targets


def by_hand(inputs, targets, rule):
    nats = size = 0
    for row, wanted in zip(inputs.tolist(), targets.tolist()):
        for t, target in enumerate(wanted):
            if target >= 0 and LENGTHS[target] > 0:
                z = np.asarray(rule(row[: t + 1]), dtype=np.float64)
                nats += math.log(np.exp(z).sum()) - z[target]
                size += int(LENGTHS[target])
    return nats / math.log(2) / size


def test_it_is_the_nats_of_counted_targets_over_their_bytes():
    inputs, targets = data()
    assert (targets == -1).any() and (targets >= 256).any()
    expected = by_hand(inputs, targets, pseudo_random)
    assert bits_per_byte(Scripted(pseudo_random), [(inputs, targets)], LENGTHS) == pytest.approx(expected, rel=1e-6)


def test_a_uniform_model_over_256_bytes_costs_eight_bits():
    def uniform(ids):
        return np.where(np.arange(V) < 256, 0.0, -1e9)

    inputs, targets = data()
    targets[targets >= 256] = -1
    assert bits_per_byte(Scripted(uniform), [(inputs, targets)], ByteTokenizer.token_bytes) == pytest.approx(8.0)


@pytest.mark.parametrize("size", [1, 5, 12])
def test_batching_changes_nothing(size):
    inputs, targets = data()
    model = Scripted(pseudo_random)
    cut = [(inputs[i : i + size], targets[i : i + size]) for i in range(0, 12, size)]
    assert bits_per_byte(model, cut, LENGTHS) == pytest.approx(bits_per_byte(model, [(inputs, targets)], LENGTHS), rel=1e-9)


def test_ranks_add_up_their_sums(monkeypatch):
    """Each rank has its own rows; the result weighs bytes, not ranks."""
    inputs, targets = data()
    model, shares = Scripted(pseudo_random), []

    class Peers(FakeWorld):
        def gather(self, value):
            shares.append(value)
            return shares

    monkeypatch.setattr(bpb, "world", partial(Peers, 0, 2))
    bits_per_byte(model, [(inputs[:3], targets[:3])], LENGTHS)
    assert bits_per_byte(model, [(inputs[3:], targets[3:])], LENGTHS) == pytest.approx(by_hand(inputs, targets, pseudo_random), rel=1e-6)


# -- packed rows ------------------------------------------------------------------------------------------------------

SURPRISE = np.linspace(-1, 1, V)                              # logits of a model that does not look back


def packed(packer, documents, capacity):
    """Inputs and targets of all rows, and the pieces they were made of."""
    queue, rows = iter(documents), []
    while pieces := packer.row(lambda: next(queue, None)):
        rows.append(pieces)
    return *write_rows(rows, capacity, pad=ByteTokenizer.bos), [piece for row in rows for piece in row]


def of_documents(pieces):
    """Bits per byte worked out from the pieces alone: the tokens after bos that are to be learned, wherever their row put them."""
    counted = [int(i) for document, take in pieces for i, m in zip(document.ids[1:take], document.mask[1:take]) if m and LENGTHS[i]]
    nats = np.log(np.exp(SURPRISE).sum()) - SURPRISE[counted]
    return nats.sum() / math.log(2) / LENGTHS[counted].sum()


@pytest.mark.parametrize("capacity", [21, 32, 100])
@pytest.mark.parametrize("policy", [BestFitPad, BestFitCrop])
def test_of_a_packed_row_only_what_is_learned_counts(policy, capacity):
    """The mask of a document moves with it into its row; padding, bos and what the user said are nowhere in the sum."""
    rng = np.random.default_rng(5)
    documents = []
    for i in range(30):
        ids = rng.integers(0, V, rng.integers(3, 20))
        ids[0], mask = ByteTokenizer.bos, rng.random(len(ids)) < 0.5
        documents.append(Document(i, ids, mask.astype(np.int8)))
    inputs, targets, pieces = packed(policy(capacity, buffer=8), documents, capacity)
    assert (targets == -1).any() and inputs.shape == targets.shape == (len(inputs), capacity - 1)
    model = Scripted(lambda ids: SURPRISE)
    assert bits_per_byte(model, [(inputs, targets)], LENGTHS) == pytest.approx(of_documents(pieces), rel=1e-6)
    if policy is BestFitPad:                                  # nothing is cut: any packing gives what the documents give
        assert of_documents(pieces) == pytest.approx(of_documents([(d, len(d.ids)) for d in documents]), rel=1e-12)


def test_nothing_counted_is_infinite():
    inputs, targets = data()
    assert bits_per_byte(Scripted(pseudo_random), [(inputs, np.full_like(targets, -1))], LENGTHS) == math.inf
    assert bits_per_byte(Scripted(pseudo_random), [], LENGTHS) == math.inf
