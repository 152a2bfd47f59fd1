"""Pretrain → midtrain → SFT → GRPO, a few steps each, on the formats of the real data: a mirror made here, and the one that
NANOCHAT_HUB names when it is set."""

import os
import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from nanochat.data import TextShards
from nanochat.data.source import text_shards
from nanochat.runtime import UserError, open_run
from nanochat.tokenizer import Tokenizer
from nanochat.train.config import ChatTrainConfig, GRPOConfig, PretrainConfig
from nanochat.train.launch import launch

WORDS = ["the", "a", "town", "river", "house", "walks", "likes", "sees", "red", "small", "old", "and", "but", "near", "under", "tree", "bread", "water", "stone", "road"]
MIRRORS = ["made"] + (["NANOCHAT_HUB"] if os.environ.get("NANOCHAT_HUB") else [])


def sentence(rng: random.Random, n: int) -> str:
    return " ".join(rng.choices(WORDS, k=n)).capitalize() + "."


def make_mirror(root: Path) -> Path:
    """The hub's layout and columns with a few rows of made-up text in each."""
    rng = random.Random(0)

    def write(name: str, row_group: int = 64, **columns) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), root / name, row_group_size=row_group)

    for repo, val in (("karpathy/climbmix-400b-shuffle", "shard_06542"), ("karpathy/fineweb-edu-100b-shuffle", "shard_01822")):
        for shard in ("shard_00000", "shard_00001", val):
            write(f"{repo}/{shard}.parquet", text=[sentence(rng, rng.randint(20, 120)) for _ in range(256)])
    for split in ("train", "test"):
        write(f"HuggingFaceTB/smol-smoltalk/data/{split}-0.parquet", source=["x"] * 60, messages=[
            [{"role": "user", "content": sentence(rng, 6)}, {"role": "assistant", "content": sentence(rng, 12)}] for _ in range(60)])
        write(f"openai/gsm8k/main/{split}-0.parquet", question=[f"Ann has {i} figs and buys 2. How many?" for i in range(40)],
              answer=[f"She has {i}+2=<<{i}+2={i + 2}>>{i + 2}.\n#### {i + 2}" for i in range(40)])
        for config in ("ARC-Easy", "ARC-Challenge"):
            write(f"allenai/ai2_arc/{config}/{split}-0.parquet", id=["1"] * 8, question=[sentence(rng, 5)] * 8, answerKey=["B"] * 8,
                  choices=[{"text": ["sand", "rain", "stone", "fire"], "label": ["A", "B", "C", "D"]}] * 8)
    for split in ("auxiliary_train", "test", "validation", "dev"):
        write(f"cais/mmlu/all/{split}-0.parquet", question=[sentence(rng, 5)] * 8, subject=["sums"] * 8,
              choices=[["1", "2", "3", "4"]] * 8, answer=[3] * 8)
    return root


@pytest.fixture(params=MIRRORS)
def hub(request, tmp_path, monkeypatch):
    if request.param == "made":
        import datasets

        monkeypatch.setenv("NANOCHAT_HUB", str(make_mirror(tmp_path / "hub")))
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("source, val", [("karpathy/climbmix-400b-shuffle", "shard_06542.parquet"),
                                         ("karpathy/fineweb-edu-100b-shuffle", "shard_01822.parquet")])
def test_every_stage_takes_steps_on_the_real_formats(hub, tmp_path, source, val):
    run = open_run(tmp_path / "run", scale="smoke", create=True)
    data = {"source": source, "shards": 2, "val_shard": val}
    paths = text_shards(source, run / "data", shards=2, val_shard=val)
    Tokenizer.train((text[:2000] for text in TextShards(paths[:1]).read(0)), 300).save(run / "tokenizer")
    common = tiny.COMMON | {"eval_every": 3}
    mixture = [{"task": "smoltalk", "share": 0.5}, {"task": "mmlu", "share": 0.2}, {"task": "gsm8k", "share": 0.2},
               {"task": "arc-easy", "share": 0.05}, {"task": "arc-challenge", "share": 0.05}]
    stages = {
        "pretrain": PretrainConfig(data=data, model={"depth": 2, "n_embd": 32, "head_dim": 16, "sequence_len": 256},
                                   schedule={"steps": 3}, **common),
        "midtrain": ChatTrainConfig(schedule={"steps": 3}, mixture=mixture, **common),
        "sft": ChatTrainConfig(schedule={"steps": 3}, mixture=mixture, **common),
        "grpo": GRPOConfig(task="gsm8k", schedule={"steps": 2}, prompts=2, samples=2, max_tokens=16, replay_rows=4, eval_prompts=2,
                           eval_samples=2, heldout_items=4, mixture=mixture, optim=tiny.OPTIM),
    }
    for stage, config in stages.items():
        result = launch(stage, config, run, tiny.machine())
        assert (run / tiny.FOLDERS[stage] / "result.json").exists()
        if stage == "pretrain":
            assert 0 < result["val_bpb"] < 12


def test_without_mirror_and_network_the_message_says_what_to_set(monkeypatch, tmp_path):
    """Run apart: whether there is a network is found out once a process."""
    import subprocess

    code = ("import socket\n"
            "def unreachable(*a, **k): raise OSError('Network is unreachable')\n"
            "socket.create_connection = unreachable; socket.getaddrinfo = unreachable\n"
            "from nanochat.data import hub\nfrom nanochat.runtime import UserError\n"
            "try: hub.file('karpathy/climbmix-400b-shuffle', 'shard_00000.parquet')\n"
            "except UserError as e: print(e)\n"
            "try: hub.load('openai/gsm8k', 'main')\n"
            "except UserError as e: print(e)\n")
    environment = {k: v for k, v in os.environ.items() if k != "NANOCHAT_HUB"} | {"HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all("NANOCHAT_HUB" in line for line in lines), done.stdout + done.stderr


def test_a_missing_file_in_the_mirror_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("NANOCHAT_HUB", str(tmp_path))
    with pytest.raises(UserError, match="shard_00000.parquet of karpathy.climbmix-400b-shuffle is not in the mirror"):
        text_shards("karpathy/climbmix-400b-shuffle", tmp_path, shards=8, val_shard="shard_06542.parquet")
