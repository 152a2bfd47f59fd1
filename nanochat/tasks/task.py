"""What every task is: a numbered list of items, a prompt for each, and a way to tell a right answer.

An item is a conversation {"messages": [{"role", "content"}, …]} (kind "chat") or a text {"text": …} (kind "text").
Assistant content is a string or a list of parts {"type": "text" | "python" | "python_output", "text"}: words, a call,
its result.

    task = load_task("gsm8k", "test")
    task[0]                         # the whole conversation, to train on
    task.prompt(0)                  # without the answer, to be completed
    task.check(task[0], completion) # is it right?

A completion is the text a model wrote, or an object with `.parts` (as above) and `.finish_reason`: only such an object
can show that a tool was used. Both work everywhere; a plain string counts as words without a call, ended by the model.
"""

import re
from collections.abc import Callable

from nanochat.runtime import UserError


class Task:
    """name; kind: "chat" or "text"; eval_type: how it is scored, None when it is for training only:
    "generative" (check the completion), "categorical" (compare the letters' logits), "code" (run the program).
    baseline: the accuracy of guessing. max_tokens: how many new tokens an answer needs at most.
    """

    name = ""
    kind = "chat"
    eval_type: str | None = None
    baseline = 0.0
    max_tokens = 512

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, i: int) -> dict:
        raise NotImplementedError

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def prompt(self, i: int) -> dict:
        """Item i as a prompt: a conversation that ends with the user, or {"text": …} to be continued."""
        item = self[i]
        if self.kind == "text":
            return {"text": item["text"]}
        return {"messages": item["messages"][:-1]}

    def check(self, item: dict, completion) -> bool:
        """Whether the completion answers the item rightly."""
        raise NotImplementedError(f"{self.name} has no right answers to check")

    flexible: Callable[[dict, object], bool] | None = None      # a kinder rule than `check`, where there is one: it is
                                                                # reported beside the accuracy and never in its place

    def reward(self, item: dict, completion) -> float:
        """What reinforcement learning gets for it: 1 for right, 0 for wrong."""
        return float(self.check(item, completion))

    def letters(self, item: dict) -> list[str]:
        """Categorical tasks: the letters to choose from."""
        raise NotImplementedError(f"{self.name} is not a multiple-choice task")

    def submission(self, item: dict, completion) -> dict:
        """Code tasks: {"answer", "functions", "setup", "tests"}, what `nanochat.sandbox.run_tests` takes: the answer as
        a program, the functions the tests call, what the tests need beside them, and the tests."""
        raise NotImplementedError(f"{self.name} is not a programming task")


class ListTask(Task):
    """A task whose items are in a list."""

    def __init__(self, items: list[dict]):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> dict:
        return self.items[i]


def parts_of(content) -> list[dict]:
    """The parts of a message's content, a completion object, or a plain string."""
    content = getattr(content, "parts", content)
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def final_text(content) -> str:
    """The words after the last tool result (all words where no tool was used)."""
    words = ""
    for part in parts_of(content):
        words = "" if part["type"] == "python_output" else words + part["text"] * (part["type"] == "text")
    return words


def whole_text(content) -> str:
    """All words, calls and results left out."""
    return "".join(part["text"] for part in parts_of(content) if part["type"] == "text")


def tool_results(content) -> list[str]:
    """What the tools returned, in order."""
    return [part["text"] for part in parts_of(content) if part["type"] == "python_output"]


def finished(completion) -> bool:
    """Whether the model ended its answer itself; a plain string is taken to be complete."""
    return getattr(completion, "finish_reason", "stop") == "stop"


CALL = re.compile(r"<<([^<>]*)>>")


def split_calls(text: str) -> str | list[dict]:
    """Text with GSM8K's calculator notes as parts; text without any stays a string.

    >>> split_calls("2*3 is <<2*3=6>>6.")      # split at the last '='
    [{'type': 'text', 'text': '2*3 is '}, {'type': 'python', 'text': '2*3'},
     {'type': 'python_output', 'text': '6'}, {'type': 'text', 'text': '6.'}]
    """
    if not CALL.search(text):
        return text
    parts = []
    for i, piece in enumerate(CALL.split(text)):
        if i % 2 == 0:
            parts += [{"type": "text", "text": piece}] if piece else []
        else:
            call, _, result = piece.rpartition("=")
            parts += [{"type": "python", "text": call}, {"type": "python_output", "text": result}]
    return parts


def check_alternation(messages: list[dict], where: str) -> None:
    """Raise UserError unless roles go [system,] user, assistant, user, assistant …, at least one exchange."""
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if len(turns) < 2 or turns != ["user" if i % 2 == 0 else "assistant" for i in range(len(turns))]:
        raise UserError(f"{where}: roles must alternate user, assistant; found {', '.join(roles) or 'no messages'}")
