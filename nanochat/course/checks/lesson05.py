"""Lesson 05, pretraining: the cases of its exercises, and the answers that `use` gives for want of a library function.

Oracles are of another make than the answers: a loop over positions for the shift, a plain search through a list for
packing (the answer is the library's sorted shelf), odds multiplied as whole numbers for bits per byte, NumPy's
polynomials for power laws, strings for prefixes.
"""

import math
import random
from itertools import pairwise
from os.path import commonprefix

import numpy as np

from nanochat.data.packing import BestFitCrop, Document

# ---------------------------------------------------------------------------------------------------------------------
# What `use` gives until the learner's passes


def reference_shift_targets(rows: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, (B, T) each, of rows (B, T + 1); a target whose mask is 0 is -1."""
    return rows[:, :-1], np.where(mask[:, 1:] != 0, rows[:, 1:], -1)


def reference_pack(documents: list[list[int]], capacity: int) -> list[list[int]]:
    """Full rows of `capacity` ids; each piece of a row begins a document."""
    packer = BestFitCrop(capacity, buffer=max(1, len(documents)))
    queue = iter([Document(i, np.array(ids), np.ones(len(ids))) for i, ids in enumerate(documents)])
    rows = []
    while pieces := packer.row(lambda: next(queue, None)):
        rows.append([int(i) for document, take in pieces for i in document.ids[:take]])
    return [row for row in rows if len(row) == capacity]


def reference_bits_per_byte(losses: np.ndarray, targets: np.ndarray, token_bytes: np.ndarray) -> float:
    """Nats of the counted targets, as bits, over the bytes of these targets."""
    sizes = np.where(targets >= 0, token_bytes[targets], 0)            # (N,)
    return float(losses[sizes > 0].sum() / math.log(2) / sizes.sum())


def reference_choose(rows: list[list[int]], losses: list[list[float]]) -> int:
    """The row whose own tokens, those after the prefix that all rows share, have the lowest mean loss."""
    prefix = 0
    while all(len(row) > prefix and row[prefix] == rows[0][prefix] for row in rows):
        prefix += 1
    means = [sum(loss[prefix - 1:]) / len(loss[prefix - 1:]) for loss in losses]
    return means.index(min(means))


# ---------------------------------------------------------------------------------------------------------------------
# 05.shift_targets


def _short(value, most: int = 70) -> str:
    text = repr(value.tolist() if isinstance(value, np.ndarray) else value)
    return text if len(text) <= most else text[: most - 1] + "…"


def _two(got):
    assert isinstance(got, (tuple, list)) and len(got) == 2, f"return two arrays, inputs and targets; got {_short(got)}"
    return got


def shifts_the_example(shift_targets):
    "the row [7, 8, 9, 5] is read as 7 8 9 and must predict 8 9 5"
    inputs, targets = _two(shift_targets(np.array([[7, 8, 9, 5]]), np.array([[1, 1, 1, 1]])))
    assert np.array_equal(inputs, [[7, 8, 9]]), f"inputs are {_short(inputs)}, should be [[7, 8, 9]]"
    assert np.array_equal(targets, [[8, 9, 5]]), f"targets are {_short(targets)}, should be [[8, 9, 5]]"


def masks_what_is_predicted(shift_targets):
    "the mask belongs to the token that is predicted, not to the one that is read"
    _, targets = _two(shift_targets(np.array([[7, 8, 9, 5]]), np.array([[1, 0, 1, 1]])))
    assert np.array_equal(targets, [[-1, 9, 5]]), f"targets are {_short(targets)}, should be [[-1, 9, 5]]"


def keeps_id_zero(shift_targets):
    "0 is a token like any other; what is not counted is -1"
    _, targets = _two(shift_targets(np.array([[3, 0, 0, 4]]), np.array([[1, 1, 0, 0]])))
    assert np.array_equal(targets, [[0, -1, -1]]), f"targets are {_short(targets)}, should be [[0, -1, -1]]"


def leaves_rows_alone(shift_targets):
    "the arrays you were given stay as they were"
    rows, mask = np.arange(12).reshape(2, 6), np.array([[1, 0, 1, 0, 1, 1], [0, 0, 1, 1, 0, 1]])
    before = rows.copy(), mask.copy()
    shift_targets(rows, mask)
    assert np.array_equal(rows, before[0]) and np.array_equal(mask, before[1]), "your function changed its arguments"


def shifts_like_a_loop(shift_targets):
    "random rows: the same as going from position to position"
    for _ in range(20):
        rows = np.random.randint(0, 9, (random.randint(1, 4), random.randint(2, 9)))
        mask = np.random.randint(0, 2, rows.shape)
        inputs, targets = _two(shift_targets(rows, mask))
        shape = len(rows), rows.shape[1] - 1
        assert np.shape(inputs) == np.shape(targets) == shape, f"shapes must be {shape}, not {np.shape(targets)}"
        for b, row in enumerate(rows):
            for t in range(len(row) - 1):
                wanted = row[t + 1] if mask[b, t + 1] else -1
                assert inputs[b][t] == row[t] and targets[b][t] == wanted, (
                    f"row {_short(row)}, mask {_short(mask[b])}: at {t} it reads {inputs[b][t]} and must predict "
                    f"{targets[b][t]}, should be {wanted}")


# ---------------------------------------------------------------------------------------------------------------------
# 05.pack


def _documents(count: int, longest: int) -> list[list[int]]:
    """Documents whose ids tell them apart: 0, then 100·d + 1, 100·d + 2, …"""
    return [[0, *(100 * d + i for i in range(1, random.randint(1, longest)))] for d in range(1, count + 1)]


def _search(documents, capacity) -> list[list[int]]:
    """Rows by plain search through what is left."""
    left, rows, row = list(documents), [], []
    while left:
        room = capacity - len(row)
        fitting = [d for d in left if len(d) <= room]
        size = max(map(len, fitting)) if fitting else min(map(len, left))
        at = next(i for i, d in enumerate(left) if len(d) == size)
        row = row + left.pop(at)[:room]
        if len(row) == capacity:
            rows, row = [*rows, row], []
    return rows


def _lists(got) -> list[list[int]]:
    return [[int(i) for i in row] for row in got]


def packs_the_example(pack):
    "a long document alone; then the next longest, and what fits beside it"
    got = _lists(pack([[0, 1, 2], [0, 3], [0, 4, 5, 6, 7]], 5))
    assert got == [[0, 4, 5, 6, 7], [0, 1, 2, 0, 3]], f"got {_short(got)}"


def takes_the_longest_that_fits(pack):
    "of all that fit the longest goes first, and of equals the one that came first"
    got = _lists(pack([[0, 1], [0, 2, 3], [0, 4, 5], [0, 6]], 5))
    assert got == [[0, 2, 3, 0, 1], [0, 4, 5, 0, 6]], f"got {_short(got)}, should be [[0, 2, 3, 0, 1], [0, 4, 5, 0, 6]]"


def cuts_the_shortest(pack):
    "where nothing fits, the shortest document is cut: that loses least"
    got = _lists(pack([[0, 1, 2, 3], [0, 4, 5, 6, 7, 8], [0, 9, 10]], 5))
    assert got[:1] == [[0, 1, 2, 3, 0]], f"the first row is {_short(got[:1])}, should be [[0, 1, 2, 3, 0]]"
    assert got == [[0, 1, 2, 3, 0], [0, 4, 5, 6, 7]], f"got {_short(got)}: [0, 9, 10] was the shortest, so it is gone"


def every_piece_begins_a_document(pack):
    "what is cut off is thrown away: no row holds the middle of a document without its beginning"
    for _ in range(20):
        documents = _documents(12, 9)
        rows = _lists(pack(documents, 8))
        starts = {tuple(d[:n]) for d in documents for n in range(1, len(d) + 1)}
        for row in rows:
            cuts = [i for i, token in enumerate(row) if token == 0] + [len(row)]
            assert cuts[0] == 0, f"a row begins inside a document: {_short(row)}"
            for a, b in pairwise(cuts):
                assert tuple(row[a:b]) in starts, f"{_short(row[a:b])} is not the beginning of a document"


def rows_are_full(pack):
    "every row has exactly `capacity` ids; what is left at the end and fills no row is left out"
    got = _lists(pack([[0, 1, 2], [0, 3, 4], [0, 5]], 6))
    assert got == [[0, 1, 2, 0, 3, 4]], f"got {_short(got)}, should be [[0, 1, 2, 0, 3, 4]]"
    assert _lists(pack([[0, 1]], 6)) == [] and _lists(pack([], 6)) == [], "too little for one row gives no row"


def leaves_documents_alone(pack):
    "the documents you were given stay as they were"
    documents = _documents(10, 7)
    before = [list(d) for d in documents]
    pack(documents, 8)
    assert documents == before, f"your function changed them: {len(documents)} documents are left of {len(before)}"


def packs_like_a_search(pack):
    "random documents: the same rows as a search through all that is left"
    for _ in range(60):
        documents, capacity = _documents(random.randint(0, 25), random.randint(2, 14)), random.randint(2, 12)
        got, wanted = _lists(pack(documents, capacity)), _search(documents, capacity)
        assert got == wanted, f"{_short(documents, 50)}, capacity {capacity}: got {_short(got)}, not {_short(wanted)}"


# ---------------------------------------------------------------------------------------------------------------------
# 05.bits_per_byte

SIZES = np.array([1, 1, 2, 4, 3, 0, 5])        # 5 is a special token


def _near(got, wanted, what: str) -> None:
    close = isinstance(got, (int, float, np.floating)) and math.isclose(got, wanted, rel_tol=1e-6)
    assert close, f"{what}: got {_short(got)}, should be {wanted:.6f}"


def counts_bits(bits_per_byte):
    "a token of two bytes with probability 1/16 costs 4 bits: 2 bits a byte"
    _near(bits_per_byte(np.array([math.log(16)]), np.array([2]), SIZES), 2.0, "one target")


def divides_by_bytes_not_tokens(bits_per_byte):
    "two tokens of 1 and 4 bytes, a bit each: 2 bits over 5 bytes"
    _near(bits_per_byte(np.array([math.log(2)] * 2), np.array([0, 3]), SIZES), 0.4, "targets of 1 and 4 bytes")


def adds_before_it_divides(bits_per_byte):
    "all bits over all bytes, not the mean of every token's ratio"
    losses = np.log([2.0, 256.0, 4.0])
    _near(bits_per_byte(losses, np.array([0, 6, 2]), SIZES), 11 / 8, "1, 8 and 2 bits for 1, 5 and 2 bytes")


def leaves_specials_out(bits_per_byte):
    "a special token stands for no bytes: neither its bits nor its length count"
    losses = np.log([2.0, 1e6, 8.0])
    _near(bits_per_byte(losses, np.array([1, 5, 4]), SIZES), 4 / 4, "with a special token between")


def leaves_masked_out(bits_per_byte):
    "a target of -1 is not counted, whatever its loss says"
    losses = np.log([2.0, 1e6, 8.0])
    _near(bits_per_byte(losses, np.array([1, -1, 4]), SIZES), 4 / 4, "with a masked target between")


def counts_like_probabilities(bits_per_byte):
    "random text: the same as the probability of all of it, written in bits"
    for _ in range(20):
        odds = [random.choice([2, 4, 8, 32]) for _ in range(40)]
        targets = [random.choice([-1, 0, 1, 2, 3, 4, 5, 6]) for _ in odds]
        product, size = 1, 0
        for odd, target in zip(odds, targets):
            if target not in (-1, 5):
                product, size = product * odd, size + int(SIZES[target])
        wanted = (product.bit_length() - 1) / size                       # the product is a power of two
        _near(bits_per_byte(np.log(np.array(odds, dtype=float)), np.array(targets), SIZES), wanted, "40 random targets")


# ---------------------------------------------------------------------------------------------------------------------
# 05.fit_power_law


def _law(got) -> tuple[float, float]:
    assert isinstance(got, (tuple, list, np.ndarray)) and len(got) == 2, f"return (a, b); got {_short(got)}"
    return float(got[0]), float(got[1])


def _demand_law(fit_power_law, x, y, a, b) -> None:
    got = _law(fit_power_law(np.array(x, dtype=float), np.array(y, dtype=float)))
    close = np.allclose(got, (a, b), rtol=1e-4, atol=1e-6)
    assert close, f"got a = {got[0]:.5g}, b = {got[1]:.5g}; should be {a:.5g} and {b:.5g}"


def fits_the_example(fit_power_law):
    "through (1, 8), (4, 4), (16, 2): every fourfold x halves y, so b is one half"
    _demand_law(fit_power_law, [1, 4, 16], [8, 4, 2], 8, 0.5)


def recovers_any_law(fit_power_law):
    "points that lie on a law give that law back, also at 10^18 FLOPs"
    for scale in (1.0, 1e6, 1e18):
        a, b = random.uniform(0.5, 20), random.uniform(0.05, 0.9)
        x = scale * np.array([1.0, 2.0, 5.0, 11.0])
        _demand_law(fit_power_law, x, a * x**-b, a, b)


def knows_a_rising_law(fit_power_law):
    "where y grows with x, b is negative"
    _demand_law(fit_power_law, [1, 10, 100], [3, 30, 300], 3, -1)


def hears_every_point(fit_power_law):
    "with noise the middle points count too, as least squares on logarithms weigh them"
    for _ in range(10):
        n = random.randint(3, 8)
        x, y = np.exp(np.random.uniform(0, 9, n)), np.exp(np.random.uniform(-1, 1, n))
        slope, intercept = np.polyfit(np.log(x), np.log(y), 1)
        _demand_law(fit_power_law, x, y, math.exp(intercept), -slope)


# ---------------------------------------------------------------------------------------------------------------------
# 05.choose


def chooses_the_example(choose):
    "two endings after [9, 4]: their losses are 2.0 and 1.5, so the second"
    got = choose([[9, 4, 1], [9, 4, 2]], [[3.0, 2.0], [3.0, 1.5]])
    assert got == 1, f"got {_short(got)}"


def is_fair_to_long_endings(choose):
    "the mean counts, not the sum: three tokens of 1.0 beat one of 1.4"
    got = choose([[9, 1], [9, 2, 3, 4]], [[1.4], [1.0, 1.0, 1.0]])
    assert got == 1, f"got {_short(got)}: by the sum the longer ending could hardly ever win"


def judges_the_endings_only(choose):
    "the context is the same for all; it must not water the mean down"
    got = choose([[9, 5, 6, 1], [9, 5, 6, 2, 3]], [[0.0, 0.0, 2.0], [0.0, 0.0, 1.9, 1.9]])
    assert got == 1, f"got {_short(got)}: the endings' means are 2.0 and 1.9"


def matches_a_loss_with_its_token(choose):
    "losses[k][i] is the loss of token i + 1: there is none for the first"
    got = choose([[9, 8, 1, 5], [9, 8, 2, 5]], [[7.0, 0.5, 3.0], [7.0, 3.0, 1.0]])
    assert got == 0, f"got {_short(got)}: the own tokens of row 0 have losses 0.5 and 3.0, of row 1 3.0 and 1.0"
    got = choose([[9, 8, 1, 5], [9, 8, 2, 5]], [[0.1, 3.0, 0.1], [9.0, 1.0, 1.5]])
    assert got == 1, f"got {_short(got)}: the own tokens of row 0 have losses 3.0 and 0.1, of row 1 1.0 and 1.5"


def asks_all_rows_for_the_prefix(choose):
    "what two rows share and a third does not is part of the endings"
    rows = [[9, 1, 5], [9, 1, 6], [9, 2, 7]]
    got = choose(rows, [[4.0, 0.2], [4.0, 0.3], [1.0, 1.0]])
    assert got == 2, f"got {_short(got)}: only the first token is shared by all three; the means are 2.1, 2.15 and 1.0"


def gives_ties_to_the_first(choose):
    "of equal means the first row wins"
    got = choose([[9, 1], [9, 2], [9, 3]], [[2.0], [1.0], [1.0]])
    assert got == 1, f"got {_short(got)}"


def chooses_like_strings(choose):
    "random rows: the same as finding the prefix among strings"
    for _ in range(50):
        head = [random.randint(1, 3) for _ in range(random.randint(1, 5))]
        rows = [[*head, first, *(random.randint(1, 3) for _ in range(random.randint(0, 4)))] for first in (4, 5, 4)]
        rows[2][-1:] = [6]                                               # no row is the beginning of another
        losses = [[random.randint(0, 30) / 8 for _ in row[1:]] for row in rows]
        start = len(commonprefix(["".join(map(str, row)) for row in rows]))
        means = [np.mean(loss[start - 1:]) for loss in losses]
        wanted = int(np.argmin(means))
        got = choose(rows, losses)
        shown = [round(float(mean), 3) for mean in means]
        assert got == wanted, f"rows {_short(rows)}: chose {_short(got)}, should be {wanted}; the means are {shown}"


CASES = {
    "05.shift_targets": [shifts_the_example, masks_what_is_predicted, keeps_id_zero, leaves_rows_alone,
                         shifts_like_a_loop],
    "05.pack": [packs_the_example, takes_the_longest_that_fits, cuts_the_shortest, every_piece_begins_a_document,
                rows_are_full, leaves_documents_alone, packs_like_a_search],
    "05.bits_per_byte": [counts_bits, divides_by_bytes_not_tokens, adds_before_it_divides, leaves_specials_out,
                         leaves_masked_out, counts_like_probabilities],
    "05.fit_power_law": [fits_the_example, recovers_any_law, knows_a_rising_law, hears_every_point],
    "05.choose": [chooses_the_example, is_fair_to_long_endings, judges_the_endings_only, matches_a_loss_with_its_token,
                  asks_all_rows_for_the_prefix, gives_ties_to_the_first, chooses_like_strings],
}
