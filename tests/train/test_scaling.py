"""Hyperparameters from depth: the reference's listed numbers, what a stage writes itself, and the stage that says them."""

import copy

import pytest
import torch
from tiny import COMMON, machine, make_run
from torch import nn

from nanochat.model import GPT, GPTConfig
from nanochat.runtime import UserError, read_json
from nanochat.train import scaling
from nanochat.train.config import ModelConfig, PretrainConfig
from nanochat.train.launch import launch

# The reference's list: depth, width, heads, weights of the blocks, batch, steps at 12 and at 8 tokens a weight, decay.
LISTED = [
    (4, 256, 2, 3_145_776, 2**18, 528, 352, 1.890), (6, 384, 3, 10_616_940, 2**18, 1_062, 708, 0.940),
    (8, 512, 4, 25_166_016, 2**18, 1_920, 1_280, 0.520), (10, 640, 5, 49_152_300, 2**19, 1_605, 1_070, 0.440),
    (12, 768, 6, 84_935_088, 2**19, 2_520, 1_680, 0.280), (14, 896, 7, 134_873_676, 2**19, 3_759, 2_506, 0.188),
    (16, 1024, 8, 201_327_360, 2**19, 5_376, 3_584, 0.131), (18, 1152, 9, 286_655_436, 2**20, 3_712, 2_475, 0.134),
    (20, 1280, 10, 393_217_200, 2**20, 4_980, 3_320, 0.100), (22, 1408, 11, 523_371_948, 2**20, 6_517, 4_345, 0.077),
    (24, 1536, 12, 679_478_976, 2**20, 8_352, 5_568, 0.060), (26, 1664, 13, 863_897_580, 2**20, 10_510, 7_007, 0.048),
    (28, 1792, 14, 1_078_987_056, 2**20, 13_020, 8_680, 0.038), (30, 1920, 15, 1_327_106_700, 2**20, 15_907, 10_605, 0.031),
    (32, 2048, 16, 1_610_615_808, 2**21, 9_600, 6_400, 0.037), (34, 2176, 17, 1_931_873_676, 2**21, 11_462, 7_641, 0.031),
]  # fmt: skip


def speedrun(depth: int, **changes) -> dict:
    return {"data": {}, "model": {"depth": depth, "sequence_len": 2048, "arch": "speedrun"}, "horizon": 8, **changes}


def config(stage: dict) -> PretrainConfig:
    return PretrainConfig.model_validate(scaling.filled(stage, 32768))


@pytest.mark.parametrize("depth, width, heads, blocks, batch, steps12, steps8, decay", LISTED, ids=lambda v: str(v))
def test_numbers_from_depth_equal_the_listed_ones(depth, width, heads, blocks, batch, steps12, steps8, decay):
    large, wide = (batch / 2**19) ** 0.5, (768 / width) ** 0.5
    for ratio, steps in ((12, steps12), (8, steps8)):
        c = config(speedrun(depth, horizon=ratio))
        assert scaling.scaling_params(c.model, 32768) == blocks + 32768 * width
        assert (c.model.n_embd, c.rows * 2048, c.schedule.steps) == (width, batch, steps)
        assert c.optim.matrix_decay == pytest.approx(decay, abs=6e-4)
        rates = c.optim.matrix_lr, c.optim.embedding_lr, c.optim.unembedding_lr, c.optim.scalar_lr
        assert rates == pytest.approx((0.02 * large, 0.3 * large * wide, 0.008 * large * wide, 0.5 * large), rel=1e-5)
        assert {d.name: d.value for d in scaling.rules(c.model, 32768, ratio)}["heads"] == heads


def test_odd_depths_round_up_to_whole_heads():
    assert scaling.width(25) == scaling.width(26) == 1664 and scaling.heads(25) == 13


@pytest.mark.parametrize("vocab_size, shape", [
    (65536, {"depth": 20, "sequence_len": 2048}), (1000, {"depth": 5, "sequence_len": 64}),
    (500, {"depth": 5, "sequence_len": 64, "arch": "speedrun"}),
    (512, {"depth": 4, "sequence_len": 64, "n_embd": 128, "head_dim": 32, "n_kv_head": 2, "arch": "speedrun"}),
])  # fmt: skip
def test_scaling_params_are_the_built_model_s(vocab_size, shape):
    model = ModelConfig(**shape)
    rest = {k: v for k, v in model.model_dump().items() if k not in ("depth", "sequence_len")}
    with torch.device("meta"):
        built = GPT(GPTConfig.from_depth(model.depth, vocab_size, model.sequence_len, **rest))
    matrices = [m for name, m in built.named_modules() if isinstance(m, nn.Linear) and not name.startswith("smear")]
    assert scaling.scaling_params(model, vocab_size) == sum(m.weight.numel() for m in matrices)
    assert scaling.model_width(model) == built.config.n_embd


def test_what_a_stage_writes_stays_and_the_others_follow_from_it():
    written = speedrun(24, rows=256, optim={"embedding_lr": 0.1, "momentum": 0.97}, schedule={"warmup": 40})
    before = copy.deepcopy(written)
    c = config(written)
    assert written == before, "course.yml's anchors share what is under them"
    assert (c.rows, c.optim.embedding_lr, c.optim.momentum, c.schedule.warmup) == (256, 0.1, 0.97, 40)
    assert (c.schedule.steps, c.optim.matrix_lr) == (11_136, 0.02), "of half the batch"
    whole = config(speedrun(24))
    assert c.optim.matrix_decay == pytest.approx(whole.optim.matrix_decay / 2**0.5, rel=1e-5)
    assert config(speedrun(24, schedule={"steps": 100})).optim == whole.optim, "a shorter run changes no rate"


def test_scale_by_width_ends_in_the_same_rates():
    stage = speedrun(24, optim={"scale_by_width": True})
    assert config(stage).optim.embedding_lr * 0.5**0.5 == pytest.approx(config(speedrun(24)).optim.embedding_lr)
    line = {row.split("  ")[0]: row for row in scaling.table(config(stage), 32768)}["embedding rate"]
    assert line.split()[2:4] == ["0.3", "0.3"]


def test_the_stage_begins_with_a_table_of_its_numbers(tmp_path, capsys):
    stage = {**COMMON, "optim": {}, "data": {"world": "smoke"}, "horizon": 0.06,
             "model": {"depth": 2, "n_embd": 32, "head_dim": 16, "sequence_len": 64}}  # fmt: skip
    c = PretrainConfig.model_validate(scaling.filled(stage, 320))
    assert c.schedule.steps == 0.06 * (2 * 12 * 32**2 + 320 * 32) // (8 * 64) == 4
    run = make_run(tmp_path / "run")
    launch("pretrain", c, run, machine())
    said = capsys.readouterr().out
    assert "tokens / batch, rounded down" in said and said.index("from depth") < said.index("base: 4 steps")
    assert read_json(run / "base/config.json")["config"]["optim"]["matrix_lr"] == c.optim.matrix_lr > 0
    again = c.model_copy(update={"schedule": c.schedule.model_copy(update={"steps": 5})})
    with pytest.raises(UserError, match="schedule.steps 4 → 5"):
        launch("pretrain", again, run, machine())
