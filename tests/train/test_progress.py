"""What a stage tells: rows, lines at tenths, a line a second on a terminal, a tracker; its speed; and the collector's rest."""

import gc
import io
import os
import sys
import types
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from nanochat.model import GPT, GPTConfig
from nanochat.model.sight import visible
from nanochat.runtime import UserError, World, open_run
from nanochat.runtime.device import peak_flops
from nanochat.train import progress as told
from nanochat.train.config import MachineConfig
from nanochat.train.garbage import Garbage
from nanochat.train.launch import launch
from nanochat.train.loop import keep_compiled
from nanochat.train.progress import Progress, Speed


@pytest.fixture
def run(tmp_path):
    return open_run(tmp_path / "run", scale="smoke", seed=0, create=True)


def tell(run, steps=40, log_every=5):
    """A stage of 0.25 s a step."""
    clock = iter(range(10**6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(told.time, "monotonic", lambda: 100 + next(clock) / 4)
        with Progress(run, "base", steps, World()) as progress:
            for step in range(1, steps + 1):
                progress({"step": step, "loss": 1 / step, "tok_per_s": 1234567.0}, logged=step % log_every == 0)


def test_without_a_terminal_there_are_ten_lines_and_the_logged_rows(run, capsys):
    tell(run)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and lines[4] == "base    20/40  loss 0.05  tok_per_s 1,234,567"
    assert [row["step"] for row in run.history("base")] == list(range(5, 41, 5))


def test_a_terminal_gets_a_line_a_second_in_one_place_with_the_time_left(run, monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "60")
    tell(run, steps=4000, log_every=4000)
    places = screen.getvalue().split("\r\x1b[K")[1:]
    assert len(places) == pytest.approx(1000, abs=20) and screen.getvalue().count("\n") == 10
    assert max(len(place.rstrip("\n")) for place in places) <= 59
    assert "17 min left" in places[2] and "1 min left" in places[-2]


def test_every_rank_but_the_first_is_silent_and_ends_with_its_launcher(run, monkeypatch, capsys):
    monkeypatch.setattr("os.getppid", lambda: 4711)
    with Progress(run, "base", 1, World(rank=1, size=2), "wandb") as progress:
        progress({"step": 1, "loss": 1.0})
        monkeypatch.setattr("os.getppid", lambda: 1)
        with pytest.raises(SystemExit):
            progress({"step": 2, "loss": 1.0})
    assert capsys.readouterr().out == "" and run.history("base") == []


@pytest.fixture
def tensorboard(monkeypatch):
    """A stand-in for the package: {(name, step): value}, and the folder."""
    seen = {}

    class SummaryWriter:
        def __init__(self, folder):
            seen["folder"] = folder

        def __enter__(self):
            return self

        def __exit__(self, *_):
            seen["closed"] = True

        def add_scalar(self, name, value, step):
            seen[name, step] = value

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    return seen


def test_a_tracker_hears_every_logged_row(tmp_path, tensorboard):
    run = tiny.make_run(tmp_path / "run")
    machine = tiny.machine().model_copy(update={"tracker": "tensorboard"})
    config = tiny.CONFIGS["pretrain"].model_copy(update={"log_every": 10})
    with pytest.raises(SystemExit):
        launch("pretrain", config, run, machine, live=stop_at(20))
    rows = [row for row in run.history("base") if "loss" in row]
    assert [row["step"] for row in rows] == [10, 20] and {"tok_per_s", "memory_gb", "core_s"} < rows[0].keys()
    assert all(tensorboard[name, row["step"]] == row[name] for row in rows for name in ("loss", "tok_per_s", "grad_norm"))
    assert tensorboard["folder"] == str(run / "base" / "tensorboard") and tensorboard["closed"]


def stop_at(step):
    def live(row):
        if row["step"] == step:
            raise SystemExit(0)

    return live


def test_without_a_compiler_it_trains_and_says_so_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    run, config = tiny.make_run(tmp_path / "run"), tiny.CONFIGS["pretrain"].model_copy(update={"compile": True})
    with pytest.raises(SystemExit):
        launch("pretrain", config, run, tiny.machine(), live=stop_at(2))
    assert capsys.readouterr().out.count("no C++ compiler found") == 1


@pytest.mark.parametrize(("kind", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_tracker_that_is_not_installed_is_named_before_the_first_step(run, monkeypatch, kind, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f"machine.tracker is {kind}, which is not installed: pip install {kind}"):
        Progress(run, "base", 10, World(), kind).__enter__()
    with pytest.raises(ValueError, match="tracker"):
        MachineConfig(tracker="logbook")


@pytest.mark.parametrize("arch", ["seed", "speedrun"])
def test_exact_flops_count_the_pairs_that_a_token_sees(arch):
    T = 64
    model = GPT(GPTConfig.from_depth(4, 300, T, n_embd=32, head_dim=16, arch=arch))
    c = model.config
    pairs = [visible(torch.arange(T)[None], T, c.window(layer), None).sum().item() for layer in range(c.n_layer)]
    full = [min(c.window(layer) or T, T) * T for layer in range(c.n_layer)]
    counted = 12 * c.n_embd * (sum(full) - sum(pairs)) / T
    assert model.flops_per_token() - model.flops_per_token(exact=True) == pytest.approx(counted, abs=1)


@pytest.mark.parametrize(("name", "peak"), [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12),
                                            ("NVIDIA A100-SXM4-80GB", 312e12), ("Some GPU", None)])
def test_mfu_is_the_share_of_all_gpus_peak_and_unknown_for_others(monkeypatch, name, peak):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: name)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: 5 * 10**9)
    assert peak_flops(torch.device("cuda")) == peak and peak_flops(torch.device("cpu")) is None
    with torch.device("meta"):
        model = GPT(GPTConfig.from_depth(4, 300, 64))
    got = Speed(model, World(size=8, device=torch.device("cuda")))(tokens=8_000, seconds=2.0)
    want = {"tok_per_s": 4000, "memory_gb": 5}
    if peak:
        want |= {"mfu": 4000 * model.flops_per_token() / (8 * peak),
                 "mfu_exact": 4000 * model.flops_per_token(exact=True) / (8 * peak)}
    assert got == pytest.approx(want) and ("mfu" in got) == bool(peak)


def test_the_collector_rests_between_calls_and_works_again_after_an_error():
    class Node:
        def __init__(self):
            self.itself = self

        def __del__(self):
            freed.append(1)

    freed: list[int] = []
    assert gc.isenabled()
    with pytest.raises(RuntimeError), Garbage() as garbage:
        Node()
        assert not gc.isenabled() and not freed
        garbage.collect()
        assert freed == [1] and gc.get_freeze_count() > 1000
        Node()
        garbage.collect()
        assert freed == [1, 1]
        raise RuntimeError
    assert gc.isenabled() and gc.get_freeze_count() == 0


@pytest.mark.parametrize(("given", "home"), [("/chosen", "home"), (None, "home"), (None, "file/home")])
def test_compiled_code_is_kept_where_the_user_says_or_in_the_cache_folder(tmp_path, monkeypatch, given, home):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / home))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", given or "")
    if not given:
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    keep_compiled()
    kept = {"home": str(tmp_path / home / "nanochat" / "inductor"), "file/home": None}[home]
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == (given or kept)
