"""Spelling: what a model that reads tokens instead of letters has to be taught.

    spelling        "Spell the word: apple"            → "apple:a,p,p,l,e"
    spelling-bee    "How many p are in apple?"         → counts by hand, checks with a Python call, ends in #### 2

Both make their items from a list of English words; item i is always the same, and test words are never trained on.
"""

import random
import zipfile
from functools import lru_cache

from nanochat.data import hub
from nanochat.runtime import UserError
from nanochat.tasks.real import final_number, same_last_number
from nanochat.tasks.task import Task, whole_text

TEST_WORDS = 5_000  # the rest of the list, about 365,000 words, is for training

QUESTIONS = [
    "How many {letter} are in {word}?", "How many {letter} are there in {word}?",
    "How many {letter}s are in the word {word}?", "How often does {letter} occur in {word}?",
    "Count the {letter} in {word}.", "Count the letter {letter} in the word {word}.",
    "What is the number of {letter} in {word}?", "In the word {word}, how many {letter} do you see?",
    "How many times is {letter} in {word}?", "Tell me how many {letter} {word} has.", "Number of {letter} in {word}?",
    "Wie viele {letter} sind in {word}?", "Combien de {letter} dans {word} ?", "¿Cuántas {letter} hay en {word}?",
    "Quante {letter} ci sono in {word}?", "Hoeveel {letter} zitten er in {word}?",
]


@lru_cache(maxsize=1)
def words() -> tuple[list[str], list[str]]:
    """(training words, test words), shuffled; from dwyl/english-words."""
    path = hub.extra("words_alpha.zip")
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.read("words_alpha.txt").decode().split()
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not the word list it should be ({error}); delete it and fetch it again") from None
    random.Random("spelling").shuffle(found)
    if len(found) <= 2 * TEST_WORDS:
        raise UserError(f"{path} holds {len(found)} words, too few to set {TEST_WORDS} aside for testing")
    return found[TEST_WORDS:], found[:TEST_WORDS]


class Spelling(Task):
    """The plain drill: one fixed request, the word and its letters."""

    name = "spelling"
    eval_type = "generative"
    max_tokens = 128

    def __init__(self, split: str, size: int | None = None):
        self.split, self.words = split, _words_of(self.name, split)
        self.size = size or (200_000 if split == "train" else 256)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> dict:
        if not 0 <= i < self.size:
            raise IndexError(i)
        word = random.Random(f"{self.name} {self.split} {i}").choice(self.words)
        return {"messages": [{"role": "user", "content": f"Spell the word: {word}"},
                             {"role": "assistant", "content": f"{word}:{','.join(word)}"}]}

    def check(self, item: dict, completion) -> bool:
        return whole_text(completion).strip() == item["messages"][-1]["content"]


class SpellingBee(Task):
    """How many of a letter are in a word: spelled and counted in words, then counted again by Python."""

    name = "spelling-bee"
    eval_type = "generative"
    max_tokens = 256

    def __init__(self, split: str, size: int | None = None):
        self.split, self.words = split, _words_of(self.name, split)
        self.size = size or (80_000 if split == "train" else 256)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> dict:
        if not 0 <= i < self.size:
            raise IndexError(i)
        rng = random.Random(f"{self.name} {self.split} {i}")
        word = rng.choice(self.words)
        letter = rng.choice(word) if rng.random() < 0.9 else rng.choice("abcdefghijklmnopqrstuvwxyz")
        quote = rng.choice(["", "'", '"'])
        question = rng.choice(QUESTIONS).format(letter=f"{quote}{letter}{quote}", word=f"{quote}{word}{quote}")
        if rng.random() < 0.3:
            question = question.lower()
        if rng.random() < 0.5:
            question = question.rstrip(" ?.")
        return {"messages": [{"role": "user", "content": question},
                             {"role": "assistant", "content": _count(word, letter)}]}

    def check(self, item: dict, completion) -> bool:
        return final_number(whole_text(completion)) == final_number(whole_text(item["messages"][-1]["content"]))

    def flexible(self, item: dict, completion) -> bool:
        return same_last_number(item, completion)


def _count(word: str, letter: str) -> list[dict]:
    lines, seen = [f"Let me spell {word} and count {letter}.", f"{word}:{','.join(word)}"], 0
    for place, found in enumerate(word, start=1):
        seen += found == letter
        lines.append(f"{place}:{found}" + (f" yes, that is {seen}" if found == letter else ""))
    lines.append(f"By hand I count {seen}. Python says ")
    return [{"type": "text", "text": "\n".join(lines)},
            {"type": "python", "text": f"'{word}'.count('{letter}')"},
            {"type": "python_output", "text": str(seen)},
            {"type": "text", "text": f"\n\n#### {seen}"}]


def _words_of(name: str, split: str) -> list[str]:
    if split not in ("train", "test"):
        raise UserError(f"{name} has no split {split!r}; it has train and test")
    return words()[split == "test"]
