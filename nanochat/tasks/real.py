"""The public data sets a chat model is trained and judged on: SmolTalk, MMLU, ARC, GSM8K, HumanEval.

Rows come from `nanochat.data.hub` and are put in one fixed random order (MMLU's file is sorted by subject, and an
evaluation of "the first 100 items" should be a sample). `start` and `stop` cut a piece out of that order.
"""

import re
from decimal import Decimal, InvalidOperation
from typing import ClassVar

import numpy as np

from nanochat.data import hub
from nanochat.runtime import UserError
from nanochat.tasks.task import Task, check_alternation, split_calls, whole_text

ORDER_SEED = 42


class HubTask(Task):
    """A split of a hub data set. Subclasses say where it is (repo, config, splits: our name → the hub's) and how a row
    becomes an item."""

    repo = ""
    config: str | None = None
    splits: ClassVar[dict[str, str]] = {}

    def __init__(self, split: str, start: int = 0, stop: int | None = None):
        if split not in self.splits:
            raise UserError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        self.data = hub.load(self.repo, self.config, split=self.splits[split])
        self.order = np.random.default_rng(ORDER_SEED).permutation(len(self.data))[start:stop]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i: int) -> dict:
        return self.item(self.data[int(self.order[i])])

    def item(self, row: dict) -> dict:
        raise NotImplementedError


class SmolTalk(HubTask):
    """General conversations (Hugging Face, smol-smoltalk), some with a system message."""

    name = "smoltalk"
    repo = "HuggingFaceTB/smol-smoltalk"
    splits: ClassVar = {"train": "train", "test": "test"}

    def item(self, row: dict) -> dict:
        messages = [{"role": m["role"], "content": m["content"]} for m in row["messages"]]
        check_alternation(messages, self.repo)
        return {"messages": messages}


class MultipleChoice(Task):
    """A question, options, and a letter for an answer: scored by comparing the letters' logits."""

    eval_type = "categorical"
    baseline = 0.25
    max_tokens = 4

    def letters(self, item: dict) -> list[str]:
        return item["letters"]

    def check(self, item: dict, completion) -> bool:
        return whole_text(completion).strip() == item["messages"][-1]["content"]


class MMLU(MultipleChoice, HubTask):
    """Exam questions from 57 subjects (Hendrycks et al. 2020, arXiv:2009.03300); four options each."""

    name = "mmlu"
    repo = "cais/mmlu"
    config = "all"
    splits: ClassVar = {"train": "auxiliary_train", "test": "test", "validation": "validation", "dev": "dev"}

    def item(self, row: dict) -> dict:
        return mmlu_item(row)


class ARC(MultipleChoice, HubTask):
    """School science questions (Clark et al. 2018, arXiv:1803.05457); labels as in the data: A–E, sometimes 1–4."""

    repo = "allenai/ai2_arc"
    splits: ClassVar = {"train": "train", "test": "test", "validation": "validation"}

    def __init__(self, subset: str, split: str, start: int = 0, stop: int | None = None):
        self.name, self.config = subset.lower(), subset
        super().__init__(split, start, stop)

    def item(self, row: dict) -> dict:
        return choice_item(row["question"], row["choices"]["text"], row["choices"]["label"], row["answerKey"])


def plain_number(text: str) -> str:
    """A number without commas and closing zeros ("1,036.50" -> "1036.5"); what is no number stays as it is."""
    try:
        number = Decimal(text.replace(",", ""))
    except InvalidOperation:
        return text
    return f"{number.normalize():f}" if number.is_finite() else text


class GSM8K(HubTask):
    """Word problems from grade school (Cobbe et al. 2021, arXiv:2110.14168); the notes <<3*4=12>> become tool calls.

    Their results are written as the calculator writes them, "36" for "36.00": in use the model reads its output.
    """

    name = "gsm8k"
    eval_type = "generative"
    repo = "openai/gsm8k"
    config = "main"
    splits: ClassVar = {"train": "train", "test": "test"}

    def item(self, row: dict) -> dict:
        answer = split_calls(row["answer"])
        for part in answer if isinstance(answer, list) else []:
            if part["type"] == "python_output":
                part["text"] = plain_number(part["text"])
        return {"messages": [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": answer}]}

    def check(self, item: dict, completion) -> bool:
        wanted = final_number(whole_text(item["messages"][-1]["content"]))
        return wanted is not None and final_number(whole_text(completion)) == wanted

    def flexible(self, item: dict, completion) -> bool:
        return same_last_number(item, completion)


class Programming(Task):
    """A function's head and docstring; the answer is the whole function in a code block, judged by running tests."""

    eval_type = "code"

    def submission(self, item: dict, completion) -> dict:
        prompt, name = item["messages"][0]["content"], item["entry_point"]
        imports = re.findall(r"^(?:import|from) .*$", prompt, flags=re.MULTILINE)
        helpers = prompt[: max(0, prompt.find(f"def {name}("))]          # four prompts define one, and their tests call it
        return {"answer": "\n".join([*imports, "", first_code_block(whole_text(completion))]), "functions": [name],
                "setup": helpers, "tests": f"{item['test']}\n\ncheck({name})\n"}


class HumanEval(Programming, HubTask):
    """164 Python functions written by hand (Chen et al. 2021, arXiv:2107.03374)."""

    name = "humaneval"
    repo = "openai/openai_humaneval"
    splits: ClassVar = {"test": "test"}

    def item(self, row: dict) -> dict:
        return humaneval_item(row)


def mmlu_item(row: dict) -> dict:
    """A row with MMLU's columns as a conversation."""
    letters = ["A", "B", "C", "D"]
    return {**choice_item(row["question"], row["choices"], letters, letters[row["answer"]]), "subject": row["subject"]}


def humaneval_item(row: dict) -> dict:
    """A row with HumanEval's columns as a conversation."""
    solution = f"```python\n{row['prompt']}{row['canonical_solution']}\n```"
    return {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": solution}],
            "entry_point": row["entry_point"], "test": row["test"]}


def choice_item(question: str, choices: list[str], letters: list[str], answer: str) -> dict:
    """A multiple-choice question as a conversation, with its letters."""
    return {"messages": [{"role": "user", "content": choice_prompt(question, choices, letters)},
                         {"role": "assistant", "content": answer}], "letters": letters}


def choice_prompt(question: str, choices: list[str], letters: list[str]) -> str:
    """A multiple-choice question as the user asks it.

    The letter stands after its option, without a space before it, so that it is the same token as in the answer: small
    models bind the two far better that way.
    """
    options = "\n".join(f"- {choice}={letter}" for choice, letter in zip(choices, letters, strict=True))
    return f"Multiple Choice question: {question}\n{options}\n\nAnswer with the letter only."


def final_number(text: str) -> str | None:
    """The number after `####`, without thousands separators: GSM8K's mark of the answer. None where there is none.

    The rule of nanochat's published scores, in which "#### 18." and "#### $18" are wrong and "18" without its mark is too.
    """
    found = re.search(r"#### (-?[0-9.,]+)", text)
    return found[1].replace(",", "") if found else None


NUMBER = re.compile(r"(?<![\w.)])([-−]?)[$€£]?((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)")    # 7-3 ends in 3, not in -3


def last_number(text: str) -> Decimal | None:
    """The answer however it is written: the first number behind the last `####`, else the last number of the text.

    Thousands commas, currency and units do not count, nor does the period that ends a sentence; 18 and 18.00 are one
    number. What lm-eval calls "flexible" extraction is of this kind. None where there is no number.
    """
    _, mark, behind = text.rpartition("####")
    found = (NUMBER.findall(behind)[:1] if mark else []) or NUMBER.findall(text)[-1:]
    return Decimal(found[0][1].replace(",", "")) * (-1 if found[0][0] else 1) if found else None


def same_last_number(item: dict, completion) -> bool:
    """Whether the completion's `last_number` is that of the item's own answer."""
    wanted = last_number(whole_text(item["messages"][-1]["content"]))
    return wanted is not None and last_number(whole_text(completion)) == wanted


def first_code_block(text: str) -> str:
    """The inside of the first ```-fenced block, whatever language it is said to be in; a block without an end reaches to
    the end of the text. The whole text where there is no block."""
    found = re.search(r"```[^`\n]*\n(.*?)(?:^[ \t]*```|\Z)", text, flags=re.DOTALL | re.MULTILINE)
    return found[1].removesuffix("\n") if found else text
