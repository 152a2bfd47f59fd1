"""What a checkpoint costs the training: how long a step stands still for the copy, and how much slower steps are while it is written.

    python benchmarks/saving.py                  a depth-6 model of 60 million weights on one thread

Steps with and without a save in flight take turns. Writes benchmarks/results/saving.json.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from nanochat.course import scale
from nanochat.model import GPT, GPTConfig
from nanochat.runtime import World, write_json
from nanochat.train.optim import MuonAdamW
from nanochat.train.saver import Saver


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--saves", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = GPTConfig.from_depth(options.depth, vocab_size=65536, sequence_len=256)
    model = GPT(config)
    model.init_weights(seed=0)
    optimizer = MuonAdamW(model, scale("speedrun").pretrain.optim, World())
    idx = torch.randint(config.vocab_size, (2, config.sequence_len + 1))

    def step() -> float:
        begin = time.perf_counter()
        model(idx[:, :-1], idx[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - begin

    calm, writing, stalls, written = [], [], [], []
    step()
    with tempfile.TemporaryDirectory() as folder, Saver(Path(folder), World()) as saver:
        for save in range(1, options.saves + 1):
            calm += [step() for _ in range(3)]
            begin = time.perf_counter()
            saver.start(save, model=model, optim=optimizer.state_tensors(), data={}, state={"step": save})
            stalls.append(time.perf_counter() - begin)
            while not saver.written:
                writing.append(step())
            written.append(time.perf_counter() - begin)
            saver.finish()
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) / len(list(Path(folder).glob("step_*")))
    median = statistics.median
    result = {"weights": model.num_params(), "checkpoint_mb": round(size / 1e6), "saves": options.saves, "load": os.getloadavg()[0],
              "stall_s": round(median(stalls), 3), "written_after_s": round(median(written), 2), "step_s": round(median(calm), 3),
              "step_while_writing_s": round(median(writing), 3), "slower": round(median(writing) / median(calm) - 1, 3)}
    write_json(Path(__file__).parent / "results" / "saving.json", result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
