"""Chat evaluations: what a model that talks can do, one task at a time, and ChatCORE over all of them.

    card = evaluate_task(engine, load_task("gsm8k", "test"), max_items=100, log="runs/toy/sft/gsm8k.jsonl")
    card["accuracy"], card["interval"], card["chance"]
    chatcore({"gsm8k": card, …})

How an answer is judged depends on the task's eval_type:

    categorical   no text is generated: of the item's letters, the one with the largest logit after assistant_start is the answer
    generative    the greedy answer, tools allowed, judged by the task's `check`; GSM8K's is that of nanochat's published scores,
                  "#### 18" to the letter, and card["flexible"] is what taking the last number, however written, would score
    code          the greedy answer is a program in the sandbox; the task's tests, in another process, call its functions
"""

import os
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from nanochat.engine import Engine
from nanochat.evals.completion import complete, record
from nanochat.evals.forward import evaluating, length_batches, padded
from nanochat.evals.items import judge_items
from nanochat.runtime import UserError, say
from nanochat.sandbox import Result, check_sandbox, run_tests
from nanochat.tasks import Task


def evaluate_task(engine: Engine, task: Task, max_items: int | None = None, log: str | Path | None = None, *,
                  key: str | None = None, batch_size: int = 32) -> dict:
    """The accuracy card of a chat task: {"accuracy", "centered", "n", "correct", "chance", "interval"}.

    max_items: the first so many items, None for all. log, key: see `judge_items`. batch_size: prompts in one forward pass
    of a categorical task; it changes the time, not the result. Raises UserError for a task that is for training only.
    """
    judges = {"categorical": _categorical, "generative": _generative, "code": _code}
    if task.eval_type not in judges:
        raise UserError(f"{task.name} cannot be evaluated: it is for training only; choose {', '.join(judges)} tasks")

    def judge(indices: Sequence[int]) -> list[dict]:
        prompts = [engine.tokenizer.render_for_completion(task.prompt(i)) for i in indices]
        return judges[task.eval_type](engine, task, [task[i] for i in indices], prompts, batch_size)

    return judge_items(task, judge, max_items=max_items, log=log, key=key)


def chatcore(cards: Mapping[str, dict]) -> float:
    """The mean of the centered accuracies; comparable only between runs over the same tasks. Raises ValueError for no tasks."""
    if not cards:
        raise ValueError("ChatCORE of no tasks")
    return sum(card["centered"] for card in cards.values()) / len(cards)


def _categorical(engine: Engine, task: Task, items: list[dict], prompts: list[list[int]], batch_size: int) -> list[dict]:
    tokenizer, records = engine.tokenizer, [{}] * len(items)
    with evaluating(engine.model):
        for batch in length_batches([len(p) for p in prompts], batch_size, 65536):
            x = engine.model.hidden(padded([prompts[i] for i in batch], tokenizer.bos, engine.device))     # (B, T, C)
            last = torch.tensor([len(prompts[i]) - 1 for i in batch], device=engine.device)
            logits = engine.model.head(x[torch.arange(len(batch), device=engine.device), last])           # (B, V)
            for i, row in zip(batch, logits.cpu()):
                letters = task.letters(items[i])
                share = row[[_letter_id(tokenizer, task, letter) for letter in letters]].softmax(0).tolist()
                chosen = letters[share.index(max(share))]
                correct = bool(task.check(items[i], chosen))
                records[i] = {"correct": correct, "why": "" if correct else "another letter is likelier", "chosen": chosen,
                              "letters": {letter: round(p, 4) for letter, p in zip(letters, share)},
                              "prompt": tokenizer.decode(prompts[i]), "expected": items[i]["messages"][-1]["content"]}
    return records


def _letter_id(tokenizer, task: Task, letter: str) -> int:
    ids = tokenizer.encode(letter)
    if len(ids) != 1:
        raise UserError(f"{task.name}: this tokenizer writes the letter {letter!r} with {len(ids)} tokens; it must be one")
    return int(ids[0])


def _generative(engine: Engine, task: Task, items: list[dict], prompts: list[list[int]], batch_size: int) -> list[dict]:
    records = []
    for item, prompt, completion in zip(items, prompts, complete(engine, prompts, task.max_tokens, tools=True)):
        correct = completion is not None and task.check(item, completion)
        records.append(record(engine, item, prompt, completion, correct))
        if task.flexible is not None:
            kinder = bool(correct or (completion is not None and task.flexible(item, completion)))
            records[-1] |= {"flexible": kinder} | ({"why": "right but for the way it is written"} if kinder and not correct else {})
    return records


def _code(engine: Engine, task: Task, items: list[dict], prompts: list[list[int]], batch_size: int) -> list[dict]:
    completions = complete(engine, prompts, task.max_tokens, tools=True)
    submissions = {i: task.submission(items[i], c) for i, c in enumerate(completions) if c is not None}
    verdicts = dict(zip(submissions, judge_code(submissions.values(), task.name)))
    records = []
    for i, (item, prompt, completion) in enumerate(zip(items, prompts, completions)):
        ok, why = (verdicts[i].ok, verdicts[i].why) if i in verdicts else (False, "")
        program = submissions[i]["answer"] if i in submissions else ""
        records.append({**record(engine, item, prompt, completion, ok, why), "program": program})
    return records


def judge_code(submissions: Collection[dict], name: str = "code") -> list[Result]:
    """`run_tests` of each submission (`Task.submission`), on all cores. Raises UserError where model code may not run."""
    check_sandbox()
    verdicts, told = [], time.monotonic()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:             # threads that wait for other processes
        for verdict in pool.map(lambda submission: run_tests(**submission), submissions):
            verdicts.append(verdict)
            if time.monotonic() - told > 5 and len(verdicts) < len(submissions):
                told = time.monotonic()
                say(f"  {name}: {len(verdicts)} of {len(submissions)} programs judged")
    return verdicts
