"""What a run of a scale needs of the machine that its settings name: tried, not guessed, before the run begins.

The plan must fit the devices; as many processes as the scale has on a node must find each other, one a GPU, and compile;
the disk must hold shards and checkpoints, and the shards must be here or to be had. Where a line says what to do, it is
cheaper now than after hours.

    python -m nanochat.course.preflight DEVICE [compile]      one of the processes, under torchrun
"""

import json
import os
import shutil
import subprocess
import sys

from nanochat.course import doctor
from nanochat.course.manifest import Scale
from nanochat.runtime.run import runs_folder

RANK = "rank: "  # begins the line that a process tells
PATIENCE = 600  # seconds for all of them


def examine(scale: Scale) -> list[doctor.Finding]:
    """All findings, the cheapest first."""
    return [_plan(scale), _room(scale), _shards(scale), *_ranks(scale)]


def _ranks(scale: Scale) -> list[doctor.Finding]:
    """Start as many processes as the scale has on this node, one a GPU, and let each tell what works: see `rank`."""
    m = scale.machine
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={m.nproc}",
               "-m", "nanochat.course.preflight", m.device, "compile" if scale.pretrain.compile else ""]  # fmt: skip
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PET_")}     # of several nodes
    environment = {**outer, "OMP_NUM_THREADS": "1"}
    ranks = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        out, err = ranks.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        ranks.terminate()                      # the launcher ends its processes
        out, err = ranks.communicate()
    told = [json.loads(line[len(RANK):]) for line in out.splitlines() if line.startswith(RANK)]
    if not told:
        lines = [line for line in err.splitlines() if "Error" in line] or ["no message; see what NCCL_DEBUG=INFO says"]
        return [doctor.Finding("processes", f"{m.nproc} do not start or find each other", lines[0].split("UserError:")[-1].strip())]
    return judge(scale, told)


def judge(scale: Scale, told: list[dict]) -> list[doctor.Finding]:
    """Findings from what the ranks have told."""
    m, first = scale.machine, told[0]
    devices = ", ".join(sorted({rank["device"] for rank in told}))
    found = doctor.Finding("devices", f"{first['devices']} × {devices}" if first["devices"] else devices)
    if m.device == "cuda" and first["devices"] < m.nproc:
        found.fault = f"scale {scale.name} has {m.nproc} processes, one a GPU: say --nproc {max(1, first['devices'])}"
    elif (full := [rank for rank in told if rank["free"] < 0.9]) and m.device == "cuda":
        found.fault = f"GPU {full[0]['rank']} has {full[0]['free']:.0%} of its memory free: end what else runs there"
    findings = [found]
    if m.nproc > 1:
        wrong = [rank for rank in told if not rank["sum"]] or len(told) < m.nproc
        findings.append(doctor.Finding("all-reduce", f"{len(told)} of {m.nproc} processes, {first['backend']}",
                                "the sum is wrong or missing: see what NCCL_DEBUG=INFO says" if wrong else ""))  # fmt: skip
    if scale.pretrain.compile:
        failed = next((rank["compile"] for rank in told if rank["compile"]), "")
        findings.append(doctor.Finding("torch.compile", failed or "works",
                                failed and "install a C++ compiler, and a triton of torch's version"))  # fmt: skip
    return findings


def rank(device: str, compiling: bool) -> None:
    """What one process of a run can do, told in one line."""
    import torch
    import torch.distributed as dist

    from nanochat.runtime import pick_device, world

    seen = torch.cuda.device_count() if pick_device(device).type == "cuda" else 0
    number, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    told = {"rank": number, "devices": seen, "device": "CPU", "free": 1.0, "sum": True, "backend": "", "compile": ""}
    if not seen or number < seen:
        if seen:
            free, total = torch.cuda.mem_get_info(number)
            told |= {"device": torch.cuda.get_device_name(number), "free": free / total}
        if not seen or size <= seen:            # else the peers would be waited for in vain
            peers = world(device)
            total = peers.sum(torch.full((1 << 20,), float(number), device=peers.device))
            told |= {"sum": bool((total == sum(range(size))).all()),
                     "backend": dist.get_backend() if dist.is_initialized() else ""}  # fmt: skip
            if compiling and (seen or number == 0):
                told["compile"] = _compiles(peers.device)
        print(RANK + json.dumps(told), flush=True)
    if dist.is_initialized():
        dist.destroy_process_group()


def _compiles(device) -> str:
    """What is wrong with torch.compile on this device; empty where it works."""
    import torch

    try:
        same = torch.compile(lambda x: (2 * x + 1).sum())(torch.ones(64, device=device)).item() == 192
    except Exception as error:  # noqa: BLE001  the compiler's own, Triton's, the C++ compiler's
        return f"fails ({type(error).__name__}: {' '.join(str(error).split())[:100]})"
    return "" if same else "computes something else"


def _plan(scale: Scale) -> doctor.Finding:
    """Whether a device holds what the plan gives it, and the processes can share out streams and prompts."""
    from nanochat.course.plan import Plan, sized
    from nanochat.course.plan_table import warnings

    plan = Plan(scale, scale.machine.nodes)
    found = f"{sized(plan.memory().peak)} a device, {plan.ranks} processes"
    return doctor.Finding("plan", found, "; ".join(line.removeprefix("  ! ") for line in warnings(plan)))


def _room(scale: Scale) -> doctor.Finding:
    """Free disk against shards that are still to come and the checkpoints of all stages, one more while it is written."""
    from nanochat.course.plan import Plan, sized
    from nanochat.course.prepare import SHARD_BYTES, missing
    from nanochat.data import hub

    needed = Plan(scale).memory()
    checkpoint = needed.weights + needed.optimizer * scale.machine.nproc
    stages = (scale.pretrain, scale.midtrain, scale.sft, scale.grpo)
    wanted = {"checkpoints": (runs_folder(), checkpoint * (1 + sum(stage.keep for stage in stages)))}
    if shards := missing(scale):
        wanted["shards"] = (hub.cache(), SHARD_BYTES * len(shards))
    by_disk: dict[int, list] = {}
    for what, (folder, size) in wanted.items():
        while not folder.exists():
            folder = folder.parent
        by_disk.setdefault(os.stat(folder).st_dev, []).append((what, folder, size))
    said, faults = [], []
    for parts in by_disk.values():
        free, size = shutil.disk_usage(parts[0][1]).free, sum(size for _, _, size in parts)
        what = " and ".join(what for what, _, _ in parts)
        said.append(f"{sized(free)} free, {what} take {sized(size)}")
        if free < size:
            faults.append(f"make room on the disk of {parts[0][1]}")
    return doctor.Finding("room", "; ".join(said), "; ".join(faults))


def _shards(scale: Scale) -> doctor.Finding:
    from nanochat.course.prepare import missing
    from nanochat.data import hub

    data, todo = scale.pretrain.data, missing(scale)
    if data.source == "toy":
        return doctor.Finding("text", "the toy world is written when it is needed")
    found = f"{data.shards + 1 - len(todo)} of {data.shards + 1} shards are here"
    if not todo:
        return doctor.Finding("text", found)
    if hub.mirror():
        return doctor.Finding("text", found, f"add {todo[0]} to the mirror, and whatever else is missing")
    fault = doctor.hub_reached().fault
    return doctor.Finding("text", found + ("" if fault else ", the others come while lessons 01 to 04 run"), fault)


if __name__ == "__main__":
    rank(sys.argv[1], bool(sys.argv[2]))
