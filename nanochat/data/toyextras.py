"""More to do in the toy world: multiple choice, letter counting, word problems, small Python functions, longer chats.

Each generator yields the rows of one task with the columns of its real counterpart, and keeps the world's rules: what
is asked in training is about the QA people, the training sums and the training products. Choices and letters are not
learned by a model this small; they are here to show just that, with chance beside them.
"""

from collections.abc import Iterator

from nanochat.data.toyworld import RELATIONS, World

PROBLEMS = 4_000  # word problems to train on
CHATS = 2_000     # longer chats to train on
TESTS = 300       # items of each kind held out

THINGS = ["keys", "coins", "shells", "stamps", "books", "nuts", "pens", "eggs"]
GAINS = ["finds", "buys", "gets", "picks up"]
ASIDES = ["", "", "The shop has {n} {other}. ", "A friend has {n} {other}. "]  # half hold a number too many

GREETINGS = [("Hello!", "Hello! What would you like to know?"), ("Hi.", "Hi! Ask me about the town."),
             ("Good morning.", "Good morning! How can I help?"), ("Who are you?", "I am nanochat, a very small model."),
             ("What can you do?", "I know the people here and I can do sums.")]
THANKS = [("Thanks!", "You are welcome."), ("Thank you.", "You are welcome."), ("Bye.", "Goodbye!")]

# A function's name, what it does, its expression in x and the constant n, and that expression's value, for the tests.
FUNCTIONS = [
    ("add", "x plus {n}.", "x + {n}", lambda x, n: x + n),
    ("subtract", "x minus {n}.", "x - {n}", lambda x, n: x - n),
    ("times", "x times {n}.", "x * {n}", lambda x, n: x * n),
    ("mod", "x modulo {n}.", "x % {n}", lambda x, n: x % n),
    ("larger", "The larger of x and {n}.", "max(x, {n})", max),
    ("smaller", "The smaller of x and {n}.", "min(x, {n})", min),
    ("above", "Is x above {n}?", "x > {n}", lambda x, n: x > n),
    ("distance", "How far x is from {n}.", "abs(x - {n})", lambda x, n: abs(x - n)),
]


def choices(world: World, split: str) -> Iterator[dict]:
    """Questions with four options, columns as MMLU; test asks about the held-out people."""
    rng = world.rng(f"choices {split}")
    for row in world.questions():
        if row["trained"] == (split == "train"):
            value = world.facts[row["name"]][row["relation"]]
            options = rng.sample([v for v in RELATIONS[row["relation"]]["values"] if v != value], 3)
            answer = rng.randrange(4)
            options.insert(answer, value)
            yield {"question": row["question"], "subject": row["relation"], "choices": options, "answer": answer}


def letters(world: World, split: str) -> Iterator[tuple[str, str]]:
    """How many of a letter are in a word; every fifth of the pairs of word and letter is for testing."""
    words = world.qa_people + [value for spec in RELATIONS.values() for value in spec["values"]]
    pairs = [(word, letter) for word in words for letter in "aeionrst"]
    world.rng("letters").shuffle(pairs)
    for i, (word, letter) in enumerate(pairs):
        if (i % 5 == 4) == (split == "test"):
            yield f"How many {letter} are in {word}?", f"{word.lower().count(letter)}."


def problems(world: World, split: str) -> Iterator[tuple[str, str]]:
    """Sums in words, "Liso has 10 keys and finds 70. How many keys now?", half with a number that does not matter."""
    rng = world.rng(f"problems {split}")
    sums = world.train_sums if split == "train" else world.heldout_sums
    for a, b in rng.choices(sums, k=PROBLEMS if split == "train" else TESTS):
        thing, other = rng.sample(THINGS, 2)
        aside = rng.choice(ASIDES).format(n=rng.randrange(2, 100), other=other)
        story = f"{rng.choice(world.qa_people)} has {a} {thing} and {rng.choice(GAINS)} {b}. {aside}"
        yield f"{story}How many {thing} now?", f"{a + b}."


def functions(world: World, split: str) -> Iterator[dict]:
    """Python functions of one line, columns as HumanEval; every fifth pair of function and constant is for testing."""
    pairs = [(kind, n) for kind in FUNCTIONS for n in range(2, 31)]
    world.rng("functions").shuffle(pairs)
    for i, ((name, purpose, expression, value), n) in enumerate(pairs):
        if (i % 5 == 4) == (split == "test"):
            entry = f"{name}_{n}"
            tests = "\n".join(f"    assert candidate({x}) == {value(x, n)}" for x in (-3, 0, 1, n, 2 * n + 1, 100))
            yield {"task_id": f"toy/{entry}", "entry_point": entry,
                   "prompt": f'def {entry}(x):\n    """{purpose.format(n=n)}"""\n',
                   "canonical_solution": f"    return {expression.format(n=n)}",
                   "test": f"def check(candidate):\n{tests}\n"}


def chats(world: World, split: str) -> Iterator[list[tuple[str, str]]]:
    """Chats of two to four exchanges: a greeting, questions of all kinds, a thank-you."""
    rng = world.rng(f"chats {split}")
    for _ in range(CHATS if split == "train" else TESTS):
        turns = [rng.choice(GREETINGS)] if rng.random() < 0.5 else []
        for kind in rng.sample(["qa", "qa", "sum", "tool"], 2):
            if kind == "qa":
                name, relation = rng.choice(world.qa_people), rng.choice(list(RELATIONS))
                turns.append((world.question(name, relation, rng.randrange(2)), world.answer(name, relation)))
            elif kind == "sum":
                turns.append(world.chat_sum(*rng.choice(world.train_sums)))
            else:
                turns.append(world.chat_tool(*rng.choice(world.train_products)))
        yield turns + ([rng.choice(THANKS)] if rng.random() < 0.3 else [])
