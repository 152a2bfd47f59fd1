"""What surrounds a training step: batches taken from the loader or from its thread, the garbage collector, a second start.

    python benchmarks/loop.py                    the toy scale's model and text on one thread
    python benchmarks/loop.py --threads 2

Ten steps of each kind take turns, `--rounds` times, on one model; the median step counts, in core milliseconds of the process
and in wall milliseconds, and what the training waited for its batch. Then a fresh process compiles the model twice with
one cache folder. Writes benchmarks/results/loop.json.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from nanochat.course import scale
from nanochat.data import TextShards, pretrain_loader
from nanochat.data.source import text_shards
from nanochat.model import GPT, GPTConfig
from nanochat.runtime import World, pick_dtype, write_json
from nanochat.tokenizer import Tokenizer
from nanochat.train.feed import Feed
from nanochat.train.garbage import Garbage
from nanochat.train.loop import compiled
from nanochat.train.optim import MuonAdamW

TURN = 10        # steps


def build():
    """The toy scale's model, and its compiled forward."""
    settings = scale("toy")
    shape = settings.pretrain.model
    config = GPTConfig.from_depth(shape.depth, settings.tokenizer.vocab_size, shape.sequence_len, n_embd=shape.n_embd,
                                  head_dim=shape.head_dim)
    model = GPT(config).init_weights(seed=0)
    model.compute_dtype = pick_dtype(torch.device("cpu"))
    return model, compiled(model)


def start() -> None:
    """Print the seconds of the first step, compilation included."""
    rows = scale("toy").pretrain.rows
    model, forward = build()
    idx = torch.zeros(rows, model.config.sequence_len, dtype=torch.long)
    begin = time.perf_counter()
    forward(idx, idx).backward()
    print(time.perf_counter() - begin)


def starts() -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--start"]
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder}
        return [round(float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout), 1)
                for _ in range(2)]


def steps(rounds: int, folder: Path) -> dict:
    settings = scale("toy").pretrain
    paths = text_shards("toy", folder, world="toy", seed=0)[:-1]
    shards = TextShards(paths)
    tokenizer = Tokenizer.train((text for group in range(len(shards)) for text in shards.read(group)),
                                scale("toy").tokenizer.vocab_size, digits=1)
    model, forward = build()
    optimizer = MuonAdamW(model, settings.optim, World())

    def loader():
        return pretrain_loader(paths, tokenizer, rows=settings.rows, sequence_len=model.config.sequence_len)

    inline = loader()
    seen: dict[str, list] = {"loader": [], "thread": [], "thread, collector off": []}

    def step(take) -> tuple[float, float, float]:
        core, wall = time.process_time(), time.perf_counter()
        inputs, targets = take()
        waited = time.perf_counter() - wall
        loss = forward(inputs, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - core, time.perf_counter() - wall, waited

    with Feed(loader(), torch.device("cpu")) as feed:
        takes = {"loader": lambda: map(torch.from_numpy, inline.next()), "thread": feed.next}
        for take in takes.values():
            step(take)
        for _ in range(rounds):
            for name, taken in seen.items():
                gc.collect()
                if name.endswith("off"):
                    with Garbage() as garbage:
                        garbage.collect()
                        taken += [step(feed.next) for _ in range(TURN)]
                else:
                    taken += [step(takes[name]) for _ in range(TURN)]
    names = ("core_ms", "wall_ms", "waited_ms")
    return {name: {what: round(1e3 * median(times), 2) for what, times in zip(names, zip(*taken))} | {
        "longest_ms": round(1e3 * max(wall for _, wall, _ in taken), 1)} for name, taken in seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.start:
        return start()
    with tempfile.TemporaryDirectory() as folder:
        result = {"threads": options.threads, "load": os.getloadavg()[0], "steps": steps(options.rounds, Path(folder)),
                  "first_and_second_start_s": starts()}
    path = Path(__file__).parent / "results" / "loop.json"
    write_json(path, result)
    print(json.dumps(result, indent=1))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
