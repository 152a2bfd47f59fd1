"""The tokenizer beside its peers: training, encoding, hostile text, and what the lesson's small text takes.

    python benchmarks/tokenizer.py --peer FOLDER         all of it, some 20 minutes, on text under $NANOCHAT_HUB (without it the toy
                                                         world's). FOLDER holds PyPI's rustbpe, whose name is the same as ours:
                                                         pip install --target FOLDER rustbpe
    python benchmarks/tokenizer.py --only encoding small          some stages; the others' results stay as they are
    python benchmarks/tokenizer.py --megabytes 2 --repeats 1 --out /tmp/try.json       a quick try

Stages: `training` at 10, 30, 100 and 400 MB (peers at 400 MB once, on the most threads only), `curve` over vocabularies at 100 MB,
`encoding`, `hostile`, `small`. Text is taken by document in a fixed random order, and repeated where there is too little (the
result says so). Writes benchmarks/results/tokenizer.json, tokenizer.svg beside it, and prints the README's table.
"""

import argparse
import gc
import importlib.metadata
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import encoder
import plot
import trainers
from corpus import machine, parquet_texts, sample, shuffled, write_corpus

import rustbpe
from nanochat.runtime import write_json
from nanochat.tokenizer.bpe import GPT4_SPLIT_PATTERN, BasicTokenizer, RegexTokenizer

STAGES = ("training", "curve", "encoding", "hostile", "small")
VOCAB = 32_768
VOCABS = (4_096, 16_384, 65_536, 131_072)  # the curve's, beside VOCAB
SMALL_BYTES, SMALL_VOCAB = 185_768, 512  # of minbpe's script


def training(files: list[list[str]], sizes: list[float], peers: list[str], options: argparse.Namespace) -> list[dict]:
    """Seconds and peak memory of every trainer at every size."""
    results = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            corpus = Path(folder) / "corpus.jsonl"
            text, rows = write_corpus(shuffled(files), int(size * 1e6), corpus), []
            for name in ["ours", *peers]:
                slow = name != "ours" and size > 100
                for threads in [max(options.threads)] if slow else options.threads:
                    repeats = 1 if slow else options.repeats
                    rows.append(trainers.measure(name, corpus, VOCAB, threads, repeats, options.peer, memory=True))
                    tell(f"{size:g} MB", rows[-1])
        results.append({"text": text, "repeats": options.repeats, "rows": trainers.compare(rows)})
    return results


def curve(files: list[list[str]], size: float, peers: list[str], options: argparse.Namespace) -> dict:
    """Seconds on one thread over the size of the vocabulary: ours and PyPI's rustbpe."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        text = write_corpus(shuffled(files), int(size * 1e6), corpus)
        for vocab in VOCABS:
            for name in ["ours", *(peer for peer in peers if peer == "rustbpe")]:
                rows.append(trainers.measure(name, corpus, vocab, 1, options.repeats, options.peer, memory=False))
                tell(f"vocabulary {vocab}", rows[-1])
    return {"text": text, "repeats": options.repeats, "rows": trainers.compare(rows)}


def small(texts: list[str], repeats: int) -> dict:
    """The teaching tokenizers on the text of minbpe's script's size, and rustbpe with the same two patterns."""
    warnings.filterwarnings("ignore", "this split pattern goes to a regex engine")  # Basic's, which does not split
    text = "\n".join(texts).encode()[:SMALL_BYTES].decode(errors="ignore")
    gc.collect()
    gc.freeze()  # the corpora in memory are this benchmark's: the collector need not go through them
    result = {"bytes": len(text.encode()), "vocab": SMALL_VOCAB}
    for teacher, pattern in [(BasicTokenizer(), r"(?s).+"), (RegexTokenizer(), GPT4_SPLIT_PATTERN)]:
        begin = time.process_time()
        teacher.train(text, SMALL_VOCAB)
        taught = time.process_time() - begin
        ours = lambda pattern=pattern: rustbpe.Tokenizer.train_from_iterator([text], SMALL_VOCAB, pattern, threads=1)
        taken = sorted(encoder.seconds(ours) for _ in range(max(repeats, 1)))
        result[type(teacher).__name__] = {
            "teaching seconds": round(taught, 2), "rustbpe ms": round(1000 * taken[len(taken) // 2], 1),
            "same merges": ours().merges() == list(teacher.merges),
        }  # fmt: skip
    return result


def tell(what: str, row: dict) -> None:
    peak = f", {row['peak_mb']} MB" if "peak_mb" in row else ""
    print(f"{what}: {row['trainer']}, {row['threads']} threads: {row['seconds']} s{peak}", file=sys.stderr, flush=True)


def versions(peer: str | None) -> dict:
    found = {name: importlib.metadata.version(name) for name in ("tiktoken", "tokenizers")}
    for package in importlib.metadata.distributions(name="rustbpe", path=[peer]) if peer else []:
        found["rustbpe (PyPI)"] = package.version
    return found


# --- the README's table


def table(record: dict) -> str:
    lines = ["| | ours | beside | |", "|---|---|---|---|"]
    for result in record.get("training", {}).get("results", []):
        rows = result["rows"]
        for row in rows:
            ours = next(r for r in rows if r["trainer"] == "ours" and r["threads"] == row["threads"])
            if row["trainer"] != "ours":
                same = "same merges" if row["same_tokens_in_order"] else f"{row['shared_tokens']:.1%} of tokens shared"
                lines.append(
                    f"| train on {result['text']['mb']:.0f} MB, {row['threads']} threads | {ours['seconds']:.2f} s, {ours['peak_mb']:.0f} MB "
                    f"| {row['trainer']} {row['seconds']:.1f} s, {row['peak_mb']:.0f} MB | {row['times_ours']:.1f} × as fast, {same} |"
                )
    for result in record.get("encoding", {}).get("results", []):
        speed, ratios = result["MB/s"], result["ratios"]
        for kind in ("numpy", "list"):
            lines.append(
                f"| encode to {kind}, {result['vocabulary']} | {speed[kind]:.0f} MB/s | tiktoken {speed['tiktoken ' + kind]:.1f} MB/s "
                f"| {ratios[kind + ' to tiktoken' + chr(39) + 's']:.1f} × as fast, {'same ids' if result['ids equal'] else 'OTHER IDS'} |"
            )
        lines.append(
            f"| encode a batch, {result['vocabulary']} | {speed['batch, 2 threads']:.0f} MB/s on 2 threads | {speed['batch, 1 thread']:.0f} MB/s on one "
            f"| {ratios['two threads to one']:.2f} × as fast (hashing gains {ratios['control']:.2f} ×) |"
        )
    if "hostile" in record:
        name, speed = min(record["hostile"]["results"].items(), key=lambda item: item[1])
        lines.append(f"| encode hostile text | {speed:.0f} MB/s on the slowest ({name}) | | |")
    for name, row in record.get("small", {}).get("results", {}).items():
        if isinstance(row, dict):
            same = "same merges" if row["same merges"] else "OTHER MERGES"
            lines.append(
                f"| 185 KB to 512 tokens | {row['rustbpe ms']} ms | {name} {row['teaching seconds']} s | {same} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES, help="these stages")
    parser.add_argument("--megabytes", type=float, help="one size for all, for a quick try")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer", help="the folder with PyPI's rustbpe")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "tokenizer.json")
    options = parser.parse_args()
    installed, files = versions(options.peer), parquet_texts()
    peers = ["rustbpe"] * ("rustbpe (PyPI)" in installed) + ["tokenizers"]
    size, repeats = options.megabytes, options.repeats
    few = sample(files, size or 10)
    stages = {
        "training": lambda: training(files, [size] if size else [10, 30, 100, 400], peers, options),
        "curve": lambda: curve(files, size or 100, peers, options),
        "encoding": lambda: encoder.encoding(few, VOCAB, repeats),
        "hostile": lambda: encoder.hostile(few, VOCAB, repeats, 0.1 if size else 1),
        "small": lambda: small(few, repeats),
    }
    kept = json.loads(options.out.read_text()) if options.out.exists() else {}
    record = {stage: kept[stage] for stage in STAGES if "results" in kept.get(stage, {})}
    for stage in options.only:
        about = {
            "machine": machine(),
            "versions": installed,
            "text": "hub" if os.environ.get("NANOCHAT_HUB") else "toy world",
        }
        begin = time.monotonic()
        results = stages[stage]()
        record[stage] = about | {"took_seconds": round(time.monotonic() - begin), "results": results}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, record)  # what is measured is kept, whatever comes
    plot.draw(record, options.out.with_suffix(".svg"))
    print(table(record))


if __name__ == "__main__":
    main()
