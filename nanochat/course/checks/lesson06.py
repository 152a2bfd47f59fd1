"""Lesson 06, midtraining: the cases of its exercises, and the answers that `use` gives where the library has none.

Oracles are of another make than the answers: exact fractions for shares, one pass over sorted items for packing, a list
of tokens with their fate for targets.
"""

import random
from fractions import Fraction

import numpy as np

# ---------------------------------------------------------------------------------------------------------------------
# What `use` gives until the learner's passes


def reference_next_task(shares: list[float], spent: list[int]) -> int:
    """The number of the task furthest behind its share of the tokens."""
    total = sum(spent)
    behind = [share * total - own for share, own in zip(shares, spent)]
    return behind.index(max(behind))


def reference_pack_row(lengths: list[int], room: int) -> list[int]:
    """Positions of the items of one row, best fit: always the longest that still fits."""
    taken: list[int] = []
    while fitting := [i for i, n in enumerate(lengths) if n <= room and i not in taken]:
        taken.append(max(fitting, key=lambda i: lengths[i]))
        room -= lengths[taken[-1]]
    return taken


def reference_lay_out(pieces: list[tuple], capacity: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """One packed row as (inputs, targets), (capacity - 1,) int64 each; target -1 is ignored by the loss."""
    ids, mask, at = np.full(capacity, pad, dtype=np.int64), np.zeros(capacity, dtype=bool), 0
    for piece, trained in pieces:
        ids[at:at + len(piece)] = piece
        mask[at:at + len(piece)] = trained
        at += len(piece)
    return ids[:-1], np.where(mask[1:], ids[1:], -1)


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:99] + "…"


# ---------------------------------------------------------------------------------------------------------------------
# 06.choice_prompt


def _lines(text, count: int) -> list[str]:
    assert isinstance(text, str), f"returned {type(text).__name__}, should be a string"
    lines = text.split("\n")
    assert len(lines) == count, f"{len(lines)} lines, should be {count}: {_short(text)}"
    return lines


def writes_the_example(choice_prompt):
    "the prompt of the box, letter for letter"
    got = choice_prompt("Which is a fish?", ["Cat", "Cod"], ["A", "B"])
    lines = _lines(got, 5)
    for line, wanted in zip(lines, ("Multiple Choice question: Which is a fish?", "- Cat=A", "- Cod=B", "",
                                    "Answer with the letter only.")):
        assert line == wanted, f"a line reads {line!r}, should be {wanted!r}"


def puts_the_letter_behind_its_choice(choice_prompt):
    "an option line ends in `=` and the letter: nothing between, nothing after"
    lines = _lines(choice_prompt("q", ["one", "two words", "x=y"], ["A", "B", "C"]), 6)[1:4]
    for line, choice, letter in zip(lines, ("one", "two words", "x=y"), "ABC"):
        assert line.endswith("=" + letter), f"{line!r} does not end in '={letter}'"
        assert line == f"- {choice}={letter}", f"the line reads {line!r}"


def takes_the_letters_it_is_given(choice_prompt):
    "digits, other letters, three options or five"
    for letters in (["1", "2", "3", "4"], ["A", "B", "C"], ["p", "q", "r", "s", "t"]):
        choices = [f"choice {random.randrange(100)}" for _ in letters]
        lines = _lines(choice_prompt("q", choices, letters), len(letters) + 3)[1:-2]
        got = [line.rpartition("=")[2] for line in lines]
        assert got == letters, f"letters {got}, should be {letters}"


def ends_with_the_instruction(choice_prompt):
    "an empty line, the instruction, and no line end behind it"
    got = str(choice_prompt("q", ["a", "b"], ["A", "B"]))
    assert got.endswith("=B\n\nAnswer with the letter only."), f"it ends in {got[-40:]!r}"


# ---------------------------------------------------------------------------------------------------------------------
# 06.split_calls


def _pairs(parts) -> list[tuple[str, str]]:
    assert isinstance(parts, list), f"returned {_short(parts)}, should be a list of parts"
    assert all(isinstance(p, dict) and set(p) == {"type", "text"} for p in parts), (
        f'each part must be {{"type": …, "text": …}}: {_short(parts)}')
    return [(part["type"], part["text"]) for part in parts]


def _check_split(split_calls, text: str, wanted: list[tuple[str, str]]):
    got = _pairs(split_calls(text))
    assert got == wanted, f"{text!r} gives {_short(got)}, should be {_short(wanted)}"


def splits_the_example(split_calls):
    "words, call, result, words"
    _check_split(split_calls, "2*3 is <<2*3=6>>6.",
                 [("text", "2*3 is "), ("python", "2*3"), ("python_output", "6"), ("text", "6.")])


def leaves_plain_text_a_string(split_calls):
    "without a note the text comes back as it is; << alone makes no note"
    for text in ("no notes here", "", "1 << 2 is 4"):
        assert split_calls(text) == text, f"{text!r} gives {_short(split_calls(text))}"


def cuts_at_the_last_equals(split_calls):
    "<<1==1=True>> calls 1==1"
    _check_split(split_calls, "So <<1==1=True>>yes",
                 [("text", "So "), ("python", "1==1"), ("python_output", "True"), ("text", "yes")])


def takes_each_note_by_itself(split_calls):
    "two notes are two calls, with the text between them kept"
    _check_split(split_calls, "a<<1+1=2>>b<<2+2=4>>c",
                 [("text", "a"), ("python", "1+1"), ("python_output", "2"), ("text", "b"),
                  ("python", "2+2"), ("python_output", "4"), ("text", "c")])


def makes_no_empty_parts(split_calls):
    "a note at the start, at the end, or right behind another leaves no empty text"
    _check_split(split_calls, "<<1+1=2>><<2*2=4>>",
                 [("python", "1+1"), ("python_output", "2"), ("python", "2*2"), ("python_output", "4")])


def loses_nothing(split_calls):
    "random texts: the parts put together again are the text, line ends included"
    for _ in range(50):
        text = ""
        for _ in range(random.randint(1, 5)):
            text += "".join(random.choices("ab 1=.\n", k=random.randint(0, 4)))
            text += f"<<{random.randrange(99)}{random.choice('+-*')}{random.randrange(99)}={random.randrange(99)}>>"
        text += random.choice(["", ".", " eggs\n#### 5"])
        again = ""
        for kind, piece in _pairs(split_calls(text)):
            again += {"text": piece, "python": f"<<{piece}=", "python_output": f"{piece}>>"}.get(kind, f"[{kind}?]")
        assert again == text, f"put together: {_short(again)}, was {_short(text)}"


# ---------------------------------------------------------------------------------------------------------------------
# 06.next_task


def _furthest(shares, spent) -> int:
    """In exact fractions: the lowest number among those with the largest debt."""
    debts = [Fraction(share) * sum(spent) - own for share, own in zip(shares, spent)]
    return min(i for i, debt in enumerate(debts) if debt == max(debts))


def finds_the_one_behind(next_task):
    "10, 5 and 5 are wanted, 10, 2 and 8 are there: the second"
    got = next_task([0.5, 0.25, 0.25], [10, 2, 8])
    assert got == 1, f"returned {got}, should be 1"


def begins_with_the_first(next_task):
    "before anything is drawn all are equal, and the first one is taken; so it is among equals later"
    for shares, spent, wanted in (([0.25, 0.25, 0.5], [0, 0, 0], 0), ([0.5, 0.25, 0.25], [8, 0, 0], 1)):
        got = next_task(shares, spent)
        assert got == wanted, f"shares {shares}, spent {spent}: returned {got}, should be {wanted}"


def looks_at_shares(next_task):
    "who has had least is not always who is owed most"
    got = next_task([0.125, 0.875], [10, 30])
    assert got == 1, f"shares 0.125 and 0.875 of 40 are 5 and 35; spent 10 and 30: returned {got}, should be 1"


def measures_debt_in_tokens(next_task):
    "the distance counts, not the proportion"
    got = next_task([0.125, 0.375, 0.5], [90, 310, 600])
    assert got == 1, f"125, 375 and 500 wanted, 90, 310 and 600 spent: returned {got}, should be 1, owed 65 tokens"


def keeps_every_task_near_its_share(next_task):
    "a thousand draws with items of all lengths: each choice is right, and no debt grows"
    shares = [0.5, 0.25, 0.125, 0.125]
    spent = [0] * 4
    for _ in range(1000):
        got, wanted = next_task(shares, list(spent)), _furthest(shares, spent)
        assert got == wanted, f"spent {spent}: returned {got}, should be {wanted}"
        spent[got] += random.randint(1, 10 * (got + 1) ** 2)


# ---------------------------------------------------------------------------------------------------------------------
# 06.pack_row


def _best_fit(lengths, room) -> list[int]:
    """One pass, longest first: an item that does not fit now never will."""
    taken = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if lengths[i] <= room:
            taken.append(i)
            room -= lengths[i]
    return taken


def _check_row(pack_row, lengths, room):
    got, wanted = pack_row(list(lengths), room), _best_fit(lengths, room)
    assert got is not None and list(got) == wanted, f"lengths {lengths}, room {room}: took {got}, should be {wanted}"


def packs_the_examples(pack_row):
    "both rows of the box"
    for room, wanted in ((12, [1, 2]), (8, [0, 2])):
        got = pack_row([5, 9, 3, 5, 2], room)
        assert got == wanted, f"room {room}: took {got}, should be {wanted}"


def takes_what_fits_exactly(pack_row):
    "an item as long as the room fits"
    _check_row(pack_row, [4, 7, 6], 7)


def goes_on_behind_a_long_one(pack_row):
    "an item that does not fit stops nobody; none that fits: an empty row"
    _check_row(pack_row, [50, 3, 40, 4], 10)
    _check_row(pack_row, [50, 40], 10)
    _check_row(pack_row, [], 10)


def takes_the_first_of_equals(pack_row):
    "of equal lengths the one that stands first"
    _check_row(pack_row, [3, 5, 5, 3, 5], 11)


def leaves_the_lengths_alone(pack_row):
    "the list you were given stays as it was"
    lengths = [5, 9, 3]
    pack_row(lengths, 20)
    assert lengths == [5, 9, 3], f"it is {lengths} now"


def packs_random_rows(pack_row):
    "many rows: always the longest that still fits, no item twice"
    for _ in range(200):
        lengths = [random.randint(1, 30) for _ in range(random.randint(1, 20))]
        _check_row(pack_row, lengths, random.randint(1, 80))


# ---------------------------------------------------------------------------------------------------------------------
# 06.lay_out


def _fates(pieces, capacity, pad) -> tuple[list[int], list[int]]:
    tokens = [(i, bool(m)) for ids, mask in pieces for i, m in zip(ids, mask)]
    tokens += [(pad, False)] * (capacity - len(tokens))
    return [i for i, _ in tokens[:-1]], [i if counted else -1 for i, counted in tokens[1:]]


def _laid(lay_out, pieces, capacity, pad=99) -> tuple[list[int], list[int]]:
    got = lay_out(pieces, capacity, pad)
    assert isinstance(got, tuple) and len(got) == 2, f"return (inputs, targets), not {_short(got)}"
    inputs, targets = (np.asarray(array) for array in got)
    for name, array in (("inputs", inputs), ("targets", targets)):
        assert array.shape == (capacity - 1,), f"{name} have shape {array.shape}, should be ({capacity - 1},)"
    return inputs.tolist(), targets.tolist()


def lays_out_the_example(lay_out):
    "the row of the box, as int64 arrays"
    pieces = [([9, 1, 2], [0, 0, 1]), ([9, 3], [0, 1])]
    inputs, targets = _laid(lay_out, pieces, 7, 9)
    assert inputs == [9, 1, 2, 9, 3, 9], f"inputs {inputs}"
    assert targets == [-1, 2, -1, 3, -1, -1], f"targets {targets}"
    for array in lay_out(pieces, 7, 9):
        assert array.dtype == np.int64, f"the arrays are {array.dtype}, should be int64"


def aims_at_the_next_token(lay_out):
    "position t predicts token t + 1"
    _, targets = _laid(lay_out, [([10, 11, 12, 13], [0, 1, 1, 1])], 6)
    assert targets[:3] == [11, 12, 13], f"targets behind 10, 11, 12 are {targets[:3]}, should be [11, 12, 13]"


def asks_the_mask_of_the_target(lay_out):
    "the first learned token counts, and what stands behind the last one does not"
    _, targets = _laid(lay_out, [([1, 2, 3, 4, 5], [0, 0, 1, 1, 0])], 6)
    wanted = [-1, 3, 4, -1, -1]
    assert targets == wanted, f"ids 1 2 3 4 5 with mask 0 0 1 1 0: targets {targets}, should be {wanted}"


def ignores_what_others_write(lay_out):
    "no target where the mask is 0"
    _, targets = _laid(lay_out, [([1, 2, 3], [0, 0, 0]), ([1, 4], [0, 1])], 5)
    assert targets == [-1, -1, -1, 4], f"targets {targets}, should be [-1, -1, -1, 4]"


def pads_without_a_target(lay_out):
    "the rest of the inputs is pad, and no padding is a target"
    inputs, targets = _laid(lay_out, [([1, 2], [0, 1])], 6)
    assert inputs == [1, 2, 99, 99, 99], f"inputs {inputs}"
    assert targets == [2, -1, -1, -1, -1], f"targets {targets}"


def fills_a_row_to_its_end(lay_out):
    "a full row: its last token is a target and no input"
    inputs, targets = _laid(lay_out, [([1, 2, 3], [0, 1, 1])], 3)
    assert (inputs, targets) == ([1, 2], [2, 3]), f"got {(inputs, targets)}, should be ([1, 2], [2, 3])"


def lays_out_random_rows(lay_out):
    "many rows, every id and every target"
    for _ in range(100):
        pieces = []
        for _ in range(random.randint(1, 4)):
            n = random.randint(1, 8)
            pieces.append(([random.randrange(90) for _ in range(n)], [random.randrange(2) for _ in range(n)]))
        capacity = max(2, sum(len(ids) for ids, _ in pieces) + random.randint(0, 5))
        got, wanted = _laid(lay_out, pieces, capacity), _fates(pieces, capacity, 99)
        for name, a, b in zip(("inputs", "targets"), got, wanted):
            assert a == b, f"{name} of {_short(pieces)} are {_short(a)}, should be {_short(b)}"


CASES = {
    "06.choice_prompt": [writes_the_example, puts_the_letter_behind_its_choice, takes_the_letters_it_is_given,
                         ends_with_the_instruction],
    "06.split_calls": [splits_the_example, leaves_plain_text_a_string, cuts_at_the_last_equals,
                       takes_each_note_by_itself, makes_no_empty_parts, loses_nothing],
    "06.next_task": [finds_the_one_behind, begins_with_the_first, looks_at_shares, measures_debt_in_tokens,
                     keeps_every_task_near_its_share],
    "06.pack_row": [packs_the_examples, takes_what_fits_exactly, goes_on_behind_a_long_one, takes_the_first_of_equals,
                    leaves_the_lengths_alone, packs_random_rows],
    "06.lay_out": [lays_out_the_example, aims_at_the_next_token, asks_the_mask_of_the_target, ignores_what_others_write,
                   pads_without_a_target, fills_a_row_to_its_end, lays_out_random_rows],
}
