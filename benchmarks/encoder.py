"""rustbpe's encoder beside tiktoken and HF tokenizers on real documents, and alone on hostile text.

The same ranks for all, documents one by one, one thread; then a batch on one thread and on two. All variants take
turns, each once a round; medians over the rounds. "cold" is a tokenizer that has seen no text and has its tables still
to make. Ids are compared document by document, in full. What runs on one thread is measured in processor time, which
other work on the machine blurs less; batches in wall time: read their ratio beside `control`, what two threads gain
over one in hashing, at the same time. Where that is not near 2, the machine is busy.
"""

import hashlib
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path

import tiktoken
import tokenizers

import rustbpe
from nanochat.runtime import UserError
from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.cl100k import cl100k

BATCH = 4  # times the documents: a batch lasts long enough for two threads to matter


def encoding(texts: list[str], vocab_size: int, rounds: int) -> list[dict]:
    """Speeds with a vocabulary trained on these documents, and with cl100k where tiktoken can get it."""
    own = Tokenizer.train(texts, vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        own.to_hf(folder)
        hf = tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    results = [speeds("our own", own.to_tiktoken(), texts, rounds, hf)]
    try:
        results.append(speeds("cl100k", cl100k(), texts, rounds, None))
    except UserError as error:
        print(f"without cl100k: {error}")
    return results


def speeds(
    name: str, theirs: tiktoken.Encoding, texts: list[str], rounds: int, hf: tokenizers.Tokenizer | None
) -> dict:
    """All speeds of one vocabulary in MB/s, ratios to tiktoken's, and whether all ids are equal."""
    build = lambda: rustbpe.Tokenizer(theirs._mergeable_ranks, theirs._pat_str)
    size = lambda texts: sum(len(text.encode()) for text in texts) / 1e6
    ours, batch = build(), texts * BATCH
    few = texts[: len(texts) // 20 + 1]  # the slowest gets a sample: its speed does not depend on how much
    variants = {
        "numpy": (texts, lambda: [ours.encode_to_numpy(text) for text in texts]),
        "list": (texts, lambda: [ours.encode(text) for text in texts]),
        "batch, 1 thread": (batch, lambda: ours.encode_batch(batch, 1)),
        "batch, 2 threads": (batch, lambda: ours.encode_batch(batch, 2)),
        "tiktoken numpy": (texts, lambda: [theirs.encode_to_numpy(text, disallowed_special=()) for text in texts]),
        "tiktoken list": (texts, lambda: [theirs.encode_ordinary(text) for text in texts]),
    }
    if hf:
        encode = lambda: [hf.encode(text, add_special_tokens=False).ids for text in few]
        variants["HF tokenizers list"] = (few, encode)
    times: dict[str, list[float]] = {name: [] for name in ["numpy, cold", *variants]}
    control: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        fresh = build()
        times["numpy, cold"].append(seconds(lambda fresh=fresh: [fresh.encode_to_numpy(text) for text in texts]))
        for threads, taken in control.items():
            taken.append(seconds(lambda threads=threads: hashing(threads), time.perf_counter))
        for variant, (_, work) in variants.items():
            clock = time.perf_counter if variant.startswith("batch") else time.process_time
            times[variant].append(seconds(work, clock))
    median = {variant: statistics.median(taken) for variant, taken in times.items()}
    speed = {"numpy, cold": size(texts) / median["numpy, cold"]}
    speed |= {variant: size(encoded) / median[variant] for variant, (encoded, _) in variants.items()}
    equal = all(ours.encode(text) == theirs.encode_ordinary(text) for text in texts)
    if hf:
        equal &= all(ours.encode(text) == hf.encode(text, add_special_tokens=False).ids for text in few)
    return {
        "vocabulary": name, "size": ours.vocab_size, "MB": round(size(texts), 1), "batch MB": round(size(batch), 1),
        "documents": len(texts), "rounds": rounds, "ids equal": equal,
        "MB/s": {variant: round(value, 1) for variant, value in speed.items()},
        "ratios": {
            "numpy to tiktoken's": round(speed["numpy"] / speed["tiktoken numpy"], 2),
            "numpy, cold, to tiktoken's": round(speed["numpy, cold"] / speed["tiktoken numpy"], 2),
            "list to tiktoken's": round(speed["list"] / speed["tiktoken list"], 2),
            "two threads to one": round(speed["batch, 2 threads"] / speed["batch, 1 thread"], 2),
            "control": round(statistics.median(control[1]) / statistics.median(control[2]), 2),
        },
    }  # fmt: skip


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


# --- hostile text: long runs, and no place to split; quadratic work on any of these would take hours


def hostile_texts(scale: float) -> dict[str, str]:
    """1 to 5 MB each, times `scale`."""
    dice = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    mega = int(scale * 1e6)
    draw = lambda letters, count: "".join(dice.choices(letters, k=int(count * mega)))
    runs = {"a": "a", "blank": " ", "newline": "\n", "=": "=", "'": "'", "digit": "7", "blank, newline": " \n"}
    return {name: piece * mega for name, piece in runs.items()} | {
        "5 MB of letters": draw(letters, 5),
        "5 MB of base64": draw(letters + "0123456789+/", 5),
        "random Chinese": draw([chr(c) for c in range(0x4E00, 0x9FFF)], 1.7),
        "common Chinese": draw("的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也", 1.7),
        "random characters": draw([chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000], 0.5),
    }


def hostile(texts: list[str], vocab_size: int, repeats: int, scale: float) -> dict[str, float]:
    """MB/s to numpy, with a vocabulary trained on `texts` and an empty cache each time; every text must come back."""
    merges = rustbpe.Tokenizer.train_from_iterator(texts, vocab_size).merges()
    speed = {}
    for name, text in hostile_texts(scale).items():
        taken = []
        for _ in range(repeats):
            fresh = rustbpe.Tokenizer.from_merges(merges)
            taken.append(seconds(lambda fresh=fresh, text=text: fresh.encode_to_numpy(text)))
        if fresh.decode(fresh.encode_to_numpy(text)) != text:
            raise SystemExit(f"{name}: ids do not decode back")
        speed[name] = round(len(text.encode()) / 1e6 / statistics.median(taken), 1)
    return speed
