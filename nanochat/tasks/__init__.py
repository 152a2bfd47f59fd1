"""Tasks behind one interface, by name:

    load_task("mmlu", "test")                                       real data, through the hub or its mirror
    load_task("smoltalk", "train", stop=10_000)                     the first ten thousand of a fixed random order
    load_task("toy-qa", "train", world_folder="runs/toy/data")      the toy world's
"""

import inspect
from functools import partial
from pathlib import Path

from nanochat.data.mixture import Mixture
from nanochat.runtime import UserError
from nanochat.tasks import toy
from nanochat.tasks.identity import Identity
from nanochat.tasks.real import ARC, GSM8K, MMLU, HumanEval, SmolTalk
from nanochat.tasks.spelling import Spelling, SpellingBee
from nanochat.tasks.task import Task, final_text, finished, parts_of, split_calls, tool_results

__all__ = ["Mixture", "Task", "final_text", "finished", "load_task", "parts_of", "split_calls", "task_names",
           "tool_results"]

REAL = {
    "smoltalk": SmolTalk,
    "mmlu": MMLU,
    "arc-easy": partial(ARC, "ARC-Easy"),
    "arc-challenge": partial(ARC, "ARC-Challenge"),
    "gsm8k": GSM8K,
    "humaneval": HumanEval,
    "spelling": Spelling,
    "spelling-bee": SpellingBee,
    "identity": Identity,
}


def task_names() -> list[str]:
    return [*REAL, *toy.NAMES]


def load_task(name: str, split: str = "train", *, world_folder: str | Path | None = None, **options) -> Task:
    """The task `name`, split "train" or "test" (MMLU and ARC have more).

    Options: start, stop (hub data sets), size (spelling), path (identity). Raises UserError for an unknown name, split
    or option, and where the data cannot be had.
    """
    if name in toy.NAMES:
        if world_folder is None:
            raise UserError(f"{name} belongs to the toy world: say where it is with world_folder=…")
        make = partial(toy.load, name, folder=world_folder)
    elif name in REAL:
        make = REAL[name]
    else:
        raise UserError(f"unknown task {name!r}; there are {', '.join(task_names())}")
    known = inspect.signature(make).parameters
    if unknown := [option for option in options if option not in known or option == "folder"]:
        raise UserError(f"the task {name} has no option {', '.join(unknown)}")
    return make(split=split, **options)
