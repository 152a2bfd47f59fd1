"""Checkpoints are whole, verified, pruned, never picked when damaged or another run's, written beside the training."""

import json
import threading
from pathlib import Path

import pytest
import torch

from nanochat.model import GPT, GPTConfig
from nanochat.runtime import UserError, World
from nanochat.train import checkpoint
from nanochat.train.saver import Saver

CONFIG = GPTConfig(sequence_len=8, vocab_size=32, n_layer=1, n_head=1, n_kv_head=1, n_embd=16)
BELONGS = {"config": "c0ffee", "tokenizer": "70cab"}


@pytest.fixture
def model():
    model = GPT(CONFIG)
    model.init_weights(seed=0)
    return model


def start(saver, step, model):
    saver.start(step, model=model, optim={"a/momentum": torch.full((3,), float(step))}, data={"cursor": step},
                state={"loss": step / 7})


def save(folder, step, model, keep=2, belongs=BELONGS):
    with Saver(folder, World(), keep=keep, belongs=belongs) as saver:
        start(saver, step, model)
    return saver.last == step


def test_what_is_saved_comes_back_bit_equal(tmp_path, model):
    assert save(tmp_path, 10, model)
    drawn = torch.rand(5)
    weights, optim, data, state = checkpoint.load(checkpoint.latest(tmp_path, **BELONGS))
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    assert torch.equal(optim["a/momentum"], torch.full((3,), 10.0))
    assert data == [{"cursor": 10}] and state["loss"] == 10 / 7 and GPTConfig(**state["model"]) == CONFIG
    checkpoint.restore_random_state(state["rng"][0])
    assert torch.equal(torch.rand(5), drawn)


def test_only_the_newest_are_kept_and_latest_names_the_last(tmp_path, model):
    for step in (1, 2, 3, 4):
        save(tmp_path, step, model, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step_000003", "step_000004"]
    assert (tmp_path / "latest").read_text() == "step_000004\n"
    (tmp_path / "latest").write_text("step_000003\n")
    assert checkpoint.latest(tmp_path).name == "step_000003"
    (tmp_path / "latest").write_text("step_000099\n")
    assert checkpoint.latest(tmp_path).name == "step_000004"


def edit(path: Path, change) -> None:
    path.write_bytes(change(path.read_bytes()))


def edit_manifest(path: Path, **fields) -> None:
    edit(path / "manifest.json", lambda text: json.dumps({**json.loads(text), **fields}).encode())


# damage: (what is done to a checkpoint, what its reason must say)
DAMAGE = {
    "truncated file": (lambda path: edit(path / "optim_rank0.safetensors", lambda b: b[:-10]),
                       "optim_rank0.safetensors has"),
    "flipped bit": (lambda path: edit(path / "model.safetensors", lambda b: b[:-1] + bytes([b[-1] ^ 1])),
                    "model.safetensors does not"),
    "flipped bit in the cursor": (lambda path: edit(path / "rank0.json", lambda b: b.replace(b"2", b"3", 1)),
                                  "rank0.json does not"),
    "missing file": (lambda path: (path / "model.safetensors").unlink(), "model.safetensors is missing"),
    "missing rank": (lambda path: edit_manifest(path, world_size=2), "optim_rank1.safetensors is missing"),
    "broken manifest": (lambda path: edit(path / "manifest.json", lambda b: b[:40]), "manifest.json is not valid JSON"),
    "another schema": (lambda path: edit_manifest(path, schema=99), "schema 99"),
    "wrong tokenizer": (lambda path: edit_manifest(path, tokenizer="beef"), "another tokenizer (beef, here 70cab)"),
    "wrong configuration": (lambda path: edit_manifest(path, config="tea"), "another config (tea, here c0ffee)"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_or_refused_with_its_reason(tmp_path, model, damage, capsys):
    spoil, reason = DAMAGE[damage]
    save(tmp_path, 1, model)
    save(tmp_path, 2, model)
    spoil(tmp_path / "step_000002")
    assert checkpoint.latest(tmp_path, **BELONGS).name == "step_000001"
    assert reason in capsys.readouterr().out
    checkpoint.discard(tmp_path / "step_000001")
    with pytest.raises(UserError) as refused:
        checkpoint.latest(tmp_path, **BELONGS)
    assert reason in str(refused.value) and "step_000002" in str(refused.value)


def test_without_a_manifest_it_does_not_exist(tmp_path, model):
    save(tmp_path, 1, model)
    (tmp_path / "step_000001" / "manifest.json").unlink()
    assert checkpoint.latest(tmp_path) is None


def full_disk(*_):
    raise OSError(28, "No space left on device")


def test_a_full_disk_costs_the_checkpoint_and_not_the_run_until_the_third(tmp_path, model, monkeypatch, capsys):
    save(tmp_path, 1, model)
    with Saver(tmp_path, World(), belongs=BELONGS, last=1) as saver:
        for _ in range(2):                                             # a save that succeeds starts the count anew
            with monkeypatch.context() as m:
                m.setattr(checkpoint, "save_file", full_disk)
                for step in (2, 3):
                    start(saver, step, model)
                    saver.finish()
            assert "No space left" in capsys.readouterr().out and saver.last == 1
            assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step_000001"]
            saver.failures = 0
        with monkeypatch.context() as m:
            m.setattr(checkpoint, "commit", full_disk)
            start(saver, 4, model)
            saver.finish()
        start(saver, 5, model)
        saver.finish()
        assert saver.last == 5
        monkeypatch.setattr(checkpoint, "save_file", full_disk)
        start(saver, 6, model)
        start(saver, 7, model)                                         # reports the failure of 6
        start(saver, 8, model)
        with pytest.raises(UserError, match=r"3 saves in a row have failed, the last good one is step 5"):
            saver.finish()
    assert checkpoint.latest(tmp_path, **BELONGS).name == "step_000005"


def test_no_save_begins_where_it_has_no_room(tmp_path, model, monkeypatch, capsys):
    size = sum(p.nbytes for p in model.state_dict().values()) + 12
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 2 * size - 1}))
    assert not save(tmp_path, 1, model)
    assert "MB of free space" in capsys.readouterr().out and list(tmp_path.iterdir()) == []
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 2 * size}))
    assert save(tmp_path, 2, model)


def test_it_is_written_beside_the_training_from_a_copy(tmp_path, model, monkeypatch):
    go_on, write = threading.Event(), checkpoint.write
    monkeypatch.setattr(checkpoint, "write", lambda *a: (go_on.wait(60), write(*a))[1])
    before = {name: w.clone() for name, w in model.state_dict().items()}
    with Saver(tmp_path, World()) as saver:
        start(saver, 1, model)                                         # returns though nothing can be written yet
        assert not saver.written
        with torch.no_grad():
            for p in model.parameters():
                p.zero_()                                              # the training goes on
        go_on.set()
        start(saver, 2, model)                                         # at most one is in flight: 1 is in place now
        assert saver.last == 1
    assert saver.last == 2
    weights = checkpoint.load(tmp_path / "step_000001")[0]
    assert all(torch.equal(weights[name], w) for name, w in before.items())


def test_a_mistake_in_the_thread_is_not_lost(tmp_path, model, monkeypatch):
    def broken(*_):
        raise TypeError("a mistake of ours")

    monkeypatch.setattr(checkpoint, "write", broken)
    saver = Saver(tmp_path, World())
    start(saver, 1, model)
    with pytest.raises(TypeError, match="a mistake of ours"):
        saver.finish()


def test_an_exception_in_the_training_still_puts_the_save_in_flight_in_place(tmp_path, model):
    with pytest.raises(KeyboardInterrupt), Saver(tmp_path, World()) as saver:
        start(saver, 1, model)
        raise KeyboardInterrupt
    assert checkpoint.latest(tmp_path).name == "step_000001"
