"""The GPU's benchmark, small and on the CPU: the same code, checked by its own references, every number in its file."""

import json
import platform
import runpy
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = str(Path(__file__).parents[2] / "benchmarks" / "training.py")


@pytest.fixture
def bench(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [SCRIPT, *map(str, arguments)])
        runpy.run_path(SCRIPT, run_name="__main__")

    yield run
    torch.set_float32_matmul_precision("highest")


def test_a_small_run_measures_all_and_finds_nothing_wrong(bench, tmp_path):
    out = tmp_path / "out.json"
    bench("--device", "cpu", "--depth", 2, "--seconds", 0.05, "--plain", "--precision", "fp32", "fp8", "--out", out)
    found = json.loads(out.read_text())
    assert found["attention"]["SDPA window documents shared"] < 1e-5
    assert found["fp8"]["grad x, kernel alone"] < 1e-5 and found["fp8"]["grad x, with rounding"] > 0.01
    assert found["ceilings"]["copy, GB/s"] > 0 and any("attention, window 128" in name for name in found["ceilings"])
    assert found["training"].keys() == {"d2 fp32", "d2 fp8"}
    for row in found["training"].values():
        assert row["step_ms"]["p10"] <= row["step_ms"]["median"] <= row["step_ms"]["p90"] and row["tok_per_s"] > 0
        assert row["flops_a_token"]["exact"] < row["flops_a_token"]["nanochat"]


def test_what_is_wrong_is_told_at_the_end_and_nothing_is_lost(bench, tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    machine = {"device": platform.machine(), "torch": torch.__version__, "python": platform.python_version()}
    out.write_text(json.dumps({"machine": machine, "training": {"d12 bf16": {"tok_per_s": 1}}}))
    monkeypatch.setattr("nanochat.model.fp8.product", lambda a, b, *_, **__: (a.float() @ b.float()).to(torch.float32))
    with pytest.raises(SystemExit, match="fp8: x w, kernel alone is off"):
        bench("--device", "cpu", "--depth", 2, "--seconds", 0, "--plain", "--precision", "fp32", "--out", out)
    assert json.loads(out.read_text())["training"].keys() == {"d12 bf16", "d2 fp32"}, "another call's numbers stay"


def test_without_a_gpu_one_line_says_so(bench, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="torch sees none here"):
        bench("--gpu")
