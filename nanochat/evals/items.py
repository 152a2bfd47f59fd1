"""Judging a task's items one by one: over all ranks, with progress, with a log to open, and without losing work.

    card = judge_items(task, judge, log="runs/toy/sft/gsm8k.jsonl", key=checkpoint_digest)

`judge(indices)` puts some items to a model and returns a record for each: a dict with "correct" and whatever explains it.
The log gets one record a line, in the order of the items: filter it on "correct": false to see what went wrong.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nanochat.evals.accuracy import accuracy
from nanochat.runtime import World, atomic_write, say, world

CHUNK = 256  # items judged at a time; after each chunk the records are on disk


def judge_items(task, judge: Callable[[Sequence[int]], list[dict]], *, max_items: int | None = None,
                log: str | Path | None = None, key: str | None = None) -> dict:
    """The accuracy card (`accuracy`) of the task's first `max_items` items; rank r of W judges items r, r + W, …

    log: a .jsonl file for the records, written whole at the end. key: what names the judged model and settings, such as a checkpoint's
    digest; with it an evaluation that was killed goes on where it stopped, without it every one begins anew. Where the task has
    a kinder rule than `check`, the card has the share that it finds right too: "flexible".
    """
    peers = world()
    n = len(task) if max_items is None or max_items < 0 else min(max_items, len(task))
    records = Records(log, {"task": task.name, "n": n, "key": key}, peers)
    todo = [i for i in range(peers.rank, n, peers.size) if i not in records.done]
    told = time.monotonic()
    for at in range(0, len(todo), CHUNK):
        chunk = todo[at : at + CHUNK]
        records.add({"index": i, **record} for i, record in zip(chunk, judge(chunk)))
        if time.monotonic() - told > 5 and at + CHUNK < len(todo):
            told, done = time.monotonic(), list(records.done.values())
            say(f"  {task.name}: {len(done) * peers.size} of {n} items, {sum(r['correct'] for r in done) / len(done):.3f} right so far")
    mine = records.done.values()
    correct, flexible = map(sum, zip(*peers.gather((sum(r["correct"] for r in mine), sum(r.get("flexible", 0) for r in mine)))))
    records.finish()
    card = accuracy(correct, n, task.baseline)
    return card if task.flexible is None else {**card, "flexible": flexible / n if n else 0.0}


class Records:
    """The records of this rank by item number, and their way to the log.

    Until the end each rank appends to a hidden file beside the log whose first line says what is being judged; a
    rank that finds its own file with the same first line (and a key in it) starts from what is there.
    """

    def __init__(self, log: str | Path | None, header: dict, peers: World):
        self.done: dict[int, dict] = {}
        self.log, self.peers, self.partial = log and Path(log), peers, None
        if self.log is None:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.partial = self.log.with_name(f".{self.log.name}.{peers.rank}of{peers.size}.partial")
        kept = self.partial.read_text(encoding="utf-8") if header["key"] is not None and self.partial.exists() else ""
        lines = kept[: kept.rfind("\n") + 1].splitlines()                  # a last line cut by a kill does not count
        if lines[:1] == [json.dumps(header)]:
            self.done = {record["index"]: record for record in map(json.loads, lines[1:])}
        atomic_write(self.partial, "".join(line + "\n" for line in (json.dumps(header), *map(json.dumps, self.done.values()))))

    def add(self, records) -> None:
        records = list(records)
        self.done.update({record["index"]: record for record in records})
        if self.partial is not None:
            with open(self.partial, "a", encoding="utf-8") as f:
                f.writelines(json.dumps(record) + "\n" for record in records)

    def finish(self) -> None:
        """Write the log (rank 0, the records of all ranks in order) and remove what led to it."""
        if self.log is None:
            return
        everyones = [record for share in self.peers.gather(list(self.done.values())) for record in share]
        if self.peers.main:
            everyones.sort(key=lambda record: record["index"])
            atomic_write(self.log, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in everyones))
            for leftover in self.log.parent.glob(f".{self.log.name}.*.partial"):
                leftover.unlink()
        self.peers.barrier()
