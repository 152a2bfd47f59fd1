"""Can a base model continue a text rightly? Greedy decoding of a text task's prompts, each judged by the task's own rule.

    evaluate_completion(engine, load_task("toy-cloze", world_folder=run / "data"))["accuracy"]
"""

from collections.abc import Sequence
from pathlib import Path

from nanochat.engine import Engine
from nanochat.evals.items import judge_items
from nanochat.tasks import Task


def evaluate_completion(engine: Engine, task: Task, max_items: int | None = None, log: str | Path | None = None, *,
                        key: str | None = None) -> dict:
    """The accuracy card of a task of kind "text"; no chat format, no tools. `log` and `key`: see `judge_items`."""
    def judge(indices: Sequence[int]) -> list[dict]:
        prompts = [engine.tokenizer.encode(task.prompt(i)["text"], bos=True) for i in indices]
        completions = complete(engine, prompts, task.max_tokens, tools=False)
        return [record(engine, task[i], prompt, completion, completion is not None and task.check(task[i], completion))
                for i, prompt, completion in zip(indices, prompts, completions)]

    return judge_items(task, judge, max_items=max_items, log=log, key=key)


def complete(engine: Engine, prompts: list[list[int]], max_tokens: int, tools: bool) -> list:
    """The greedy completion of each prompt; None for one that leaves no room in the model's context for an answer."""
    fits = [i for i, prompt in enumerate(prompts) if len(prompt) < engine.config.sequence_len]
    answers = engine.generate([prompts[i] for i in fits], max_tokens=max_tokens, temperature=0.0, tools=tools)
    completions = [None] * len(prompts)
    for i, (answer,) in zip(fits, answers):
        completions[i] = answer
    return completions


def record(engine: Engine, item: dict, prompt: list[int], completion, correct: bool, why: str = "") -> dict:
    """What the log says of one generated answer: everything needed to see why it was judged so."""
    expected = item["messages"][-1]["content"] if "messages" in item else item["answer"]
    if completion is None:
        why = f"the prompt has {len(prompt)} tokens, the model's context {engine.config.sequence_len}"
    elif not correct and not why:
        why = "not the expected answer" if completion.finish_reason == "stop" else "no end within the tokens allowed"
    return {"correct": bool(correct), "why": why, "prompt": engine.tokenizer.decode(prompt), "expected": expected,
            "completion": "" if completion is None else engine.tokenizer.decode(completion.ids)}
