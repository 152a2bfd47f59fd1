"""The toy world's tasks, read from the folder that `nanochat.data.write_world` wrote.

Training: toy-facts, toy-sums (documents, to keep what pretraining learned), toy-qa, toy-tool, toy-free, toy-chat-sums.
Tests of a base model: toy-cloze, toy-addition (text to be continued). Tests of a chat model: toy-qa-seen,
toy-qa-heldout, and split="test" of toy-tool, toy-free, toy-chat-sums. More of both: toy-choices (letters), toy-letters,
toy-problems, toy-functions (code), toy-chats (several turns, training only).

A question is answered when the words after the last tool call are exactly the reference's and the model ended there;
for toy-tool, moreover, only if a call gave the right result, so that a plain string never passes. Every baseline is
what the best constant answer gets on the very items: for facts the commonest value of each relation, for sums the
commonest result.
"""

from collections import Counter, defaultdict
from pathlib import Path

from nanochat.data import hub
from nanochat.runtime import UserError
from nanochat.tasks.real import MultipleChoice, Programming, humaneval_item, mmlu_item
from nanochat.tasks.task import ListTask, final_text, finished, split_calls, tool_results, whole_text


class ToyDocuments(ListTask):
    """Plain text to train on."""

    kind = "text"

    def __init__(self, name: str, path: Path):
        super().__init__([{"text": row["text"]} for row in hub.read_parquet(path).to_list()])
        self.name = name


class ToyCompletion(ListTask):
    """Text that a base model continues: the answer must come first, and nothing that changes it may follow.

    `Juvika lives in` → ` Oslo.`: up to the period. `17+25=` → `42`: up to the end of the line.
    """

    kind = "text"
    eval_type = "generative"
    max_tokens = 12

    def __init__(self, name: str, path: Path):
        rows = hub.read_parquet(path).to_list()
        super().__init__([{"text": row["prompt"], "answer": row["answer"]} for row in rows])
        self.name = name
        self.baseline = _best_constant([(row["relation"], row["answer"]) for row in rows])

    def check(self, item: dict, completion) -> bool:
        text, answer = whole_text(completion), item["answer"].strip()
        if answer.endswith("."):
            return text.lstrip(" ").startswith(answer)
        return text.split("\n")[0].strip() == answer


class ToyChat(ListTask):
    """One question, one exact answer; with tool=True only through a call with the right result."""

    eval_type = "generative"
    max_tokens = 24

    def __init__(self, name: str, path: Path, tool: bool = False):
        rows = hub.read_parquet(path).to_list()
        super().__init__([_conversation(row["messages"]) for row in rows])
        self.name, self.tool = name, tool
        answers = [final_text(item["messages"][-1]["content"]) for item in self.items]
        self.baseline = 0.0 if tool else _best_constant(list(zip((row["relation"] for row in rows), answers)))

    def check(self, item: dict, completion) -> bool:
        reference = item["messages"][-1]["content"]
        right = finished(completion) and final_text(completion).strip() == final_text(reference)
        return right and (not self.tool or tool_results(completion)[-1:] == tool_results(reference))


class ToyChats(ListTask):
    """Chats of several turns, for training."""

    name = "toy-chats"

    def __init__(self, path: Path):
        super().__init__([_conversation(row["messages"]) for row in hub.read_parquet(path).to_list()])


class ToyChoices(MultipleChoice, ListTask):
    """Questions about the town with four options. Not learned at toy size: expect the baseline."""

    name = "toy-choices"

    def __init__(self, path: Path):
        super().__init__([mmlu_item(row) for row in hub.read_parquet(path).to_list()])


class ToyFunctions(Programming, ListTask):
    """Python functions of one line."""

    name = "toy-functions"
    max_tokens = 100

    def __init__(self, path: Path):
        super().__init__([humaneval_item(row) for row in hub.read_parquet(path).to_list()])


def load(name: str, split: str, folder: str | Path) -> ListTask:
    """The toy task `name`; split is "train" or "test". Raises UserError for a missing world or an unknown split."""
    folder = Path(folder)
    if not (folder / "world.json").exists():
        raise UserError(f"no toy world at {folder}; make it with `nanochat data --scale toy`")
    evals = {"toy-qa-seen": "chat/qa.train", "toy-qa-heldout": "chat/qa.test"}
    if name in ("toy-facts", "toy-sums"):
        return ToyDocuments(name, folder / "replay" / f"{name.removeprefix('toy-')}.parquet")
    if name in ("toy-cloze", "toy-addition"):
        return ToyCompletion(name, folder / "eval" / f"{name.removeprefix('toy-')}.parquet")
    if name in evals:
        return ToyChat(name, folder / f"{evals[name]}.parquet")
    if split not in ("train", "test"):
        raise UserError(f"{name} has no split {split!r}; it has train and test")
    path = folder / "chat" / f"{name.removeprefix('toy-').replace('-', '_')}.{split}.parquet"
    others = {"toy-chats": ToyChats, "toy-choices": ToyChoices, "toy-functions": ToyFunctions}
    return others[name](path) if name in others else ToyChat(name, path, tool=name == "toy-tool")


NAMES = ("toy-facts", "toy-sums", "toy-qa", "toy-tool", "toy-free", "toy-chat-sums", "toy-cloze", "toy-addition",
         "toy-qa-seen", "toy-qa-heldout", "toy-choices", "toy-letters", "toy-problems", "toy-functions", "toy-chats")


def _conversation(messages: list[dict]) -> dict:
    return {"messages": [{"role": m["role"],
                          "content": split_calls(m["content"]) if m["role"] == "assistant" else m["content"]}
                         for m in messages]}


def _best_constant(answers: list[tuple[str, str]]) -> float:
    """Share that is right when every question of a relation gets the commonest answer of that relation."""
    by_relation = defaultdict(Counter)
    for relation, answer in answers:
        by_relation[relation][answer] += 1
    return sum(max(counts.values()) for counts in by_relation.values()) / len(answers)
