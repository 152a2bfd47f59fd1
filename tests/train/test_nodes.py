"""Two nodes on one machine, one Gloo process each: the losses of one process, through the death of a rank, to the end of the run."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from nanochat.course import load
from nanochat.runtime import UserError, open_run
from nanochat.train.config import MachineConfig
from nanochat.train.launch import announce, launch

SCHEDULE = tiny.CONFIGS["pretrain"].schedule.model_copy(update={"steps": 60})
CONFIG = tiny.CONFIGS["pretrain"].model_copy(update={"eval_every": 60, "schedule": SCHEDULE})
NODE_1 = "import sys; from pathlib import Path; from nanochat.train.launch import join; join(Path(sys.argv[1]), 1)"


def losses(run) -> dict:
    return {row["step"]: row["loss"] for row in run.history("base") if "loss" in row}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_two_nodes_train_what_one_process_does_and_both_start_again_when_a_rank_dies(tmp_path, capsys):
    calm = tiny.make_run(tmp_path / "calm")
    shutil.copytree(calm.path, tmp_path / "run")
    run = open_run(tmp_path / "run")
    launch("pretrain", CONFIG, calm, tiny.machine())
    machine = tiny.machine().model_copy(update={"nodes": 2, "rendezvous": f"127.0.0.1:{free_port()}"})
    announce(run.path, "", {}, machine)                    # the end of an earlier run is none of node 1's concern
    node_1 = subprocess.Popen([sys.executable, "-c", NODE_1, str(run.path)], stdout=subprocess.PIPE, text=True)
    killed = []

    def kill(row):
        if row["step"] >= 10 and not killed:
            tiny.rank_process(node_1.pid, 1).kill()
            killed.append(row["step"])

    try:
        launch("pretrain", CONFIG, run, machine, live=kill)
        announce(run.path, "", {}, machine)
        said = node_1.communicate(timeout=60)[0]
    finally:
        node_1.kill()
    assert node_1.returncode == 0
    assert killed and "rank 1 was killed by signal 9; all start again" in capsys.readouterr().out
    assert said.count("pretrain: 1 processes of 2 are here") == 2 and said.endswith("the run has ended\n")
    one, two = losses(calm), losses(run)
    assert len(one) == len(two) == 60 and max(abs(one[step] - two[step]) for step in one) < 1e-3


def test_nodes_without_a_place_to_meet_are_refused():
    with pytest.raises(ValueError, match="2 nodes need a rendezvous, HOST:PORT"):
        MachineConfig(nodes=2)
    with pytest.raises(UserError, match="machine: 2 nodes need a rendezvous"):
        load().scale("smoke").changed({"machine": {"nodes": 2}})
