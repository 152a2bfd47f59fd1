"""Lesson 07, SFT and chat evals: the cases of its exercises, and what `use` gives where the library has nothing.

Oracles are of another make than the answers: loops in double precision for the loss, the equation behind Wilson's
formula, sums of exponentials for preferences.
"""

import math
import random
import re

import torch
import torch.nn.functional as F
from torch import Tensor

# ---------------------------------------------------------------------------------------------------------------------
# What `use` gives until the learner's passes


def reference_masked_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of -log p(target) over the positions whose target is not -1; logits (B, T, V), targets (B, T)."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)


def reference_choose_letters(logits: Tensor, lengths: list[int], letter_ids: list[list[int]]) -> list[int]:
    """For each prompt the place of the letter with the largest logit behind its last token; logits (B, T, V)."""
    return [int(row[n - 1, ids].argmax()) for row, n, ids in zip(logits, lengths, letter_ids)]


def reference_extract_answer(text: str) -> str | None:
    """The final number of an answer as a string without commas, or None."""
    number = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
    _, mark, behind = text.rpartition("####")
    found = number.findall(behind)[:1] if mark else []
    found = found or number.findall(text)[-1:]
    return found[0].replace(",", "") if found else None


def reference_plain(value) -> bool:
    """Whether the value is None, a bool, int, float or str, or a list, tuple or dict of such, in exact types."""
    if type(value) is dict:
        return all(reference_plain(part) for pair in value.items() for part in pair)
    if type(value) in (list, tuple):
        return all(reference_plain(part) for part in value)
    return type(value) in (type(None), bool, int, float, str)


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:99] + "…"


def reference_preference_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Mean of -log sigmoid(chosen - rejected) over N comparisons; (N,) each."""
    return -F.logsigmoid(chosen - rejected).mean()


# ---------------------------------------------------------------------------------------------------------------------
# 07.masked_loss


def _counted(logits, targets) -> list[float]:
    """-log p of every target that counts, one by one in double precision."""
    losses = []
    for row, wanted in zip(logits.tolist(), targets.tolist()):
        for x, target in zip(row, wanted):
            if target >= 0:
                top = max(x)
                losses.append(math.log(sum(math.exp(v - top) for v in x)) + top - x[target])
    return losses


def _check_loss(masked_loss, logits, targets, tolerance: float = 1e-4):
    got = float(masked_loss(logits, targets))
    losses = _counted(logits, targets)
    wanted = sum(losses) / len(losses)
    assert abs(got - wanted) <= tolerance * max(1.0, abs(wanted)), (
        f"targets {_short(targets.tolist())}: {got:.5f}, should be {wanted:.5f}")


def averages_what_counts(masked_loss):
    "the example of the box, and rows where everything counts"
    got = float(masked_loss(torch.tensor([[[0.0, 0.0], [0.0, math.log(3)]]]), torch.tensor([[-1, 1]])))
    assert abs(got - math.log(4 / 3)) < 1e-4, f"the example gives {got:.4f}, should be {math.log(4 / 3):.4f}"
    _check_loss(masked_loss, torch.randn(2, 5, 7), torch.randint(0, 7, (2, 5)))


def divides_by_what_counts(masked_loss):
    "positions that do not count are in neither sum: more of them change nothing"
    logits, targets = torch.randn(1, 4, 6), torch.tensor([[2, 5, 0, 1]])
    alone = float(masked_loss(logits, targets))
    longer = torch.cat((logits, torch.randn(1, 12, 6)), dim=1)
    padded = float(masked_loss(longer, torch.cat((targets, torch.full((1, 12), -1)), dim=1)))
    assert abs(alone - padded) < 1e-4, f"{alone:.4f}, and with twelve ignored positions behind {padded:.4f}"


def minus_one_is_no_column(masked_loss):
    "a target of -1 is not the last token of the vocabulary"
    logits = torch.randn(2, 3, 5)
    logits[..., -1] = -20.0
    _check_loss(masked_loss, logits, torch.tensor([[0, -1, -1], [-1, 2, 3]]))


def weighs_tokens_not_rows(masked_loss):
    "a row with one counted token weighs less than a row with six"
    _check_loss(masked_loss, 3 * torch.randn(2, 6, 8), torch.tensor([[1, 2, 3, 4, 5, 6], [-1, -1, 7, -1, -1, -1]]))


def survives_large_logits(masked_loss):
    "logits of a thousand overflow no exponential"
    _check_loss(masked_loss, torch.tensor([[[1000.0, 990.0, -1000.0], [-1000.0, 0.0, 1000.0]]]), torch.tensor([[1, 2]]))


def lets_gradients_through(masked_loss):
    "the gradient is (softmax - one-hot) / n where it counts, and zero elsewhere"
    logits, targets = torch.randn(2, 3, 4, requires_grad=True), torch.tensor([[1, -1, 3], [-1, 0, -1]])
    loss = masked_loss(logits, targets)
    assert torch.is_tensor(loss) and loss.requires_grad, "the loss has no gradient: stay within tensors"
    got, = torch.autograd.grad(loss, logits)
    counts = (targets >= 0)[..., None]
    wanted = (logits.detach().softmax(-1) - torch.eye(4)[targets.clamp(min=0)]) * counts / counts.sum()
    worst = float((got - wanted).abs().max())
    assert worst < 1e-4, f"the gradient is off by {worst:.4f}"


# ---------------------------------------------------------------------------------------------------------------------
# 07.wilson


def _pair(answer) -> tuple[float, float]:
    assert isinstance(answer, (tuple, list)) and len(answer) == 2, f"return (low, high), not {_short(answer)}"
    return float(answer[0]), float(answer[1])


def gives_the_examples(wilson):
    "0 of 30, and 84 of 100"
    for (correct, n), wanted in (((0, 30), (0.0, 0.1135)), ((84, 100), (0.7558, 0.8990))):
        got = _pair(wilson(correct, n))
        assert max(abs(a - b) for a, b in zip(got, wanted)) < 1e-3, f"{correct} of {n}: {got}, should be about {wanted}"


def solves_its_equation(wilson):
    "at both ends p, the result is exactly z standard deviations of p away: |c/n - p| = z sqrt(p (1 - p) / n)"
    for _ in range(50):
        n = random.randint(2, 500)
        correct, z = random.randint(1, n - 1), random.choice([1.0, 1.96, 2.58])
        for p in _pair(wilson(correct, n, z)):
            away, z_deviations = abs(correct / n - p), z * math.sqrt(max(0.0, p * (1 - p)) / n)
            assert abs(away - z_deviations) < 1e-6, (
                f"{correct} of {n}, z = {z}: the end {p:.4f} is {away:.4f} away, z deviations are {z_deviations:.4f}")


def doubts_at_the_ends(wilson):
    "none of n leaves room above zero, all of n leaves room below one; both stay inside [0, 1]"
    for n in (1, 5, 30, 164):
        (low, high), (below, above) = _pair(wilson(0, n)), _pair(wilson(n, n))
        assert 0 <= low < 1e-9 and 1e-3 < high < 1, f"0 of {n}: {(low, high)}"
        assert 0 < below < 0.999 and 1 - 1e-9 < above <= 1, f"{n} of {n}: {(below, above)}"


def narrows_with_items(wilson):
    "a hundred times the items: about a tenth of the width"
    widths = [high - low for low, high in (_pair(wilson(30 * k, 100 * k)) for k in (1, 100))]
    assert 9 < widths[0] / widths[1] < 11, f"30 of 100: {widths[0]:.4f} wide, 3000 of 10000: {widths[1]:.4f}"


def knows_nothing_without_items(wilson):
    "no items: (0, 1)"
    got = _pair(wilson(0, 0))
    assert got == (0, 1), f"wilson(0, 0) is {got}"


# ---------------------------------------------------------------------------------------------------------------------
# 07.choose_letters


def _choice(choose_letters, logits, lengths, letter_ids) -> list[int]:
    got = choose_letters(logits, lengths, letter_ids)
    assert got is not None and len(got) == len(letter_ids), f"{len(letter_ids)} prompts, returned {_short(got)}"
    return [int(place) for place in got]


def chooses_the_example(choose_letters):
    "behind the last token of the prompt, among its letters"
    logits = torch.zeros(1, 3, 10)
    logits[0, 1, 7], logits[0, 1, 3] = 2.0, 9.0
    got = _choice(choose_letters, logits, [2], [[6, 7, 8]])
    assert got == [1], f"returned {got}, should be [1]"


def reads_behind_the_last_token(choose_letters):
    "each prompt has its own end: not the last column, not one too far"
    logits = torch.zeros(2, 6, 8)
    for b, n in enumerate((3, 5)):
        logits[b, :, 1] = 5.0                # everywhere else the first letter looks best
        logits[b, n - 1] = 0.0
        logits[b, n - 1, 2 + b] = 1.0
    got = _choice(choose_letters, logits, [3, 5], [[1, 2, 3], [1, 2, 3]])
    assert got == [1, 2], f"returned {got}, should be [1, 2]"


def compares_letters_only(choose_letters):
    "whatever else is likelier does not matter"
    logits = torch.full((1, 2, 50), 8.0)
    logits[0, 1, [10, 20, 30]] = torch.tensor([-3.0, -1.0, -2.0])
    got = _choice(choose_letters, logits, [2], [[10, 20, 30]])
    assert got == [1], f"returned {got}, should be [1]"


def returns_places_not_ids(choose_letters):
    "the place in the prompt's own list, also where lists differ in order and length"
    logits = torch.zeros(3, 1, 9)
    logits[:, 0, 5] = 4.0
    got = _choice(choose_letters, logits, [1, 1, 1], [[5, 6], [8, 7, 6, 5], [7, 5, 6]])
    assert got == [0, 3, 1], f"returned {got}, should be [0, 3, 1]"


def chooses_in_random_batches(choose_letters):
    "many prompts of many lengths"
    for _ in range(20):
        B, T, V = random.randint(1, 6), random.randint(1, 9), 30
        logits, lengths = torch.randn(B, T, V), [random.randint(1, T) for _ in range(B)]
        letter_ids = [random.sample(range(V), random.randint(2, 5)) for _ in range(B)]
        wanted = []
        for b in range(B):
            values = [float(logits[b][lengths[b] - 1][i]) for i in letter_ids[b]]
            wanted.append(max(range(len(values)), key=values.__getitem__))
        got = _choice(choose_letters, logits, lengths, letter_ids)
        assert got == wanted, f"returned {got}, should be {wanted}"


# ---------------------------------------------------------------------------------------------------------------------
# 07.extract_answer


def _check_answers(extract_answer, *pairs):
    for text, wanted in pairs:
        got = extract_answer(text)
        assert got == wanted, f"{text!r} gives {got!r}, should be {wanted!r}"


def finds_the_marked_number(extract_answer):
    "behind ####, whatever stands before or after it"
    _check_answers(extract_answer, ("3 and 4 make 7.\n#### 7", "7"), ("#### 18 dollars for 3 days", "18"),
                   ("#### $18", "18"), ("####5", "5"))


def uses_the_last_mark(extract_answer):
    "of several marks the last counts"
    _check_answers(extract_answer, ("#### 3\nNo, wait.\n#### 4", "4"))


def drops_commas(extract_answer):
    "1,200 is 1200"
    _check_answers(extract_answer, ("#### 1,200", "1200"), ("#### 12,345,678", "12345678"))


def drops_a_final_period(extract_answer):
    "a period that ends the sentence is no part of the number"
    _check_answers(extract_answer, ("#### 18.", "18"), ("It is 1,200.", "1200"), ("#### 18. That is all", "18"))


def keeps_decimals_and_signs(extract_answer):
    "3.50 stays 3.50, and -2 stays -2"
    _check_answers(extract_answer, ("#### 3.50", "3.50"), ("#### -2", "-2"), ("That makes -3.5 degrees.", "-3.5"))


def takes_the_last_number_without_a_mark(extract_answer):
    "no #### with a number behind it: the last number of the text"
    _check_answers(extract_answer, ("3 boxes of 12 make 36 eggs.", "36"), ("It is 36. ####", "36"))


def says_none_without_a_number(extract_answer):
    "no number, no answer"
    _check_answers(extract_answer, ("I do not know.", None), ("", None), ("#### ?", None))


# ---------------------------------------------------------------------------------------------------------------------
# 07.plain


class Liar:
    """Equal to everything, and an int if one asks it."""

    @property
    def __class__(self):
        return int

    def __eq__(self, other):
        return True

    __hash__ = object.__hash__

    def __repr__(self):
        return "an object that is equal to everything and says that it is an int"


def _subclass(kind: type):
    return type("My" + kind.__name__, (kind,), {"__repr__": lambda self: f"an object of a subclass of {kind.__name__}"})()


def _check_plain(plain, wanted: bool, *values):
    for value in values:
        got = plain(value)
        assert got is wanted, f"plain of {_short(value)} is {got!r}, should be {wanted}"


def lets_single_values_pass(plain):
    "None, bools, ints, floats and strings"
    _check_plain(plain, True, None, True, False, 0, -7, 10**40, 1.5, float("nan"), "", "a word")


def looks_into_rows(plain):
    "lists, tuples and dicts are as plain as what they hold"
    _check_plain(plain, True, [], (), {}, [1, "a", None], (1, 2.5), {"a": 1})
    _check_plain(plain, False, [print], (1, object()), {"a": len})


def looks_at_any_depth(plain):
    "lists in tuples in dicts, and so on"
    _check_plain(plain, True, {"a": [1, (2.5, None)]}, [[[[[[0]]]]]], ({1: {2: {3: []}}},))
    _check_plain(plain, False, {"a": [1, (2.5, print)]}, [[[[[[len]]]]]], ({1: {2: {3: [object()]}}},))


def looks_into_keys(plain):
    "a dict's keys count, too"
    _check_plain(plain, True, {(1, ("a", None)): 2})
    _check_plain(plain, False, {len: 1}, {(1, (2, len)): 1})


def refuses_the_rest(plain):
    "objects, functions, classes, generators; sets, bytes and complex numbers are not on the list"
    _check_plain(plain, False, object(), len, int, math, (i for i in "ab"), range(3), {1, 2}, frozenset(), b"a", 1j, ...)


def knows_subclasses(plain):
    "an object of a subclass of int, float, str, list, tuple or dict"
    for kind in (int, float, str, list, tuple, dict):
        _check_plain(plain, False, _subclass(kind), [_subclass(kind)])


def asks_nothing(plain):
    "an object that says it is an int, and equal to whatever one likes"
    _check_plain(plain, False, Liar(), [1, Liar()])


# ---------------------------------------------------------------------------------------------------------------------
# 07.centered


def guessing_is_zero(centered):
    "an accuracy equal to chance gives 0"
    for chance in (0.0, 0.25, 0.5, 0.628):
        got = centered(chance, chance)
        assert abs(got) < 1e-9, f"centered({chance}, {chance}) is {got}"


def perfect_is_one(centered):
    "all right gives 1, whatever chance is"
    for chance in (0.0, 0.25, 0.5, 0.9):
        got = centered(1.0, chance)
        assert abs(got - 1) < 1e-9, f"centered(1.0, {chance}) is {got}"


def worse_is_negative(centered):
    "below chance it is negative, and says how far"
    got = centered(0.0, 0.5)
    assert abs(got + 1) < 1e-9, f"centered(0.0, 0.5) is {got}, should be -1"


def is_a_straight_line(centered):
    "halfway from chance to perfect is 0.5, and so on"
    for _ in range(50):
        chance, way = random.random() * 0.9, random.random()
        got = centered(chance + way * (1 - chance), chance)
        accuracy = chance + way * (1 - chance)
        assert abs(got - way) < 1e-9, f"centered({accuracy:.3f}, {chance:.3f}) is {got}, should be {way:.3f}"


# ---------------------------------------------------------------------------------------------------------------------
# 07.preference_loss


def _check_preference(preference_loss, chosen: list[float], rejected: list[float]):
    got = float(preference_loss(torch.tensor(chosen), torch.tensor(rejected)).detach())
    wanted = sum(math.log1p(math.exp(b - a)) if b - a < 500 else b - a for a, b in zip(chosen, rejected)) / len(chosen)
    assert abs(got - wanted) <= 1e-4 * max(1.0, wanted), (
        f"chosen {_short(chosen)}, rejected {_short(rejected)}: {got:.4f}, should be {wanted:.4f}")


def gives_both_examples(preference_loss):
    "a difference of two costs 0.1269, none costs log 2; and their mean"
    _check_preference(preference_loss, [2.0], [0.0])
    _check_preference(preference_loss, [0.0], [0.0])
    _check_preference(preference_loss, [2.0, 0.0], [0.0, 0.0])


def wants_the_chosen_higher(preference_loss):
    "raising the chosen one's score makes the loss smaller"
    low, high = (float(preference_loss(torch.tensor([x]), torch.tensor([0.0]))) for x in (-1.0, 1.0))
    assert high < low, f"chosen at 1: {high:.4f}, chosen at -1: {low:.4f}, both against 0"


def takes_the_mean(preference_loss):
    "the same comparisons twice: the same loss"
    chosen, rejected = torch.randn(6), torch.randn(6)
    once, twice = (float(preference_loss(chosen.repeat(k), rejected.repeat(k))) for k in (1, 2))
    assert abs(once - twice) < 1e-4, f"six comparisons: {once:.4f}, each of them twice: {twice:.4f}"


def stays_finite(preference_loss):
    "wrong by a thousand costs a thousand, right by a thousand costs nothing"
    _check_preference(preference_loss, [0.0, 1000.0], [1000.0, 0.0])


def pulls_less_when_sure(preference_loss):
    "the gradient on the chosen score is -sigmoid(rejected - chosen) / N: large where wrong, small where sure"
    chosen, rejected = torch.tensor([3.0, 0.0, -800.0], requires_grad=True), torch.tensor([-3.0, 0.0, 0.0])
    got, = torch.autograd.grad(preference_loss(chosen, rejected), chosen)
    wanted = -torch.sigmoid(rejected - chosen.detach()) / 3
    assert float((got - wanted).abs().max()) < 1e-4, f"gradient {got.tolist()}, should be {wanted.tolist()}"


def equals_random_comparisons(preference_loss):
    "many comparisons, summed up one by one"
    for _ in range(20):
        chosen, rejected = zip(*((random.gauss(0, 4), random.gauss(0, 4)) for _ in range(random.randint(1, 9))))
        _check_preference(preference_loss, list(chosen), list(rejected))


CASES = {
    "07.masked_loss": [averages_what_counts, divides_by_what_counts, minus_one_is_no_column, weighs_tokens_not_rows,
                       survives_large_logits, lets_gradients_through],
    "07.wilson": [gives_the_examples, solves_its_equation, doubts_at_the_ends, narrows_with_items,
                  knows_nothing_without_items],
    "07.choose_letters": [chooses_the_example, reads_behind_the_last_token, compares_letters_only,
                          returns_places_not_ids, chooses_in_random_batches],
    "07.extract_answer": [finds_the_marked_number, uses_the_last_mark, drops_commas, drops_a_final_period,
                          keeps_decimals_and_signs, takes_the_last_number_without_a_mark, says_none_without_a_number],
    "07.plain": [lets_single_values_pass, looks_into_rows, looks_at_any_depth, looks_into_keys, refuses_the_rest,
                 knows_subclasses, asks_nothing],
    "07.centered": [guessing_is_zero, perfect_is_one, worse_is_negative, is_a_straight_line],
    "07.preference_loss": [gives_both_examples, wants_the_chosen_higher, takes_the_mean, stays_finite,
                           pulls_less_when_sure, equals_random_comparisons],
}
