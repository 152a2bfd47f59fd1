"""Checkpoints are whole, verified, pruned, and never picked when damaged."""

import pytest
import torch

from nanochat.model import GPT, GPTConfig
from nanochat.runtime import World
from nanochat.train import checkpoint

CONFIG = GPTConfig(sequence_len=8, vocab_size=32, n_layer=1, n_head=1, n_kv_head=1, n_embd=16)


@pytest.fixture
def model():
    model = GPT(CONFIG)
    model.init_weights(seed=0)
    return model


def save(folder, step, model, keep=2):
    return checkpoint.save(folder, step, World(), model=model, optim={"a/momentum": torch.full((3,), float(step))},
                           data={"cursor": step}, state={"loss": step / 7}, keep=keep)


def test_what_is_saved_comes_back_bit_equal(tmp_path, model):
    assert save(tmp_path, 10, model)
    weights, optim, data, state = checkpoint.load(checkpoint.latest(tmp_path))
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    assert torch.equal(optim["a/momentum"], torch.full((3,), 10.0))
    assert data == [{"cursor": 10}] and state["loss"] == 10 / 7 and GPTConfig(**state["model"]) == CONFIG


def test_only_the_newest_are_kept(tmp_path, model):
    for step in (1, 2, 3, 4):
        save(tmp_path, step, model, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_000003", "step_000004"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "no manifest"])
def test_a_damaged_checkpoint_is_passed_over_with_its_reason(tmp_path, model, damage, capsys):
    save(tmp_path, 1, model)
    save(tmp_path, 2, model)
    path = tmp_path / "step_000002" / "model.safetensors"
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncate":
        path.write_bytes(content[:-10])
    elif damage == "delete":
        path.unlink()
    else:
        (tmp_path / "step_000002" / "manifest.json").unlink()
    assert checkpoint.latest(tmp_path).name == "step_000001"
    assert damage == "no manifest" or "model.safetensors" in capsys.readouterr().out


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(tmp_path, model, monkeypatch, capsys):
    save(tmp_path, 1, model)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(checkpoint, "save_file", full_disk)
        assert save(tmp_path, 2, model) is False
    assert "No space left" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["step_000001"]
    assert save(tmp_path, 3, model)


def test_a_save_that_was_killed_does_not_exist(tmp_path, model, monkeypatch):
    save(tmp_path, 1, model)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(checkpoint, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2, model)
    assert checkpoint.latest(tmp_path).name == "step_000001"
    assert save(tmp_path, 2, model)
    assert checkpoint.latest(tmp_path).name == "step_000002"
