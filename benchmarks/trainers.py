"""How long training takes, and how much memory: rustbpe of this course beside PyPI's rustbpe and HF tokenizers.

Every trainer runs in its own process, several times on texts held in memory (the median counts); for its peak memory once
more on texts streamed from disk, of which the peak before training is taken off. Merges are compared: PyPI's rustbpe must
learn the same, HF breaks ties in another way. PyPI's rustbpe has our module's name, so it lives in a folder of its own.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|"
    r"\s*[\r\n]|\s+(?!\S)|\s+"
)


# --- the trainers: texts to the bytes of all tokens, in the order in which they were learned


def train_ours(texts: Iterable[str], vocab_size: int, threads: int) -> list[bytes]:
    import rustbpe

    ranks = rustbpe.Tokenizer.train_from_iterator(texts, vocab_size, PATTERN, threads=threads).mergeable_ranks()
    return sorted(ranks, key=ranks.__getitem__)


def train_pypi_rustbpe(texts: Iterable[str], vocab_size: int, threads: int) -> list[bytes]:
    import rustbpe

    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(iter(texts), vocab_size, pattern=PATTERN)
    return [bytes(token) for token, _ in sorted(tokenizer.get_mergeable_ranks(), key=lambda item: item[1])]


def train_hf(texts: Iterable[str], vocab_size: int, threads: int) -> list[bytes]:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    vocab = tokenizer.get_vocab()
    byte_of = gpt2_bytes()
    return [bytes(byte_of[c] for c in token) for token in sorted(vocab, key=vocab.__getitem__)]


def gpt2_bytes() -> dict[str, int]:
    """The characters that stand for bytes in byte-level vocabularies: printable ones for themselves, others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


TRAINERS = {"ours": train_ours, "rustbpe": train_pypi_rustbpe, "tokenizers": train_hf}


# --- in a process of its own


def main() -> None:
    """Prints seconds, peak memory in MB and tokens. Without repeats it streams, and memory is measured."""
    from corpus import stream

    name, corpus, *numbers = sys.argv[1:]
    vocab_size, threads, repeats = map(int, numbers)
    train = TRAINERS[name]
    seconds, tokens, peak = [], [], None
    if repeats:
        texts = list(stream(Path(corpus)))
        for _ in range(repeats):
            begin = time.perf_counter()
            tokens = train(texts, vocab_size, threads)
            seconds.append(time.perf_counter() - begin)
    else:
        train(["a b"], 300, threads)  # imports, thread pools and tables are there before
        before = peak_mb()
        train(stream(Path(corpus)), vocab_size, threads)
        peak = peak_mb() - before
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "tokens": [token.hex() for token in tokens]}))


def peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # Linux; there, getrusage counts what the parent held when it forked
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


# --- the measurements


def measure(
    name: str, corpus: Path, vocab_size: int, threads: int, repeats: int, peer: str | None, memory: bool
) -> dict:
    environment = os.environ | {
        "RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false"
    }  # fmt: skip
    if name == "rustbpe":
        environment["PYTHONPATH"] = str(Path(peer).resolve())

    def call(repeats: int) -> dict:
        command = [sys.executable, __file__, name, str(corpus), str(vocab_size), str(threads), str(repeats)]
        return json.loads(
            subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        )

    timed = call(repeats)
    row = {"trainer": name, "threads": threads, "vocab": vocab_size, "seconds": round(statistics.median(timed["seconds"]), 4),
           "all_seconds": [round(s, 4) for s in timed["seconds"]], "tokens": timed["tokens"]}  # fmt: skip
    return row | ({"peak_mb": round(call(0)["peak_mb"], 1)} if memory else {})


def compare(rows: list[dict]) -> list[dict]:
    """Ratios to ours on the same number of threads, and how much of the vocabulary is the same."""
    ours = {(row["threads"], row["vocab"]): row for row in rows if row["trainer"] == "ours"}
    for row in rows:
        base = ours[row["threads"], row["vocab"]]
        row["times_ours"] = round(row["seconds"] / base["seconds"], 2)
        row["same_tokens_in_order"] = row["tokens"] == base["tokens"]
        row["shared_tokens"] = round(len(set(row["tokens"]) & set(base["tokens"])) / len(base["tokens"]), 4)
    return [{key: value for key, value in row.items() if key != "tokens"} for row in rows]


if __name__ == "__main__":
    main()
