"""A CORE-like bundle about the toy world, so that `core.evaluate` has something to ask a model that is minutes old.

    folder = write_toy_bundle(run / "data" / "core", World(seed=0))
    evaluate(model, tokenizer, folder)["core"]

The files are those of the real bundle (see `core`), the tasks of the same three kinds, short enough for 128 tokens. Sums are
held-out ones, questions are about people whose questions are never trained on, and each right option is equally often first,
second, … so a model that cannot tell the options apart scores chance.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

from nanochat.data import World
from nanochat.data.toyworld import RELATIONS
from nanochat.runtime import atomic_write

# label → (kind, examples shown, delimiter, chance in percent)
TASKS = {
    "town_facts": ("language_modeling", 0, " ", 0),
    "town_facts_3shot": ("language_modeling", 3, " ", 0),
    "town_choice": ("multiple_choice", 0, " ", 25),
    "town_choice_3shot": ("multiple_choice", 3, " ", 25),
    "town_who": ("schema", 0, " ", 50),
    "town_questions": ("multiple_choice", 0, " ", 25),
    "sums": ("language_modeling", 0, "", 0),
    "sums_2shot": ("language_modeling", 2, "", 0),
    "sums_choice": ("multiple_choice", 0, "", 25),
}


def write_toy_bundle(folder: str | Path, world: World, items: int = 120) -> Path:
    """Write the bundle, `items` items a task, and return its folder. Equal worlds get equal bundles, byte by byte."""
    folder = Path(folder)
    for label in TASKS:
        rows = list(_items(world, label.removesuffix("_3shot").removesuffix("_2shot"), items))
        atomic_write(folder / "eval_data" / f"{label}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    table = "".join(f"{label},{chance}\n" for label, (_, _, _, chance) in TASKS.items())
    atomic_write(folder / "eval_meta_data.csv", "Eval Task,Random baseline\n" + table)
    entries = [{"label": label, "dataset_uri": f"{label}.jsonl", "num_fewshot": [shots], "icl_task_type": kind,
                "continuation_delimiter": delimiter} for label, (kind, shots, delimiter, _) in TASKS.items()]
    atomic_write(folder / "core.yaml", yaml.safe_dump({"icl_tasks": entries}, sort_keys=False))
    return folder


def _items(world: World, label: str, count: int) -> Iterator[dict]:
    """The items of one task; item i has its right option at place i modulo the number of options."""
    rng = world.rng(f"core bundle: {label}")

    def options(right, wrong: list, places: int, i: int) -> dict:
        chosen = rng.sample(wrong, places - 1)
        chosen.insert(i % places, right)
        return {"choices": chosen, "gold": i % places}

    for i in range(count):
        relation = rng.choice(list(RELATIONS))
        name = rng.choice(world.people)
        form = rng.choice([form for form in range(5) if _has_one_ending(world, name, relation, form)])
        value = world.facts[name][relation]
        others = [v for v in RELATIONS[relation]["values"] if v != value]
        statement = world.cloze(name, relation, form)[0]
        if label == "town_facts":
            yield {"context": statement, "continuation": f"{value}."}
        elif label == "town_choice":
            yield {"query": statement, **options(f"{value}.", [f"{v}." for v in others], 4, i)}
        elif label == "town_who":
            someone = rng.choice([p for p in world.people if world.facts[p][relation] != value])
            two = [world.cloze(someone, relation, form)[0]]
            two.insert(i % 2, statement)
            yield {"context_options": two, "continuation": f"{value}.", "gold": i % 2}
        elif label == "town_questions":
            name = rng.choice(world.heldout_people)
            right = world.answer(name, relation)
            wrong = [RELATIONS[relation]["answer"].format(value=v) for v in RELATIONS[relation]["values"]]
            wrong.remove(right)
            yield {"query": f"Q: {world.question(name, relation, rng.randrange(2))} A:", **options(right, wrong, 4, i)}
        else:
            a, b = rng.choice(world.heldout_sums)
            if label == "sums":
                yield {"context": f"{a}+{b}=", "continuation": str(a + b)}
            else:                                    # near misses with as many digits as the right result
                near = [r for r in range(a + b - 12, a + b + 13) if r >= 0 and r != a + b and len(str(r)) == len(str(a + b))]
                yield {"query": f"{a}+{b}=", **options(str(a + b), [str(r) for r in near], 4, i)}


def _has_one_ending(world: World, name: str, relation: str, form: int) -> bool:
    """Whether no other statement about the person begins the same way, as "… has a" could go on with a pet or a house."""
    start = world.cloze(name, relation, form)[0] + " "
    return sum(world.statement(name, r, f).startswith(start) for r in RELATIONS for f in range(5)) == 1
