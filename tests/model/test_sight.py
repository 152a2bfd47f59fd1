"""Windows and documents: every path to attention sees what a loop over pairs of tokens sees, and no more."""

import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from nanochat.model import GPTConfig, sight
from nanochat.model.attention import attend_fused, attend_manual
from nanochat.model.documents import sequence_starts
from nanochat.model.sight import (
    Sight,
    attend_flex,
    attend_varlen,
    choose_path,
    use_flash3,
    visible,
)

B, H, D = 2, 4, 16
ONE_ROW = torch.tensor([[0] * 3 + [1] * 2 + [2] * 8 + [3]])
DOCUMENTS = torch.cat((ONE_ROW, torch.tensor([[1] * 14])))  # (B, T): four documents, and one


def pairs(q, k, v, window, documents, scale):
    """One query at a time in Python."""
    y = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for t in range(q.shape[2]):
            seen = [s for s in range(t + 1) if (window is None or t - s <= window)
                    and (documents is None or documents[b, s] == documents[b, t])]  # fmt: skip
            for h in range(q.shape[1]):
                kv = h // (q.shape[1] // k.shape[1])
                weights = (k[b, kv, seen] @ q[b, h, t] * scale).softmax(0)
                y[b, h, t] = weights @ v[b, kv, seen]
    return y


def manual(q, k, v, window, documents, scale):
    return attend_manual(q, k, v, mask_of(q, window, documents), scale)


def fused(q, k, v, window, documents, scale):
    return attend_fused(q, k, v, mask_of(q, window, documents), scale)


def mask_of(q, window, documents):
    return visible(torch.arange(q.shape[2])[None], q.shape[2], window, documents)


def through_sight(q, k, v, window, documents, scale):
    return Sight(torch.arange(q.shape[2])[None], documents).attend(q, k, v, None, window, scale)


def slow_varlen(q, k, v, starts, starts_k, most, most_k, scale, window_size, enable_gqa):
    """What torch promises of `varlen_attn`, which itself runs on GPUs alone. q (tokens, H, D)."""
    assert starts is starts_k and starts.dtype == torch.int32 and enable_gqa == (q.shape[1] != k.shape[1])
    assert window_size[1] == 0 and starts.diff().max() <= most == most_k and starts[0] == 0 and starts[-1] == len(q)
    y = torch.full_like(q, math.nan)
    for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        if b > a:
            rows = [x[a:b].transpose(0, 1)[None] for x in (q, k, v)]
            reach = None if window_size[0] == -1 else window_size[0]
            y[a:b] = pairs(*rows, reach, None, scale)[0].transpose(0, 1)
    return y


@pytest.fixture
def varlen(monkeypatch):
    """attend_varlen with a kernel that runs here."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", slow_varlen, raising=False)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("path", [manual, fused, through_sight, attend_flex, attend_varlen])
@pytest.mark.parametrize("window", [None, 1, 3, 13, 50])
@pytest.mark.parametrize("documents", [None, DOCUMENTS], ids=["whole rows", "documents"])
def test_every_path_sees_what_it_may(varlen, path, window, documents):
    g, T = torch.Generator().manual_seed(0), DOCUMENTS.shape[1]
    q, k, v = (torch.randn(B, n, T, D, generator=g) for n in (H, 2, 2))
    want = pairs(q.double(), k.double(), v.double(), window, documents, 0.4)
    torch.testing.assert_close(path(q, k, v, window, documents, 0.4).double(), want, atol=1e-5, rtol=1e-5)


def test_gradients_over_a_long_row_equal_the_written_out_ones():
    g, T = torch.Generator().manual_seed(0), 300
    documents = (torch.rand(B, T, generator=g) < 0.02).long().cumsum(1)
    up, grads = torch.randn(B, H, T, D, generator=g), []
    qkv = [torch.randn(B, n, T, D, generator=g) for n in (H, 1, 1)]
    for way in (fused, manual):
        leaves = [x.clone().requires_grad_() for x in qkv]
        grads.append(torch.autograd.grad(way(*leaves, 70, documents, 0.25), leaves, up))
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-4)


def test_documents_end_to_end_are_padded_to_a_power_of_two():
    starts = sequence_starts(DOCUMENTS)
    assert starts.tolist() == [0, 3, 5, 13, 14, 28, 28, 28]
    assert sequence_starts(torch.zeros(2, 5)).tolist() == [0, 5, 10, 10]


def test_masks_are_made_once_for_each_window():
    seen = Sight(torch.arange(6)[None])
    q = torch.ones(1, 1, 6, 4)
    for window in (2, 3, 2, None, 2, 100):
        seen.attend(q, q, q, None, window, 1.0)
    assert seen.masks.keys() == {2, 3}


def test_the_probe_takes_the_first_path_that_runs_and_is_right(monkeypatch, capsys):
    config = GPTConfig(256, 64, 4, 4, 2, 64, window_pattern="SL", document_start=1)
    plain = GPTConfig(256, 64, 4, 4, 2, 64)
    assert choose_path(torch.device("cpu"), torch.float32, config) == "mask" and capsys.readouterr().out == ""
    real, cpu = sight.agrees, torch.device("cpu")
    monkeypatch.setattr(sight, "use_flash3", lambda device, right: False)
    monkeypatch.setattr(sight, "agrees", lambda function, device, **rest: real(function, device=cpu, **rest))

    def chosen(config=config):
        return choose_path(SimpleNamespace(type="cuda"), torch.float32, config), capsys.readouterr().out

    assert chosen()[0] == "mask"  # neither kernel has a backward pass on this device
    monkeypatch.setattr(sight, "attend_flex", fused)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", lambda q, *a, **k: q)
    path, line = chosen()  # varlen runs, and is wrong
    assert path == "flex" and "flex" in line and line.count("\n") == 1
    monkeypatch.setattr(sight, "attend_varlen", fused)
    assert chosen()[0] == "varlen"
    monkeypatch.setattr(sight, "agrees", lambda *a, **k: False)
    assert chosen()[0] == "mask"
    assert chosen(plain) == ("mask", "attention: PyTorch's, causal\n")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_path_that_sees_one_token_more_or_less_is_found_out(dtype):
    here = {"device": torch.device("cpu"), "dtype": dtype, "config": GPTConfig(256, 64, 4, 4, 2, 512), "window": 96}

    def passes(wider, documents):
        def path(q, k, v, window, documents, scale):
            return fused(q, k, v, window + wider, documents, scale)

        return sight.agrees(path, documents=documents, **here)

    assert passes(0, True) and passes(0, False)
    assert not passes(-1, False) and not passes(1, False)


def test_flash_attention_3_is_taken_where_it_is_installed_and_right(monkeypatch):
    calls = []
    monkeypatch.setattr("torch.nn.attention.activate_flash_attention_impl", calls.append, raising=False)
    monkeypatch.setattr("torch.nn.attention.restore_flash_attention_impl", lambda: calls.append("back"), raising=False)
    hopper, config = [(9, 0)], GPTConfig(256, 64, 4, 4, 2, 64)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: hopper[0])

    def right(function, **rest):
        return sight.agrees(function, device=torch.device("cpu"), dtype=torch.float32, config=config, **rest)

    assert use_flash3(None, right) and calls == ["FA3"]
    assert not use_flash3(None, lambda *a, **k: False) and calls == ["FA3", "FA3", "back"]
    hopper[0] = (10, 0)
    assert not use_flash3(None, right) and len(calls) == 3

    def missing(name):
        raise ImportError("no flash_attn_3")

    hopper[0] = (9, 0)
    monkeypatch.setattr("torch.nn.attention.activate_flash_attention_impl", missing, raising=False)
    assert not use_flash3(None, right)


def test_the_compiler_is_not_loaded_before_it_is_used():
    """It costs every command, kernel and rank several core seconds."""
    code = "import sys, nanochat.cli, nanochat.train.pretrain; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
