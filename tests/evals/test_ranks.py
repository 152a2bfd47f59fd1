"""Two real processes get what one gets."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import two_ranks

from nanochat.data import World
from nanochat.evals import write_toy_bundle


def test_two_ranks_get_what_one_gets(tmp_path):
    bundle = write_toy_bundle(tmp_path / "bundle", World(0), items=8)
    outs = {1: tmp_path / "one.json", 2: tmp_path / "two.json"}
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    peers = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    jobs = [subprocess.Popen([sys.executable, two_ranks.__file__, str(bundle), str(outs[2])],
                             env={**peers, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]
    two_ranks.main(bundle, outs[1])
    assert [job.wait(timeout=100) for job in jobs] == [0, 0]
    one, two = (json.loads(Path(outs[n]).read_text()) for n in (1, 2))
    assert two.pop("bpb") == pytest.approx(one.pop("bpb"), rel=1e-9)
    for what in ("pass", "maj"):
        assert two["curve"].pop(what) == pytest.approx(one["curve"].pop(what))
    assert two == one
    assert outs[2].with_suffix(".jsonl").read_text() == outs[1].with_suffix(".jsonl").read_text()
    assert not list(tmp_path.glob(".*partial"))
