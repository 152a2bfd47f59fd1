"""CORE: how much a base model knows and understands, over 22 tasks, without any chat training.

    results = evaluate(model, tokenizer, "eval_bundle", max_per_task=500)
    results["core"], results["arc_easy"]["accuracy"]

The bundle (DataComp-LM's, Li et al. 2024, arXiv:2406.11794) is a folder: `core.yaml` names the tasks, `eval_meta_data.csv` says what
guessing scores, `eval_data/` holds one JSON object a line. There are three kinds of task:

    multiple_choice     {"query", "choices", "gold"}                   one context, several endings: which is likeliest?
    schema              {"context_options", "continuation", "gold"}    several contexts, one ending: after which is it likeliest?
    language_modeling   {"context", "continuation"}                    does greedy decoding give exactly this ending?

CORE is the mean over the tasks of (accuracy − chance) / (1 − chance). Prompts, few-shot draws and spans follow nanochat's
harness, so scores compare with its published ones; with `max_per_task` the few-shot pool shrinks too, and scores are estimates.
"""

import csv
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from nanochat.evals.accuracy import accuracy
from nanochat.evals.forward import Span, common_prefix, max_length, score_spans
from nanochat.runtime import UserError, say, world

FIELDS = {
    "multiple_choice": ("query", "choices", "gold"),
    "schema": ("context_options", "continuation", "gold"),
    "language_modeling": ("context", "continuation"),
}
CHUNK = 256  # items rendered, tokenised and sorted by length together


@dataclass(frozen=True)
class CoreTask:
    """One task of a bundle. `delimiter` stands between a context and its ending; `chance` is what guessing scores."""

    label: str
    kind: str
    shots: int
    delimiter: str
    chance: float
    path: Path


@dataclass(frozen=True)
class Judged:
    """What became of one item: the mean loss of every option (of the ending alone, in a language-modelling task)."""

    correct: bool
    losses: tuple[float, ...]


def read_bundle(folder: str | Path) -> list[CoreTask]:
    """The tasks of a bundle. Raises UserError where a file is missing or a task cannot be understood."""
    folder = Path(folder)
    for name in ("core.yaml", "eval_meta_data.csv"):
        if not (folder / name).is_file():
            raise UserError(f"no CORE bundle at {folder}: {name} is missing; unpack eval_bundle.zip there or give its folder")
    with open(folder / "eval_meta_data.csv", newline="", encoding="utf-8") as f:
        chance = {row["Eval Task"]: float(row["Random baseline"]) / 100 for row in csv.DictReader(f)}
    try:
        entries = yaml.safe_load((folder / "core.yaml").read_text(encoding="utf-8"))["icl_tasks"]
        tasks = [CoreTask(e["label"], e["icl_task_type"], e["num_fewshot"][0], e.get("continuation_delimiter", " "),
                          chance[e["label"]], folder / "eval_data" / e["dataset_uri"]) for e in entries]
    except (yaml.YAMLError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{folder / 'core.yaml'}: cannot read its tasks ({error!r}); restore the bundle") from None
    for task in tasks:
        if task.kind not in FIELDS:
            raise UserError(f"{folder / 'core.yaml'}: {task.label} is of kind {task.kind!r}; known are {', '.join(FIELDS)}")
        if not task.path.is_file():
            raise UserError(f"{task.path} is missing; restore the bundle")
    return tasks


def read_items(task: CoreTask, max_items: int | None = None) -> list[dict]:
    """The task's items in the order they are judged: shuffled (files are often sorted by answer), then capped."""
    items = []
    with open(task.path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            try:
                item = json.loads(line)
                missing = [field for field in FIELDS[task.kind] if field not in item]
            except (json.JSONDecodeError, TypeError):
                missing = ["JSON object"]
            if missing:
                raise UserError(f"{task.path}, line {number}: no {', no '.join(missing)}; restore the bundle")
            items.append(item)
    random.Random(1337).shuffle(items)
    return items if max_items is None or max_items < 0 else items[:max_items]


def few_shot(items: Sequence[dict], index: int, shots: int) -> list[dict]:
    """The solved examples shown before item `index`: `shots` others, drawn by Random(1234 + index)."""
    if shots > len(items) - 1:
        raise UserError(f"CORE: {shots} examples beside the item itself need more than {len(items)} items; raise max_per_task")
    drawn = random.Random(1234 + index).sample(range(len(items) - 1), shots)
    return [items[i + (i >= index)] for i in drawn]             # as if drawn from the list without item `index`


def prompts(task: CoreTask, item: dict, examples: Sequence[dict]) -> list[str]:
    """The texts an item becomes: one per choice, one per context, or [without its ending, with it].

    Examples are "context, delimiter, right ending" and a blank line each. A text without its ending loses the
    whitespace at its end too, for most tokenizers glue a blank to the word that follows it.
    """
    d = task.delimiter
    if task.kind == "multiple_choice":
        head = "".join(f"{e['query']}{d}{e['choices'][e['gold']]}\n\n" for e in examples)
        return [f"{head}{item['query']}{d}{choice}" for choice in item["choices"]]
    if task.kind == "schema":
        head = "".join(f"{e['context_options'][e['gold']]}{d}{e['continuation']}\n\n" for e in examples)
        return [f"{head}{context}{d}{item['continuation']}" for context in item["context_options"]]
    head = "".join(f"{e['context'].strip()}{d}{e['continuation']}\n\n" for e in examples)
    without = f"{head}{item['context'].strip()}{d}"
    return [without.strip(), without + item["continuation"]]


def spans(task: CoreTask, rows: Sequence[np.ndarray], max_len: int | None = None) -> list[Span]:
    """Which tokens of an item's texts are judged; rows are the token ids of `prompts`, bos first.

    Multiple choice: all after the longest common prefix. Schema: the longest common suffix. Language modelling: what
    the text with the ending adds to the text without it (one span). A text of more than `max_len` tokens keeps its last
    ones, each text by itself, and the judged part moves with them; a token left without a predecessor is not judged.
    Raises UserError when the tokens with the ending do not continue those without it.
    """
    if task.kind == "multiple_choice":
        found = [Span(row, common_prefix(rows)) for row in rows]
    elif task.kind == "schema":
        suffix = common_prefix([row[::-1] for row in rows])
        found = [Span(row, len(row) - suffix) for row in rows]
    else:
        without, whole = rows
        if len(whole) <= len(without) or not np.array_equal(whole[: len(without)], without):
            raise UserError(f"{task.label}: this tokenizer joins a context and its ending in one token, so the ending cannot be judged")
        found = [Span(whole, len(without))]
    cropped = []
    for span in found:
        cut = max(0, len(span.ids) - max_len) if max_len else 0
        cropped.append(Span(span.ids[cut:], max(1, span.start - cut)))
    return cropped


def judge(model, tokenizer, task: CoreTask, items: Sequence[dict], indices: Sequence[int], *, batch_size: int = 32,
          max_len: int | None = None) -> list[Judged]:
    """Put the items at `indices` to the model; the examples are drawn from all `items`.

    The option with the lowest mean loss wins. An option that is a token prefix of all others has nothing of its own to be judged by
    and a loss of NaN; it wins when it comes first and loses otherwise, as `min` has it in the reference (4 of piqa's
    1,838 items with GPT-4's tokenizer).
    """
    texts = [prompts(task, items[i], few_shot(items, i, task.shots)) for i in indices]
    encoded = iter(tokenizer.encode_batch([text for group in texts for text in group]))
    rows = [[np.concatenate(([tokenizer.bos], next(encoded))).astype(np.int64) for _ in group] for group in texts]
    scores = score_spans(model, [spans(task, group, max_len) for group in rows], tokenizer.bos, batch_size)
    judged = []
    for i, options in zip(indices, scores):
        losses = tuple(score.loss for score in options)
        correct = options[0].greedy if task.kind == "language_modeling" else losses.index(min(losses)) == items[i]["gold"]
        judged.append(Judged(correct, losses))
    return judged


def evaluate(model, tokenizer, bundle_dir: str | Path, max_per_task: int | None = None, *, batch_size: int = 32,
             max_len: int | None = None) -> dict:
    """CORE of a base model: {task: {"accuracy", "centered", "n", "chance", "interval", …}, …, "core": mean of centered}.

    max_per_task: items a task, None or -1 for all. batch_size changes the time, not the result. max_len: prompts are cut from the left to so
    many tokens; default is what the model can tell apart (`max_length`). Under torchrun, rank r of W judges items r, r + W, …
    """
    peers, tasks, results = world(), read_bundle(bundle_dir), {}
    max_len = max_len or max_length(model)
    for number, task in enumerate(tasks, 1):
        began = time.perf_counter()
        items = read_items(task, max_per_task)
        mine = range(peers.rank, len(items), peers.size)
        correct = 0
        for at in range(0, len(mine), CHUNK):
            judged = judge(model, tokenizer, task, items, mine[at : at + CHUNK], batch_size=batch_size, max_len=max_len)
            correct += sum(j.correct for j in judged)
        results[task.label] = card = accuracy(sum(peers.gather(correct)), len(items), task.chance)
        say(f"core {number:2}/{len(tasks)}  {task.label:32} {card['accuracy']:.3f}  chance {task.chance:.3f}  "
            f"centered {card['centered']:+.3f}  {len(items)} items  {time.perf_counter() - began:.1f} s")
    results["core"] = sum(card["centered"] for card in results.values()) / len(results)
    say(f"core {results['core']:.4f}")
    return results


def as_csv(results: dict) -> str:
    """The results of `evaluate` as the table that comes with the bundle for GPT-2: task, accuracy, centered."""
    rows = [(label, f"{card['accuracy']:.6f}", f"{card['centered']:.6f}") for label, card in results.items() if label != "core"]
    lines = [("Task", "Accuracy", "Centered"), *rows, ("CORE", "", f"{results['core']:.6f}")]
    return "".join(f"{task:<35}, {score:<10}, {share:<10}\n" for task, score, share in lines)
