"""rustbpe's encoder beside tiktoken and Hugging Face's tokenizers, on real documents and on hostile text.

    NANOCHAT_HUB=<mirror> python benchmarks/encoder.py              text of the mirror; without it, of the toy world

The same ranks for all (cl100k where tiktoken can get it, and a vocabulary of our own, trained here), documents one by one,
one thread; then a batch on one thread and on two. All variants take turns, each once a round; medians over the rounds.
"cold" is a tokenizer that has seen no text. Ids are compared document by document, in full. What runs on one thread is
measured in processor time, which other work on the machine blurs less; batches in wall time: read their ratio beside
`control`, what two threads gain over one in hashing, at the same time. Where that is not near 2, the machine is busy.
Writes benchmarks/results/encoder.json.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import tiktoken
import tokenizers

import rustbpe
from nanochat.data import write_world
from nanochat.runtime import UserError, write_json
from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.cl100k import cl100k


def documents(megabytes: float) -> list[str]:
    """Documents from every parquet file with a column `text`, the same share of each, shuffled."""
    hub = os.environ.get("NANOCHAT_HUB")
    folder = Path(hub) if hub else write_world(Path(tempfile.mkdtemp()), seed=0, scale="toy")
    files = [path for path in sorted(folder.rglob("*.parquet")) if "text" in pq.read_schema(path).names]
    taken: list[str] = []
    for path in files:
        size = 0
        for text in pq.read_table(path, columns=["text"]).column("text").to_pylist():
            if size >= megabytes * 1e6 / len(files):
                break
            taken.append(text)
            size += len(text.encode())
    random.Random(0).shuffle(taken)
    return taken


def hostile() -> dict[str, str]:
    """Long runs, and text without a place to split: quadratic work on any of these would take hours."""
    dice = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    runs = {name: c * 1_000_000 for name, c in {"a": "a", "blank": " ", "newline": "\n", "=": "=", "'": "'"}.items()}
    return runs | {
        "letters, no blank": "".join(dice.choices(letters, k=5_000_000)),
        "base64": "".join(dice.choices(letters + "0123456789+/", k=5_000_000)),
        "random CJK": "".join(map(chr, dice.choices(range(0x4E00, 0x9FFF), k=1_700_000))),
        "common CJK": "".join(
            dice.choices("的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也", k=1_700_000)
        ),
    }


def seconds(work, clock=time.process_time) -> float:
    begin = clock()
    work()
    return clock() - begin


def hashing(threads: int) -> None:
    """The same work for any number of threads, which share nothing."""
    data = bytes(32_000_000 // threads)
    workers = [threading.Thread(target=lambda: hashlib.sha256(data).digest()) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def compare(
    name: str, theirs: tiktoken.Encoding, texts: list[str], rounds: int, hf: tokenizers.Tokenizer | None
) -> dict:
    """All speeds of one vocabulary in MB/s, ratios to tiktoken's, and whether all ids are equal."""
    build = lambda: rustbpe.Tokenizer(theirs._mergeable_ranks, theirs._pat_str)
    ours, size = build(), sum(len(text.encode()) for text in texts) / 1e6
    few = texts[: len(texts) // 20 + 1]  # the slowest gets a sample: its speed does not depend on how much
    control = {1: [], 2: []}
    few_size = sum(len(text.encode()) for text in few) / 1e6
    variants = {
        "numpy": lambda: [ours.encode_to_numpy(text) for text in texts],
        "list": lambda: [ours.encode(text) for text in texts],
        "batch, 1 thread": lambda: ours.encode_batch(texts, 1),
        "batch, 2 threads": lambda: ours.encode_batch(texts, 2),
        "tiktoken numpy": lambda: [theirs.encode_to_numpy(text, disallowed_special=()) for text in texts],
        "tiktoken list": lambda: [theirs.encode_ordinary(text) for text in texts],
    }
    if hf:
        variants["HF tokenizers list"] = lambda: [hf.encode(text, add_special_tokens=False).ids for text in few]
    times: dict[str, list[float]] = {name: [] for name in ["numpy, cold", *variants]}
    for _ in range(rounds):
        fresh = build()
        times["numpy, cold"].append(seconds(lambda fresh=fresh: [fresh.encode_to_numpy(text) for text in texts]))
        for threads, taken in control.items():
            taken.append(seconds(lambda threads=threads: hashing(threads), time.perf_counter))
        for variant, work in variants.items():
            clock = time.perf_counter if variant.startswith("batch") else time.process_time
            times[variant].append(seconds(work, clock))
    speed = {v: (few_size if v.startswith("HF") else size) / statistics.median(taken) for v, taken in times.items()}
    equal = all(ours.encode(text) == theirs.encode_ordinary(text) for text in texts)
    if hf:
        equal &= all(ours.encode(text) == hf.encode(text, add_special_tokens=False).ids for text in few)
    return {
        "vocabulary": name, "size": ours.vocab_size, "MB": round(size, 1), "documents": len(texts), "ids equal": equal,
        "MB/s": {variant: round(value, 1) for variant, value in speed.items()},
        "ratios": {
            "numpy to tiktoken's": round(speed["numpy"] / speed["tiktoken numpy"], 2),
            "numpy, cold, to tiktoken's": round(speed["numpy, cold"] / speed["tiktoken numpy"], 2),
            "list to tiktoken's": round(speed["list"] / speed["tiktoken list"], 2),
            "two threads to one": round(speed["batch, 2 threads"] / speed["batch, 1 thread"], 2),
            "control": round(statistics.median(control[1]) / statistics.median(control[2]), 2),
        },
        "hostile MB/s": {
            kind: round(len(text.encode()) / 1e6 / seconds(lambda text=text: ours.encode_to_numpy(text)), 1)
            for kind, text in hostile().items()
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vocab", type=int, default=32_768)
    options = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    load = os.getloadavg()
    texts = documents(options.megabytes)

    own = Tokenizer.train(texts, options.vocab)
    with tempfile.TemporaryDirectory() as folder:
        own.to_hf(folder)
        hf = tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    results = [compare("our own", own.to_tiktoken(), texts, options.rounds, hf)]
    try:
        results.append(compare("cl100k", cl100k(), texts, options.rounds, None))
    except UserError as error:
        print(f"without cl100k: {error}")

    result = {
        "text": "mirror of the hub" if os.environ.get("NANOCHAT_HUB") else "toy world",
        "rounds": options.rounds,
        "machine": {
            "processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": load,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("tiktoken", "tokenizers")},
        },
        "results": results,
    }  # fmt: skip
    path = Path(__file__).parent / "results" / "encoder.json"
    write_json(path, result)
    print(json.dumps(results, indent=1))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
