"""
Gloo processes for tests, as many as are asked for:

    peers.run(4, function, folder)       function(world, folder) on each of four ranks; what one raises is raised here

They are forked from a server that has imported torch once: four ranks start in a second. `function` must be one that
can be imported from its module. SystemExit (a stage that was told to stop) is no error.
"""

import multiprocessing
import os
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from nanochat.runtime import World, world


def run(size: int, function, *args) -> None:
    if sys.platform == "linux":  # elsewhere what torch loads may not be forked
        multiprocessing.set_forkserver_preload(["nanochat.train.pretrain", "nanochat.train.sft"])
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(_rank, (size, folder, function, args), nprocs=size, start_method="forkserver")


def _rank(rank: int, size: int, folder: str, function, args) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    try:
        function(world("cpu") if size > 1 else World(), *args)
    except SystemExit as stopped:
        assert not stopped.code
    dist.destroy_process_group()
