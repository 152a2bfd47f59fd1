"""How long training a tokenizer takes, and how much memory: rustbpe of this course beside its peers.

    python benchmarks/tokenizer.py                          10 and 30 MB of real text
    python benchmarks/tokenizer.py --full                   and 100 MB
    python benchmarks/tokenizer.py --peer FOLDER            with PyPI's rustbpe, whose name is the same as ours, from its own folder:
                                                            pip install --target FOLDER rustbpe

Text: the column `text` of all parquet files under $NANOCHAT_HUB, by document in a fixed random order, repeated if it is shorter than asked
(the result says so). HF tokenizers takes part where it is installed. Every trainer runs in its own process, `--repeats` times on texts held in
memory (the median counts), then once more on texts streamed from disk for its peak memory, of which the peak before training is taken off.
Merges are compared: PyPI's rustbpe must learn the same, HF breaks ties in another way. Writes benchmarks/results/tokenizer.json.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
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
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False))
    vocab = tokenizer.get_vocab()
    byte_of = gpt2_bytes()
    return [bytes(byte_of[c] for c in token) for token in sorted(vocab, key=vocab.__getitem__)]


def gpt2_bytes() -> dict[str, int]:
    """The characters that stand for bytes in byte-level vocabularies: printable ones for themselves, others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


TRAINERS = {"ours": train_ours, "rustbpe": train_pypi_rustbpe, "tokenizers": train_hf}


def work(name: str, corpus: Path, vocab_size: int, threads: int, repeats: int) -> None:
    """In a process of its own: prints seconds, peak memory and tokens. Without repeats it streams, and memory is measured."""
    train = TRAINERS[name]
    seconds, tokens, peak = [], [], 0.0
    if repeats:
        texts = list(stream(corpus))
        for _ in range(repeats):
            begin = time.perf_counter()
            tokens = train(texts, vocab_size, threads)
            seconds.append(time.perf_counter() - begin)
    else:
        train(["a b"], 300, threads)         # imports, thread pools and tables are there before
        before = peak_mb()
        train(stream(corpus), vocab_size, threads)
        peak = peak_mb() - before
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "tokens": [token.hex() for token in tokens]}))


def peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():                      # Linux; there, getrusage counts what the parent held when it forked
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def stream(corpus: Path) -> Iterator[str]:
    with corpus.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


# --- the text


def documents(hub: Path) -> list[str]:
    import pyarrow.parquet as pq

    texts = []
    for path in sorted(hub.rglob("*.parquet")):
        if "text" in pq.read_schema(path).names:
            texts += filter(None, pq.read_table(path, columns=["text"])["text"].to_pylist())
    random.Random(0).shuffle(texts)
    return texts


def write_corpus(texts: list[str], size: int, path: Path) -> dict:
    """Whole documents, one a line, until there are `size` bytes."""
    written = rounds = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            rounds += 1
            for text in texts:
                file.write(json.dumps(text) + "\n")
                written += len(text.encode())
                if written >= size:
                    break
    distinct = min(written, sum(len(text.encode()) for text in texts))
    return {"mb": round(written / 1e6, 1), "distinct_mb": round(distinct / 1e6, 1), "repeated": rounds > 1}


# --- the run


def measure(name: str, corpus: Path, threads: int, options: argparse.Namespace) -> dict:
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false"}
    if name == "rustbpe":
        environment["PYTHONPATH"] = str(Path(options.peer).resolve())

    def call(repeats: int) -> dict:
        command = [sys.executable, __file__, "--work", name, str(corpus), str(options.vocab), str(threads), str(repeats)]
        return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)

    timed, streamed = call(options.repeats), call(0)
    return {"trainer": name, "threads": threads, "seconds": round(statistics.median(timed["seconds"]), 4),
            "all_seconds": [round(s, 4) for s in timed["seconds"]], "peak_mb": round(streamed["peak_mb"], 1), "tokens": timed["tokens"]}


def compare(rows: list[dict]) -> list[dict]:
    """Ratios to ours on the same number of threads, and how much of the vocabulary is the same."""
    ours = {row["threads"]: row for row in rows if row["trainer"] == "ours"}
    for row in rows:
        base = ours[row["threads"]]
        row["times_ours"] = round(row["seconds"] / base["seconds"], 2)
        row["same_tokens_in_order"] = row["tokens"] == base["tokens"]
        row["shared_tokens"] = round(len(set(row["tokens"]) & set(base["tokens"])) / len(base["tokens"]), 4)
    return [{key: value for key, value in row.items() if key != "tokens"} for row in rows]


def machine() -> dict:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(), "system": platform.system(),
            "architecture": platform.machine(), "python": platform.python_version(),
            "load_before": round(os.getloadavg()[0], 1)}         # how busy the machine was with other work


def versions(peer: str | None) -> dict:
    found = {"tokenizers": None, "rustbpe (PyPI)": None}
    for name, path in [("tokenizers", sys.path), ("rustbpe", [peer] if peer else [])]:
        for package in importlib.metadata.distributions(name=name, path=path):
            found["rustbpe (PyPI)" if name == "rustbpe" else name] = package.version
    return found


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        name, corpus, *numbers = sys.argv[2:]
        return work(name, Path(corpus), *map(int, numbers))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hub", default=os.environ.get("NANOCHAT_HUB"), help="default: $NANOCHAT_HUB")
    parser.add_argument("--full", action="store_true", help="100 MB too")
    parser.add_argument("--sizes", type=float, nargs="+", metavar="MB", help="other sizes")
    parser.add_argument("--vocab", type=int, default=32_768)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer", help="the folder with PyPI's rustbpe")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "tokenizer.json")
    options = parser.parse_args()
    if not options.hub:
        parser.error("no text: set NANOCHAT_HUB or give --hub")
    installed = versions(options.peer)
    trainers = ["ours"] + ["rustbpe"] * bool(installed["rustbpe (PyPI)"]) + ["tokenizers"] * bool(installed["tokenizers"])
    about = machine()
    texts, results = documents(Path(options.hub)), []
    for size in options.sizes or ([10, 30, 100] if options.full else [10, 30]):
        with tempfile.TemporaryDirectory() as folder:
            corpus = Path(folder) / "corpus.jsonl"
            text = write_corpus(texts, int(size * 1e6), corpus)
            rows = compare([measure(name, corpus, threads, options) for threads in options.threads for name in trainers])
        results.append({"text": text, "rows": rows})
        again = f", {text['distinct_mb']} MB of it distinct, repeated" if text["repeated"] else ""
        print(f"\n{text['mb']} MB{again}, vocabulary {options.vocab}")
        for row in rows:
            same = "same merges" if row["same_tokens_in_order"] else f"{row['shared_tokens']:.1%} of tokens shared"
            print(f"{row['trainer']:>11} {row['threads']} threads {row['seconds']:8.3f} s {row['times_ours']:7.2f} × ours "
                  f"{row['peak_mb']:7.1f} MB  {same}")
    record = json.loads(options.out.read_text()) if options.out.exists() else {}
    record |= {"machine": about, "versions": installed, "training": {"vocab": options.vocab, "repeats": options.repeats, "sizes": results}}
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
