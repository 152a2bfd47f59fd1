"""Pretrain → midtrain → SFT → GRPO, a few steps each, on the formats of the real data: a mirror made here, and the one that
NANOCHAT_HUB names when it is set."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from nanochat.course import load
from nanochat.course.rehearsal import mirror
from nanochat.data import TextShards
from nanochat.data.source import text_shards
from nanochat.runtime import UserError, open_run
from nanochat.serve.export import export
from nanochat.serve.reply import open_engine, reply_with
from nanochat.tokenizer import Tokenizer
from nanochat.train.config import ChatTrainConfig, GRPOConfig, PretrainConfig
from nanochat.train.launch import launch

SHARDS = {"karpathy/climbmix-400b-shuffle": (2, "shard_06542.parquet"), "karpathy/fineweb-edu-100b-shuffle": (2, "shard_01822.parquet")}
MIRRORS = ["made"] + (["NANOCHAT_HUB"] if os.environ.get("NANOCHAT_HUB") else [])


@pytest.fixture(params=MIRRORS)
def hub(request, tmp_path, monkeypatch):
    if request.param == "made":
        import datasets

        monkeypatch.setenv("NANOCHAT_HUB", str(mirror(tmp_path / "hub", SHARDS)))
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("scale", ["gpt2", "speedrun"])         # the two sources, the two architectures, all of Muon's parts
def test_every_stage_takes_steps_on_the_real_formats(hub, tmp_path, scale):
    real = load().scale(scale).pretrain
    source, val = real.data.source, real.data.val_shard
    run = open_run(tmp_path / "run", scale="smoke", create=True)
    data = {"source": source, "shards": 2, "val_shard": val}
    paths = text_shards(source, run / "data", shards=2, val_shard=val)
    Tokenizer.train((text[:2000] for text in TextShards(paths[:1]).read(0)), 300).save(run / "tokenizer")
    muon = {name: getattr(real.optim, name) for name in ("orthogonal", "muoneq", "muon_plus", "normuon_beta", "matrix_decay")}
    common = tiny.COMMON | {"eval_every": 3, "optim": tiny.OPTIM | muon}
    mixture = [{"task": "smoltalk", "share": 0.5}, {"task": "mmlu", "share": 0.2}, {"task": "gsm8k", "share": 0.2},
               {"task": "arc-easy", "share": 0.05}, {"task": "arc-challenge", "share": 0.05}]
    stages = {
        "pretrain": PretrainConfig(data=data, model={"depth": 2, "n_embd": 32, "head_dim": 16, "sequence_len": 256,
                                                      "arch": real.model.arch},
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
    answer = reply_with(open_engine(run), temperature=0, max_tokens=8)
    assert list(answer([{"role": "user", "content": "Who are you?"}]))
    if real.model.arch == "seed":
        export(run, "hf", tmp_path / "hf")
    else:
        with pytest.raises(UserError, match="knows the seed architecture only"):
            export(run, "hf", tmp_path / "hf")


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
