"""Run by test_ranks.py, alone or under torchrun: every evaluation once; rank 0 writes what came out."""

import json
import sys
from pathlib import Path

import torch.distributed as dist
from scripted import ByteTokenizer, Scripted, pseudo_random
from test_bpb import LENGTHS, data
from test_chat_evals import letters_quiz

from nanochat.engine import Engine
from nanochat.evals import bits_per_byte, core, evaluate_task, sample_curve
from nanochat.runtime import world


def main(bundle: Path, out: Path) -> None:
    peers, model, tokenizer = world("cpu"), Scripted(pseudo_random), ByteTokenizer()
    inputs, targets = data()
    results = {
        "bpb": bits_per_byte(model, [(inputs[peers.rank :: peers.size], targets[peers.rank :: peers.size])], LENGTHS),
        "core": core.evaluate(model, tokenizer, bundle, 7),
        "chat": evaluate_task(Engine(model, tokenizer), letters_quiz(), log=out.with_suffix(".jsonl")),
        "curve": sample_curve(Engine(model, tokenizer), letters_quiz(3), num_samples=2),
    }
    if peers.main:
        out.write_text(json.dumps(results))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
    if dist.is_initialized():
        dist.destroy_process_group()
