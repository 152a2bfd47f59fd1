"""Text for the tokenizer benchmarks, and the machine they run on."""

import json
import os
import platform
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from nanochat.data import write_world


def parquet_texts() -> list[list[str]]:
    """The documents of each parquet file with a column `text` under $NANOCHAT_HUB; without it, of the toy world."""
    hub = os.environ.get("NANOCHAT_HUB")
    folder = Path(hub) if hub else write_world(Path(tempfile.mkdtemp()), seed=0, scale="toy")
    paths = [path for path in sorted(folder.rglob("*.parquet")) if "text" in pq.read_schema(path).names]
    return [list(filter(None, pq.read_table(path, columns=["text"])["text"].to_pylist())) for path in paths]


def shuffled(files: list[list[str]]) -> list[str]:
    texts = [text for texts in files for text in texts]
    random.Random(0).shuffle(texts)
    return texts


def sample(files: list[list[str]], megabytes: float) -> list[str]:
    """The same share of each file, so that small collections (maths, Korean, code) count; shuffled."""
    taken = []
    for texts in files:
        left = megabytes * 1e6 / len(files)
        for text in texts:
            if left <= 0:
                break
            taken.append(text)
            left -= len(text.encode())
    random.Random(0).shuffle(taken)
    return taken


def write_corpus(texts: list[str], size: int, path: Path) -> dict:
    """Whole documents, one a line, until there are `size` bytes; from the beginning again if they are too few."""
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


def stream(corpus: Path) -> Iterator[str]:
    with corpus.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def machine() -> dict:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(), "system": platform.system(),
            "architecture": platform.machine(), "python": platform.python_version(),
            "load_before": round(os.getloadavg()[0], 1)}  # how busy the machine was with other work  # fmt: skip
