"""Questions in training text: what is there is found, what is not is not, against a plain search."""

import random
from itertools import pairwise

import numpy as np
import pytest

from nanochat.evals import contamination
from nanochat.evals.contamination import WORD, Exams, question, texts_of

WORDS = [f"w{i}" for i in range(60)]


def slow_search(questions, texts):
    """What `Exams.search` should say, from the definition."""
    def words(text):
        return WORD.findall(text.lower())

    def grams(text, n):
        return {tuple(text[i:i + n]) for i in range(len(text) - n + 1)}

    texts = [words(text) for text in texts]
    exact, overlap = [], []
    for text in map(words, questions):
        n = min(13, len(text))
        exact.append(text in texts)
        overlap.append(exact[-1] or (n >= 4 and any(grams(text, n) & grams(other, n) for other in texts)))
    return exact, overlap


@pytest.mark.parametrize("at_once", [1, 50, 1 << 18])
def test_it_finds_what_a_plain_search_finds(monkeypatch, at_once):
    monkeypatch.setattr(contamination, "AT_ONCE", at_once)
    rng = random.Random(at_once)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(0, 80))) for _ in range(60)]
    questions = [" ".join(rng.choices(WORDS, k=k)) for k in range(40)]
    for text in texts:                                 # pieces of the texts, some changed, some in other dress
        pieces = text.split()
        at, k = rng.randrange(len(pieces) + 1), rng.randrange(30)
        questions += [" ".join(pieces[at:at + k]), text.upper() + "?", " ".join([*pieces[at:at + 12], "other", *pieces[at + 13:at + 24]])]
    # the last words of a text and the first ones of the next are not in a row
    questions += [" ".join((a.split() + b.split())[len(a.split()) - 6:][:13]) for a, b in pairwise(texts)]
    found = Exams({"a": questions[:30], "b": questions[30:]}).search(iter(texts))
    exact, overlap = slow_search(questions, texts)
    assert np.concatenate([found["a"].exact, found["b"].exact]).tolist() == exact
    assert np.concatenate([found["a"].overlap, found["b"].overlap]).tolist() == overlap
    assert 30 < sum(exact) < sum(overlap) < len(questions) - 30


def test_a_question_is_told_from_its_frame():
    choices = {"messages": [{"role": "user", "content": "Multiple Choice question: Is x=1?\n- yes=A\n- x=2=B\n\nAnswer with the letter only."},
                            {"role": "assistant", "content": "A"}], "letters": ["A", "B"]}
    assert question(choices) == "Is x=1?\nyes\nx=2" and texts_of(choices) == [question(choices)]
    called = [{"type": "text", "text": "It is "}, {"type": "python", "text": "6*7"}, {"type": "python_output", "text": "42"}]
    chat = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "6*7?"}, {"role": "assistant", "content": called}]}
    assert question(chat) == "6*7?" and texts_of(chat) == ["6*7?", "Be brief.", "6*7?", "It is "]
    assert question({"text": "Ann lives in"}) == "Ann lives in"
