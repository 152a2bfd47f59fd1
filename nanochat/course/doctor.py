"""`nanochat doctor`: is everything here that the course needs? One line each, with the remedy where it is missing.

With a scale, also what a long run on its machine stands on: as many GPUs as processes, an all-reduce over all of them,
torch.compile, room for shards and checkpoints, the shards. `nanochat run` asks that before it starts such a run.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version

from nanochat.course.manifest import Scale
from nanochat.runtime import UserError, say
from nanochat.runtime.run import runs_folder

RANK = "rank: "  # begins the line that a process of `_ranks` tells
PATIENCE = 600  # seconds for it


@dataclass
class Finding:
    """One line: what was looked at and found. `fault` is what to do about it, `needed` whether it must be done."""

    what: str
    found: str
    fault: str = ""
    needed: bool = True


def examine(scale: Scale | None = None) -> list[Finding]:
    """All findings, in the order in which they matter."""
    findings = [
        _python(),
        _package("torch", "pip install torch"),
        _package("rustbpe", "run `make course`, or `pip install -e .` with cargo at hand"),
        _kernel(),
        _compiler(),
        _cargo(),
        _gpu(),
        _memory(),
        _disk(),
        _hub(),
        _sandbox(),
    ]
    return findings + (on_its_machine(scale) if scale else [])


def on_its_machine(scale: Scale) -> list[Finding]:
    """What a run of this scale needs of the machine that its settings name, by trying it."""
    return [_plan(scale), *_ranks(scale), _room(scale), _shards(scale)]


def _python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    return Finding("python", found, "" if sys.version_info >= (3, 10) else "the course needs 3.10 or newer")


def _package(name: str, remedy: str) -> Finding:
    try:
        module = import_module(name)
    except ImportError as error:
        return Finding(name, f"cannot be imported ({error})", remedy)
    return Finding(name, getattr(module, "__version__", None) or version("nanochat"))


def _kernel() -> Finding:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        return Finding("notebook kernel", "no kernel named python3", "pip install ipykernel")
    return Finding("notebook kernel", spec.display_name)


def _compiler() -> Finding:
    found = next((path for name in ("g++", "clang++", "c++") if (path := shutil.which(name))), None)
    return Finding(
        "C++ compiler",
        found or "none",
        "" if found else "torch.compile needs one (apt install g++); without it training is about three times slower",
        needed=False,
    )


def _cargo() -> Finding:
    cargo = shutil.which("cargo")
    if not cargo:
        return Finding("cargo", "none", "only needed to rebuild rustbpe: https://rustup.rs", needed=False)
    said = subprocess.run([cargo, "--version"], capture_output=True, text=True, check=False)
    return Finding("cargo", said.stdout.strip() or cargo)


def _gpu() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("GPU", "unknown without torch", needed=False)
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("GPU", ", ".join(names))
    if torch.backends.mps.is_available():
        return Finding("GPU", "Apple MPS")
    return Finding("GPU", "none: scales smoke and toy run on the CPU", needed=False)


def _memory() -> Finding:
    import psutil

    total = psutil.virtual_memory().total / 2**30
    return Finding(
        "memory",
        f"{total:.0f} GiB, {os.cpu_count()} cores",
        "" if total >= 4 else "the toy scale wants 4 GiB",
        needed=False,
    )


def _disk() -> Finding:
    folder = runs_folder()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    return Finding("disk", f"{free:.0f} GiB free for runs/", "" if free >= 2 else "the toy scale wants 2 GiB")


def _hub() -> Finding:
    from nanochat.data import hub

    try:
        mirror = hub.mirror()
    except UserError as error:
        return Finding("hub", "NANOCHAT_HUB is wrong", str(error))
    if mirror is not None:
        return Finding("hub", f"mirror at {mirror}")
    import socket

    try:
        socket.create_connection(("huggingface.co", 443), timeout=3).close()
    except OSError:
        return Finding(
            "hub",
            "not reached",
            "the toy world needs none; for real data connect, or set NANOCHAT_HUB to a mirror folder",
            needed=False,
        )
    return Finding("hub", "huggingface.co is reached")


def _sandbox() -> Finding:
    from nanochat.sandbox import sandbox_level

    try:
        level = sandbox_level()
    except UserError as error:
        return Finding("sandbox", "none", str(error), needed=False)
    fault = "" if level == "strict" else "model-written code (lesson 07) is not walled in completely on this system"
    return Finding("sandbox", level, fault, needed=False)


# --- a scale's machine ------------------------------------------------------------------------------------------------


def _ranks(scale: Scale) -> list[Finding]:
    """Start as many processes as the scale has on this node, one a GPU, and let each tell what works: see `rank`."""
    m = scale.machine
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={m.nproc}",
               "-m", "nanochat.course.doctor", m.device, "compile" if scale.pretrain.compile else ""]  # fmt: skip
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
        return [Finding("processes", f"{m.nproc} do not start or find each other", lines[0].split("UserError:")[-1].strip())]
    return judge(scale, told)


def judge(scale: Scale, told: list[dict]) -> list[Finding]:
    """Findings from what the ranks have told."""
    m, first = scale.machine, told[0]
    devices = ", ".join(sorted({rank["device"] for rank in told}))
    found = Finding("devices", f"{first['devices']} × {devices}" if first["devices"] else devices)
    if m.device == "cuda" and first["devices"] < m.nproc:
        found.fault = f"scale {scale.name} has {m.nproc} processes, one a GPU: say --nproc {max(1, first['devices'])}"
    elif (full := [rank for rank in told if rank["free"] < 0.9]) and m.device == "cuda":
        found.fault = f"GPU {full[0]['rank']} has {full[0]['free']:.0%} of its memory free: end what else runs there"
    findings = [found]
    if m.nproc > 1:
        wrong = [rank for rank in told if not rank["sum"]] or len(told) < m.nproc
        findings.append(Finding("all-reduce", f"{len(told)} of {m.nproc} processes, {first['backend']}",
                                "the sum is wrong or missing: see what NCCL_DEBUG=INFO says" if wrong else ""))  # fmt: skip
    if scale.pretrain.compile:
        failed = next((rank["compile"] for rank in told if rank["compile"]), "")
        findings.append(Finding("torch.compile", failed or "works",
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


def _plan(scale: Scale) -> Finding:
    """Whether a device holds what the plan gives it, and the processes can share out streams and prompts."""
    from nanochat.course.plan import Plan, sized
    from nanochat.course.plan_table import warnings

    plan = Plan(scale, scale.machine.nodes)
    found = f"{sized(plan.memory().peak)} a device, {plan.ranks} processes"
    return Finding("plan", found, "; ".join(line.removeprefix("  ! ") for line in warnings(plan)))


def _room(scale: Scale) -> Finding:
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
    return Finding("room", "; ".join(said), "; ".join(faults))


def _shards(scale: Scale) -> Finding:
    from nanochat.course.prepare import missing
    from nanochat.data import hub

    data, todo = scale.pretrain.data, missing(scale)
    if data.source == "toy":
        return Finding("text", "the toy world is written when it is needed")
    found = f"{data.shards + 1 - len(todo)} of {data.shards + 1} shards are here"
    if not todo:
        return Finding("text", found)
    if hub.mirror():
        return Finding("text", found, f"add {todo[0]} to the mirror, and whatever else is missing")
    fault = _hub().fault
    return Finding("text", found + ("" if fault else ", the others come while lessons 01 to 04 run"), fault)


def require(scale: Scale) -> None:
    """UserError where this machine cannot run the scale, after a line for each reason."""
    faults = [finding for finding in examine(scale) if finding.fault and finding.needed]
    for finding in faults:
        say(line(finding))
    if faults:
        raise UserError(f"scale {scale.name} cannot run here for the {len(faults)} reason(s) above; "
                        "`nanochat doctor` looks again")  # fmt: skip


def line(f: Finding) -> str:
    mark = "✓" if not f.fault else "✗" if f.needed else "!"
    return f"{mark} {f.what:<16} {f.found}" + (f" → {f.fault}" if f.fault else "")


def main(scale: Scale | None = None) -> int:
    """Print the findings; exit code 1 when something needed is missing."""
    findings = examine(scale)
    for finding in findings:
        say(line(finding))
    return int(any(f.fault and f.needed for f in findings))


if __name__ == "__main__":
    rank(sys.argv[1], bool(sys.argv[2]))
