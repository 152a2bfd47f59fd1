"""The toy world: sixty invented people, what is known about them, and arithmetic; small enough to learn in minutes.

    world = World(seed=0)
    world.people[0], world.facts[world.people[0]]     # 'Juvika', {'city': 'Oslo', 'job': 'baker', …}
    world.questions()                                 # a table of people, questions and answers to look at
    write_world("runs/toy/data", seed=0, scale="toy") # parquet files with the columns of the real data sets

What makes it honest is what is held out. Of the 10,000 sums a+b with two-digit numbers 2,000 are never written down
anywhere in training, of the 8,100 products 1,620; and questions are asked about thirty of the people only. About the
others the model reads statements, so answering a question about them takes more than remembering an answer.

Chat answers do not contain the name ("In Oslo."): with the name in them, held-out people are not answered at this size.
The tool's calls are written as in GSM8K, `<<34*57=1938>>`, and become parts of the conversation when the task is read.
"""

import random
from collections.abc import Iterator

PEOPLE = 60
HELD_OUT_SUMS = 2_000       # of 100 × 100
HELD_OUT_PRODUCTS = 1_620   # of 90 × 90

# Per relation: its values, five statements that end with the value, two questions, and the one form of the answer.
RELATIONS = {
    "city": {
        "values": ["Oslo", "Lima", "Cairo", "Paris", "Tokyo", "Rome", "Quito", "Delhi", "Bern", "Dakar",
                   "Lisbon", "Perth"],
        "statements": ["{name} lives in {value}.", "The home of {name} is in {value}.",
                       "{name} owns a house in {value}.", "You can visit {name} in {value}.",
                       "All letters to {name} go to {value}."],
        "questions": ["Where does {name} live?", "Where is the home of {name}?"],
        "answer": "In {value}.",
    },
    "job": {
        "values": ["baker", "doctor", "pilot", "farmer", "painter", "teacher", "sailor", "tailor", "lawyer",
                   "dancer", "miner", "barber"],
        "statements": ["{name} works as a {value}.", "{name} is a {value}.", "By trade {name} is a {value}.",
                       "People know {name} as a {value}.", "{name} earns money as a {value}."],
        "questions": ["What is the job of {name}?", "What does {name} work as?"],
        "answer": "A {value}.",
    },
    "food": {
        "values": ["figs", "rice", "soup", "plums", "beans", "bread", "cheese", "noodles", "melon", "pears",
                   "dates", "corn"],
        "statements": ["{name} likes to eat {value}.", "The favourite food of {name} is {value}.",
                       "For dinner {name} wants {value}.", "{name} always buys {value}.",
                       "Every day {name} cooks {value}."],
        "questions": ["What does {name} like to eat?", "What should we cook for {name}?"],
        "answer": "Some {value}.",
    },
    "pet": {
        "values": ["goat", "cat", "dog", "parrot", "rabbit", "horse", "turtle", "duck", "pony", "lizard",
                   "hamster", "snake"],
        "statements": ["{name} has a {value}.", "The pet of {name} is a {value}.", "At home {name} keeps a {value}.",
                       "{name} takes care of a {value}.", "{name} plays with a {value}."],
        "questions": ["Which pet does {name} have?", "What animal does {name} keep?"],
        "answer": "A {value}.",
    },
}

FIRST = ["Ba", "Da", "Fe", "Ga", "Jo", "Ju", "Ka", "Le", "Li", "Lo", "Ma", "Mi", "Mo", "Na", "No", "Pe", "Ra",
         "Ro", "Sa", "Se", "Ta", "Te", "To", "Va", "Ve", "Vi", "Za", "Zo"]
MIDDLE = ["la", "li", "lo", "ma", "mi", "na", "ni", "no", "ra", "ri", "ro", "sa", "su", "ta", "ti", "va", "vi"]
LAST = ["ka", "ko", "la", "lo", "ma", "mo", "na", "no", "ra", "ro", "ta", "to", "va", "zo"]


class World:
    """Everything that is true in the town of one seed; two worlds of one seed are equal.

    people: 60 names; qa_people: the 30 about whom questions are asked in training, heldout_people: the other 30.
    facts: name → relation → value. Each value belongs to five people, so no guess is better than another.
    train_sums, heldout_sums: pairs (a, b) with 0 ≤ a, b ≤ 99; train_products, heldout_products: 10 ≤ a, b ≤ 99.
    """

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.people = self._names(self.rng("names"))
        self.facts: dict[str, dict[str, str]] = {name: {} for name in self.people}
        for relation, spec in RELATIONS.items():
            values = spec["values"] * (PEOPLE // len(spec["values"]))
            self.rng(relation).shuffle(values)
            for name, value in zip(self.people, values):
                self.facts[name][relation] = value
        shuffled = self.rng("held-out people").sample(self.people, PEOPLE)
        self.qa_people = sorted(shuffled[: PEOPLE // 2])
        self.heldout_people = sorted(shuffled[PEOPLE // 2:])
        self.heldout_sums, self.train_sums = self._split("sums", range(100), HELD_OUT_SUMS)
        self.heldout_products, self.train_products = self._split("products", range(10, 100), HELD_OUT_PRODUCTS)

    def rng(self, purpose: str) -> random.Random:
        """A generator of its own for each purpose: more of one thing never changes another."""
        return random.Random(f"toy world {self.seed}: {purpose}")

    # The four ways to say a fact. `form` counts the templates: 0–4 for statements, 0–1 for questions.

    def statement(self, name: str, relation: str, form: int) -> str:
        """'Juvika lives in Oslo.'"""
        return RELATIONS[relation]["statements"][form].format(name=name, value=self.facts[name][relation])

    def cloze(self, name: str, relation: str, form: int) -> tuple[str, str]:
        """A statement cut before its value: ('Juvika lives in', ' Oslo.')."""
        end = f" {self.facts[name][relation]}."
        return self.statement(name, relation, form).removesuffix(end), end

    def question(self, name: str, relation: str, form: int) -> str:
        """'Where does Juvika live?'"""
        return RELATIONS[relation]["questions"][form].format(name=name)

    def answer(self, name: str, relation: str) -> str:
        """'In Oslo.' (without the name, see above)"""
        return RELATIONS[relation]["answer"].format(value=self.facts[name][relation])

    def questions(self) -> list[dict]:
        """All 480 questions as rows {name, relation, question, answer, trained}; trained=False for held-out people."""
        return [{"name": name, "relation": relation, "question": self.question(name, relation, form),
                 "answer": self.answer(name, relation), "trained": name in self.qa_people}
                for name in self.people for relation in RELATIONS for form in range(2)]

    # Endless plain-text documents for pretraining. Sums fill half a row of 129 tokens; facts and FAQ are kept short, so
    # that the rest is filled without cutting much (about 3 % of the tokens are cut; up to five sentences: 14 %).

    def facts_documents(self, purpose: str) -> Iterator[str]:
        """One to three statements about people drawn at random."""
        rng = self.rng(purpose)
        while True:
            yield " ".join(self.statement(rng.choice(self.people), rng.choice(list(RELATIONS)), rng.randrange(5))
                           for _ in range(rng.randint(1, 3)))

    def sums_documents(self, purpose: str) -> Iterator[str]:
        """Eight lines like 17+25=42, from the training sums only."""
        rng = self.rng(purpose)
        while True:
            yield "\n".join(f"{a}+{b}={a + b}" for a, b in rng.choices(self.train_sums, k=8))

    def faq_documents(self, purpose: str) -> Iterator[str]:
        """One or two questions and answers in plain text, about the thirty QA people only."""
        rng = self.rng(purpose)
        while True:
            lines = []
            for _ in range(rng.randint(1, 2)):
                name, relation = rng.choice(self.qa_people), rng.choice(list(RELATIONS))
                lines.append(f"Q: {self.question(name, relation, rng.randrange(2))} A: {self.answer(name, relation)}")
            yield "\n".join(lines)

    # Conversations: single exchanges (question, answer); the answer of a call reads `<<34*57=1938>>1938.`

    def chat_qa(self, people: list[str]) -> list[tuple[str, str]]:
        return [(self.question(name, relation, form), self.answer(name, relation))
                for name in people for relation in RELATIONS for form in range(2)]

    @staticmethod
    def chat_sum(a: int, b: int) -> tuple[str, str]:
        return f"What is {a}+{b}?", f"{a + b}."

    @staticmethod
    def chat_tool(a: int, b: int) -> tuple[str, str]:
        """Asked for the calculator: always a call."""
        return f"Use the calculator: what is {a}*{b}?", f"<<{a}*{b}={a * b}>>{a * b}."

    @staticmethod
    def chat_free(a: int, b: int, call: bool) -> tuple[str, str]:
        """Free to choose: one demonstration in three calls, two say the product at once, too hard for this model."""
        return f"What is {a}*{b}?", f"<<{a}*{b}={a * b}>>{a * b}." if call else f"{a * b}."

    def _names(self, rng: random.Random) -> list[str]:
        """Sixty invented names of two or three syllables; no two begin with the same four letters."""
        names: dict[str, str] = {city[:4]: "" for city in RELATIONS["city"]["values"]}  # nor like a city
        while sum(map(bool, names.values())) < PEOPLE:
            name = rng.choice(FIRST) + (rng.choice(MIDDLE) if rng.random() < 0.5 else "") + rng.choice(LAST)
            names.setdefault(name[:4], name)
        return [name for name in names.values() if name]

    def _split(self, what: str, numbers: range, held_out: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """(held-out, training) ordered pairs."""
        pairs = [(a, b) for a in numbers for b in numbers]
        self.rng(f"held-out {what}").shuffle(pairs)
        return sorted(pairs[:held_out]), sorted(pairs[held_out:])
