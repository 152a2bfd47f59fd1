"""Ranks. One process without torchrun is a world of size 1; under torchrun the process group is set up on first use:
NCCL on GPUs, Gloo on CPUs."""

import os
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist

from nanochat.runtime.console import UserError
from nanochat.runtime.device import pick_device


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def main(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor summed over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
        return tensor

    def sum_runs(self, full: torch.Tensor) -> tuple[torch.Tensor, dist.Work | None]:
        """
        Start to sum `full` (size · n, ...) over all ranks; -> this rank's run (n, ...) of the sum and what to wait for
        before it is read. `full` is overwritten or must be left alone until then.
        """
        if self.size == 1:
            return full, None
        n = len(full) // self.size
        if dist.get_backend() == "gloo":  # sums everything; only NCCL is worth the split
            return full[self.rank * n : (self.rank + 1) * n], dist.all_reduce(full, async_op=True)
        run = full.new_empty(n, *full.shape[1:])
        return run, dist.reduce_scatter_tensor(run, full, async_op=True)

    def gather_runs(self, full: torch.Tensor) -> dist.Work | None:
        """Start to fill `full` (size · n, ...) in place with every rank's own run of it; -> what to wait for."""
        if self.size == 1:
            return None
        n = len(full) // self.size
        return dist.all_gather_into_tensor(full, full[self.rank * n : (self.rank + 1) * n], async_op=True)

    def gather(self, value) -> list:
        """The JSON-able `value` of every rank, on every rank, in rank order."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def agree(self, facts: dict) -> None:
        """Compare every rank's `facts` (JSON-able) with rank 0's. Raises UserError with the first difference, on all."""
        first, *others = self.gather(facts)
        for rank, theirs in enumerate(others, start=1):
            for what, value in first.items():
                if theirs[what] != value:
                    raise UserError(f"rank {rank} has {what} {theirs[what]!r}, rank 0 has {value!r}; "
                                    "all ranks need the same run folder, data and configuration")

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


def world(device: str = "auto") -> World:
    """The world of this process. Under torchrun it joins the process group on the first call."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(device=pick_device(device))
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    chosen = pick_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", local_rank)
        torch.cuda.set_device(chosen)
    if not dist.is_initialized():
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=300))
    return World(rank, local_rank, size, chosen)
