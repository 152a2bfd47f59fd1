"""`nanochat doctor`: is everything here that the course needs? One line each, with the remedy where it is missing.

With a scale, also what a long run on its machine stands on, see `preflight`. `nanochat run` asks that before it starts
one on several processes or a GPU.
"""

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
        hub_reached(),
        _sandbox(),
    ]
    if scale:
        from nanochat.course import preflight

        findings += preflight.examine(scale)
    return findings


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


def hub_reached() -> Finding:
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
