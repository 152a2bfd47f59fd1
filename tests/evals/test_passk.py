"""pass@k and maj@k against counting every subset."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import ByteTokenizer, Scripted, knows
from test_chat_evals import Quiz

from nanochat.engine import Engine
from nanochat.evals import maj_at_k, pass_at_k, sample_curve


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(right, data):
    k = data.draw(st.integers(1, len(right)))
    subsets = list(combinations(right, k))
    assert pass_at_k(len(right), sum(right), k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=8), st.data())
def test_maj_at_k_is_the_share_of_subsets_won(answers, data):
    k = data.draw(st.integers(1, len(answers)))

    def won(subset):
        votes = Counter(answer for answer in subset if answer is not None)
        best = [answer for answer, count in votes.items() if count == max(votes.values())]
        return ("a" in best) / max(1, len(best))

    subsets = list(combinations(answers, k))
    assert maj_at_k(answers, "a", k) == pytest.approx(sum(map(won, subsets)) / len(subsets))


def test_one_sample_is_plain_accuracy():
    assert pass_at_k(16, 4, 1) == 0.25
    assert maj_at_k(["7"] * 4 + ["9"] * 12, "7", 1) == pytest.approx(0.25)


def test_out_of_range_is_refused():
    for call in (lambda: pass_at_k(4, 5, 1), lambda: pass_at_k(4, 1, 5), lambda: pass_at_k(4, 1, 0), lambda: maj_at_k(["a"], "a", 2)):
        with pytest.raises(ValueError):
            call()


def test_the_curve_of_a_coin():
    """A model that says "yes" or "no" at even odds, asked four questions whose answer is "yes"."""
    quiz = Quiz([("q1?", "yes"), ("q2?", "yes"), ("q3?", "yes"), ("q4?", "yes")])
    tokenizer = ByteTokenizer()
    texts = [[*tokenizer.render_for_completion(quiz.prompt(i)), *tokenizer.encode(word), tokenizer.special["<|assistant_end|>"]]
             for i in range(4) for word in ("yes", "no")]
    curve = sample_curve(Engine(Scripted(knows(texts)), tokenizer), quiz, num_samples=12, seed=1)
    assert list(curve["pass"]) == [1, 2, 4, 8, 12] and curve["n"] == 4
    assert 0.3 < curve["pass"][1] < 0.7 and curve["pass"][1] == pytest.approx(curve["maj"][1])
    assert curve["pass"][8] > 0.95 and list(curve["pass"].values()) == sorted(curve["pass"].values())
