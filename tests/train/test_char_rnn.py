"""Training the recurrent baseline: the text it sees, the number it reports, and that a kill changes nothing."""

import math
import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nanochat.data import write_shard
from nanochat.model.char_rnn import BOS, CharRNN
from nanochat.runtime import UserError, open_run
from nanochat.train import char_rnn
from nanochat.train.config import CharRNNConfig

CONFIG = CharRNNConfig(n_embd=24, n_hidden=24, n_layer=1, steps=120, rows=8, sequence_len=16, lr=2e-2)


@pytest.fixture
def run(tmp_path):
    run = open_run(tmp_path / "run", scale="smoke", seed=0, create=True)
    for number in range(3):
        write_shard(run / "data" / "text" / f"shard_{number}.parquet", ["the cat sat. " * 5] * 20)
    return run


def test_it_learns_reports_and_loads_what_it_has_done(run):
    rows = []
    result = char_rnn.fit(run, CONFIG, live=rows.append)
    model = char_rnn.load(run, CONFIG)
    assert result["val_bpb"] < 0.1 and result["params"] == model.num_params() and result["steps"] == 120
    assert result["core_s"] > 0 and run.results()["char_rnn.val_bpb"] == result["val_bpb"]
    assert rows[-1] == {"kind": "val", "step": 120, "val_bpb": result["val_bpb"], "core_s": result["core_s"]}
    assert rows == run.history("char_rnn") and rows[0]["loss"] > rows[-2]["loss"]
    assert model.generate(b"the c", 8, temperature=0) == b"at sat. "
    assert char_rnn.fit(run, CONFIG, live=rows.append) == result and len(rows) == len(run.history("char_rnn"))
    assert not list((run / "char_rnn").glob("step_*"))


def test_another_configuration_or_other_text_is_refused(run):
    char_rnn.fit(run, CONFIG)
    with pytest.raises(UserError, match="lr"):
        char_rnn.fit(run, CONFIG.model_copy(update={"lr": 1e-3}))
    write_shard(run / "data" / "text" / "shard_0.parquet", ["a dog ran. " * 6] * 20)
    with pytest.raises(UserError, match="text"):
        char_rnn.fit(run, CONFIG)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_an_interrupted_training_ends_with_the_same_weights(run, tmp_path, monkeypatch, kind):
    config = CONFIG.model_copy(update={"kind": kind})
    monkeypatch.setattr(char_rnn, "SAVE_EVERY", 8)
    whole = open_run(tmp_path / "whole", scale="smoke", seed=0, create=True)
    (whole / "data").symlink_to(run / "data")
    want = char_rnn.fit(whole, config)

    def killed(row):
        if row["step"] == 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        char_rnn.fit(run, config, live=killed)
    steps = []
    got = char_rnn.fit(run, config, live=lambda row: steps.append(row["step"]))
    assert steps == [100, 110, 120, 120]  # from step 96 on, not from the beginning
    assert got["val_bpb"] == want["val_bpb"]
    paths = [r / "char_rnn" / "model.safetensors" for r in (run, whole)]
    torch.testing.assert_close(load_file(paths[0]), load_file(paths[1]), atol=0, rtol=0)


def test_a_stop_saves_the_step_and_a_loss_that_is_not_finite_leaves_the_save(run, monkeypatch, capsys):
    def stop_at_20(row):
        if row["step"] == 20:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        char_rnn.fit(run, CONFIG, live=stop_at_20)
    assert "char_rnn: saved step 20 of 120" in capsys.readouterr().out
    saved = (run / "char_rnn" / "step_saved.safetensors").read_bytes()
    with monkeypatch.context() as m:
        m.setattr(char_rnn.F, "cross_entropy", lambda logits, targets, **_: logits.sum() * math.nan)
        with pytest.raises(UserError, match="at step 21; the save before it is kept"):
            char_rnn.fit(run, CONFIG)
    assert saved == (run / "char_rnn" / "step_saved.safetensors").read_bytes()
    assert char_rnn.fit(run, CONFIG)["val_bpb"] < 0.1


def test_lanes_are_the_documents_in_order_each_opened_by_bos(tmp_path):
    write_shard(tmp_path / "a.parquet", ["ab", "é"])
    write_shard(tmp_path / "b.parquet", ["", "xyz"])
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    ids = [BOS, *b"ab", BOS, *"é".encode(), BOS, BOS, *b"xyz"]
    assert char_rnn.read_lanes(paths, 1, 100).tolist() == [ids]
    assert char_rnn.read_lanes(paths, 2, 100).tolist() == [ids[:5], ids[5:10]]
    assert char_rnn.read_lanes(paths, 2, 6).tolist() == [ids[:3], ids[3:6]]
    with pytest.raises(UserError, match="too few"):
        char_rnn.read_lanes(paths, 9, 100)


def test_windows_follow_one_another_and_begin_again_after_the_end():
    lanes = np.arange(14, dtype=np.uint16).reshape(2, 7)
    windows = [char_rnn.window(lanes, step, 3, "cpu") for step in range(3)]
    assert [w[0][0].tolist() for w in windows] == [[0, 1, 2], [3, 4, 5], [6, 0, 1]]
    assert [w[0][1].tolist() for w in windows] == [[7, 8, 9], [10, 11, 12], [13, 7, 8]]
    assert [w[1][0].tolist() for w in windows] == [[1, 2, 3], [4, 5, 6], [0, 1, 2]]


def test_bits_per_byte_sums_over_the_bytes_and_leaves_bos_out():
    model = CharRNN(n_embd=8, n_layer=1).init_weights(0)
    with torch.no_grad():
        model.head.weight.mul_(5)
    lanes = np.array([[BOS, *b"hello", BOS, *b"you", 33, 34, 35]], dtype=np.uint16)  # 12 targets, 11 of them bytes
    logits, _ = model(torch.from_numpy(lanes[:, :-1].astype(np.int64)))
    nats = -logits[0].double().log_softmax(-1)[range(12), lanes[0, 1:].tolist()]
    want = nats[torch.from_numpy(lanes[0, 1:] != BOS)].sum().item() / math.log(2) / 11
    for length in (3, 4, 12, 100):  # however it is cut
        assert char_rnn.bits_per_byte(model, lanes, length) == pytest.approx(want, rel=1e-5)


def test_a_run_without_text_is_told_so(tmp_path):
    run = open_run(tmp_path / "empty", scale="smoke", seed=0, create=True)
    with pytest.raises(UserError, match="text"):
        char_rnn.fit(run, CONFIG)
    with pytest.raises(UserError, match="lesson 03"):
        char_rnn.load(run, CONFIG)
