"""A run small enough for tests: a smoke-sized toy world, a tokenizer, and stages of a few dozen quick steps.

    python tests/train/tiny.py FOLDER STAGE [NPROC]        launches one stage of the run in FOLDER
"""

import sys
from contextlib import suppress
from pathlib import Path

import psutil

from nanochat.runtime import Run, open_run
from nanochat.train.config import ChatTrainConfig, GRPOConfig, MachineConfig, PretrainConfig

OPTIM = {"matrix_lr": 0.02, "embedding_lr": 0.01, "unembedding_lr": 0.01}
COMMON = {"rows": 8, "eval_rows": 8, "eval_every": 20, "save_every": 7, "log_every": 1, "compile": False, "optim": OPTIM}
MIXTURE = [{"task": "toy-facts", "share": 0.4}, {"task": "toy-qa", "share": 0.3}, {"task": "toy-tool", "share": 0.3}]
STEPS = 40
CONFIGS = {
    "pretrain": PretrainConfig(data={"world": "smoke"}, model={"depth": 2, "n_embd": 32, "head_dim": 16, "sequence_len": 64},
                               schedule={"steps": STEPS, "warmup": 2}, **COMMON),
    "midtrain": ChatTrainConfig(schedule={"steps": STEPS}, mixture=MIXTURE, **COMMON),
    "sft": ChatTrainConfig(schedule={"steps": STEPS, "scale": 0.2}, mixture=MIXTURE, **COMMON),
    "grpo": GRPOConfig(task="toy-free", schedule={"steps": 8, "scale": 0.1}, prompts=4, samples=4, max_tokens=12, save_every=2,
                       replay_rows=4, eval_prompts=4, eval_samples=2, heldout_items=4, mixture=MIXTURE, optim=OPTIM),
}
FOLDERS = {"pretrain": "base", "midtrain": "mid", "sft": "sft", "grpo": "rl"}


def make_run(folder: Path, seed: int = 0) -> Run:
    """A run with its text and tokenizer, ready for pretraining."""
    from nanochat.data import TextShards
    from nanochat.data.source import text_shards
    from nanochat.tokenizer import Tokenizer

    run = open_run(folder, scale="smoke", seed=seed, create=True)
    shards = TextShards(text_shards("toy", run / "data", world="smoke", seed=seed)[:-1])
    Tokenizer.train((text for group in range(len(shards)) for text in shards.read(group)), 320, digits=1).save(run / "tokenizer")
    return run


def machine(nproc: int = 1) -> MachineConfig:
    return MachineConfig(device="cpu", dtype="float32", nproc=nproc, threads=1)


def rank_process(ancestor: int, rank: int) -> psutil.Process:
    """The process of this rank among the descendants of a process."""
    for process in psutil.Process(ancestor).children(recursive=True):
        with suppress(psutil.Error):       # one that has ended
            if "nanochat.train.launch" in process.cmdline() and process.environ().get("RANK") == str(rank):
                return process
    raise AssertionError(f"no rank {rank}")


if __name__ == "__main__":
    from nanochat.train.launch import launch

    folder, stage, *rest = sys.argv[1:]
    launch(stage, CONFIGS[stage], open_run(folder), machine(int(rest[0]) if rest else 1))
