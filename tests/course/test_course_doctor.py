"""The doctor names what is missing and what to do about it."""

from types import SimpleNamespace

import pytest

from nanochat.course import doctor, load, preflight
from nanochat.runtime import UserError


def test_a_machine_that_runs_these_tests_is_well(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NANOCHAT_HUB", str(tmp_path))
    assert doctor.main() == 0
    out = capsys.readouterr().out
    assert "✓ python" in out and "✓ rustbpe" in out and f"mirror at {tmp_path}" in out


def test_what_is_missing_comes_with_a_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NANOCHAT_HUB", str(tmp_path / "gone"))
    monkeypatch.setattr(preflight.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor, "_package", lambda name, remedy: doctor.Finding(name, "cannot be imported", remedy))
    assert doctor.main() == 1
    out = capsys.readouterr().out
    assert "✗ rustbpe" in out and "→ run `make course`" in out
    assert "! C++ compiler     none → torch.compile needs one" in out
    assert "✗ hub" in out and "which is not a folder" in out


# --- a scale's machine ------------------------------------------------------------------------------------------------

H100S = [{"rank": i, "devices": 8, "device": "NVIDIA H100", "free": 0.99, "sum": True, "backend": "nccl", "compile": ""}
         for i in range(8)]  # fmt: skip


def faults(told, scale="speedrun"):
    return {finding.what: finding.fault for finding in preflight.judge(load().scale(scale), told) if finding.fault}


def test_eight_gpus_that_add_up_and_compile_are_well():
    found = preflight.judge(load().scale("speedrun"), H100S)
    assert [(f.what, f.found) for f in found] == [
        ("devices", "8 × NVIDIA H100"), ("all-reduce", "8 of 8 processes, nccl"), ("torch.compile", "works")]  # fmt: skip
    assert not faults(H100S)


@pytest.mark.parametrize("told, what, fault", [
    ([rank | {"devices": 4} for rank in H100S[:4]], "devices", "has 8 processes, one a GPU: say --nproc 4"),
    ([*H100S[:7], H100S[7] | {"free": 0.4}], "devices", "GPU 7 has 40% of its memory free: end what else runs there"),
    ([*H100S[:7], H100S[7] | {"sum": False}], "all-reduce", "NCCL_DEBUG=INFO"),
    (H100S[:7], "all-reduce", "NCCL_DEBUG=INFO"),
    ([H100S[0] | {"compile": "fails (no triton)"}, *H100S[1:]], "torch.compile", "install a C++ compiler"),
])  # fmt: skip
def test_what_a_rank_cannot_do_is_a_line_with_a_remedy(told, what, fault):
    assert fault in faults(told)[what]


def test_two_processes_here_find_each_other(tmp_path, monkeypatch):
    found = preflight.examine(load().scale("smoke").changed({"machine": {"nproc": 2}}))
    assert {f.what: f.found for f in found}["all-reduce"] == "2 of 2 processes, gloo"
    assert not [f for f in found if f.fault]


def test_gpus_that_are_not_here_are_one_line():
    [found] = preflight._ranks(load().scale("gpu1"))
    assert "torch sees no GPU" in found.fault


def test_a_plan_that_does_not_fit_is_a_fault():
    scale = load().scale("smoke").changed({"machine": {"nproc": 3}})
    assert "streams is 4, which 3 processes cannot share" in preflight._plan(scale).fault


def test_room_and_shards_are_counted_for_the_scale(tmp_path, monkeypatch):
    scale = load().scale("speedrun")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NANOCHAT_RUNS", str(tmp_path))
    monkeypatch.delenv("NANOCHAT_HUB", raising=False)
    monkeypatch.setattr(doctor, "hub_reached", lambda: doctor.Finding("hub", "huggingface.co is reached"))
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda folder: SimpleNamespace(free=60e9))
    room, shards = preflight._room(scale), preflight._shards(scale)
    assert "60.0 GB free, checkpoints and shards take" in room.found and "make room on the disk of" in room.fault
    assert shards.found == "0 of 241 shards are here, the others come while lessons 01 to 04 run" and not shards.fault
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda folder: SimpleNamespace(free=6e12))
    folder = tmp_path / "nanochat" / "hub" / scale.pretrain.data.source
    folder.mkdir(parents=True)
    (folder / "shard_00007.parquet").touch()
    assert not preflight._room(scale).fault and preflight._shards(scale).found.startswith("1 of 241")
    monkeypatch.setattr(doctor, "hub_reached", lambda: doctor.Finding("hub", "not reached", "connect", needed=False))
    assert preflight._shards(scale).fault == "connect" and preflight._shards(scale).needed


def test_a_run_is_refused_with_the_lines_of_what_is_missing(monkeypatch, capsys):
    missing = [doctor.Finding("devices", "none", "rent some"), doctor.Finding("cargo", "none", "not needed", needed=False)]
    monkeypatch.setattr(doctor, "examine", lambda scale: missing)
    with pytest.raises(UserError, match="scale speedrun cannot run here for the 1 reason"):
        doctor.require(load().scale("speedrun"))
    assert capsys.readouterr().out == "✗ devices          none → rent some\n"
