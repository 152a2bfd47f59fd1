"""Files are whole or absent; runs are what they were made as."""

import json

import pytest

from nanochat.runtime import UserError, atomic_write, open_run, pick_dtype, read_json, world, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError):
        atomic_write(path, "new")
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_reading_a_broken_file_names_it(tmp_path):
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(UserError, match="b.json is not valid JSON"):
        read_json(tmp_path / "b.json")
    with pytest.raises(UserError, match="c.json does not exist"):
        read_json(tmp_path / "c.json")


def test_a_run_remembers_its_scale_and_seed(tmp_path):
    run = open_run(tmp_path / "r", scale="toy", seed=3, create=True)
    assert (run.name, run.scale, run.seed) == ("r", "toy", 3)
    assert open_run(tmp_path / "r") == run
    with pytest.raises(UserError, match="seed 3, not 4"):
        open_run(tmp_path / "r", seed=4, create=True)
    with pytest.raises(UserError, match="scale 'toy', not 'smoke'"):
        open_run(tmp_path / "r", scale="smoke")
    with pytest.raises(UserError, match="no run at"):
        open_run(tmp_path / "missing")


def test_results_merge_and_flatten(tmp_path):
    run = open_run(tmp_path / "r", scale="toy", create=True)
    run.record("base", {"val_bpb": 0.6})
    run.record("base", {"cloze_acc": 1}, chance={"cloze_acc": 0.08})
    run.record("sft", {"qa": 0.5})
    assert run.results() == {"base.val_bpb": 0.6, "base.cloze_acc": 1.0, "sft.qa": 0.5}
    assert run.chance() == {"base.cloze_acc": 0.08}


def test_history_ignores_a_line_cut_by_a_kill_and_keeps_the_later_of_two(tmp_path):
    run = open_run(tmp_path / "r", scale="toy", create=True)
    for step, loss in ((10, 3.0), (20, 2.0), (10, 3.5)):
        run.log("base", {"step": step, "loss": loss})
    run.log("base", {"kind": "val", "step": 10, "val_bpb": 1.0})
    with open(run / "base" / "metrics.jsonl", "a") as f:
        f.write(json.dumps({"step": 30})[:-3])
    rows = run.history("base")
    assert [(r["step"], r.get("loss")) for r in rows] == [(20, 2.0), (10, 3.5), (10, None)]


def test_an_unknown_dtype_or_device_is_one_clear_line():
    import torch

    from nanochat.runtime import pick_device

    with pytest.raises(UserError, match="unknown dtype 'int3'"):
        pick_dtype(torch.device("cpu"), "int3")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="torch sees no GPU"):
            pick_device("cuda")


def test_one_process_is_a_world_of_one():
    peers = world("cpu")
    assert (peers.rank, peers.size, peers.main) == (0, 1, True)
    assert peers.gather("x") == ["x"]


def test_a_metrics_line_that_cannot_be_written_is_told_and_costs_only_itself(tmp_path, capsys):
    run = open_run(tmp_path / "r", scale="toy", create=True)
    (run / "base" / "metrics.jsonl").mkdir(parents=True)               # as good as a full disk
    run.log("base", {"step": 1})
    assert "metrics.jsonl: a line is lost (Is a directory)" in capsys.readouterr().out
    (run / "base" / "metrics.jsonl").rmdir()
    run.log("base", {"step": 2})
    assert run.history("base") == [{"step": 2}]
