"""A miniseries: settings from depth, one training each, and what is left in the run."""

import math

import pytest
import tiny

from nanochat.course import load
from nanochat.runtime import UserError, read_json
from nanochat.train import launch, miniseries
from nanochat.train.config import MiniseriesConfig

BIG = tiny.CONFIGS["pretrain"]
CHOSEN = MiniseriesConfig(depths=[1, 2, 3, 4, 5], width=8, compile=False)


@pytest.mark.parametrize("scale", load().scales)
def test_every_scale_has_a_series_below_its_run(scale):
    s = load().scale(scale)
    vocab_size = s.tokenizer.vocab_size
    big, members = miniseries.sized(s.pretrain, vocab_size), miniseries.series(s.pretrain, s.miniseries, vocab_size)
    assert [m.params for m in members] == sorted(m.params for m in members) and members[-1].params < big.params
    assert sum(m.flops for m in members) < (0.15 if scale != "smoke" else 1.5) * big.flops
    for member in members:
        assert member.config.rows % s.pretrain.streams == 0
        if scale != "smoke":  # a handful of steps cannot be shared out
            assert member.tokens / member.params == pytest.approx(big.tokens / big.params, rel=0.02)


def test_settings_follow_from_the_runs_own():
    toy = load().scale("toy")
    small = miniseries.series(toy.pretrain, toy.miniseries, 512)[2]  # 32 wide
    share, c, o = 81_920 / 917_504, small.config, toy.pretrain.optim
    assert (c.model.depth, c.model.n_embd, small.params) == (4, 32, 81_920)
    assert c.rows == 16 and abs(math.log2(32 * share**0.383 / 16)) < 0.5
    assert c.schedule.steps == round(650 * share * 2) and c.schedule.warmup == 4
    assert c.optim.matrix_lr == pytest.approx(o.matrix_lr * math.sqrt(1 / 2))
    assert c.optim.embedding_lr == pytest.approx(o.embedding_lr * math.sqrt(1 / 2) * math.sqrt(128 / 32))


def test_a_series_is_trained_once_and_leaves_no_weights(tmp_path, monkeypatch):
    run = tiny.make_run(tmp_path / "r")
    members = miniseries.series(BIG, CHOSEN, 320)[:2]
    losses = [miniseries.train(m, run, tiny.machine()) for m in members]
    assert all(3 < loss < math.log2(320) for loss in losses) and not (run / "base").exists()
    for member, loss in zip(members, losses, strict=True):
        folder = run / member.config.folder
        assert read_json(folder / "result.json")["params"] == member.params and not list(folder.rglob("*.safetensors"))
    monkeypatch.setattr("nanochat.train.pretrain.train", None)  # nothing may be trained from here on
    assert [miniseries.train(m, run, tiny.machine()) for m in members] == losses
    with pytest.raises(UserError, match="optim.matrix_lr"):
        faster = BIG.model_copy(update={"optim": BIG.optim.model_copy(update={"matrix_lr": 0.1})})
        miniseries.train(miniseries.series(faster, CHOSEN, 320)[0], run, tiny.machine())


def test_an_interrupted_member_goes_on_to_the_same_loss(tmp_path, monkeypatch):
    member = miniseries.series(BIG, CHOSEN, 320)[1]
    calm = miniseries.train(member, tiny.make_run(tmp_path / "calm"), tiny.machine())
    run, seen = tiny.make_run(tmp_path / "cut"), []

    def cut(*row):
        seen.append(row)
        raise KeyboardInterrupt

    monkeypatch.setattr("nanochat.train.pretrain.validation_bpb", cut)  # after the last step, before the result
    with pytest.raises(KeyboardInterrupt):
        launch.launch("pretrain", member.config, run, tiny.machine())
    monkeypatch.undo()
    assert seen and list((run / member.config.folder).glob("step_*"))
    assert miniseries.train(member, run, tiny.machine()) == calm
