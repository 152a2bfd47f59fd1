"""Run Python that a model wrote, in a process of its own, and report what it printed and how it ended.

    result = run_code("print(sum(range(10)))", timeout=5.0, memory_mb=256)
    result.ok, result.stdout, result.why        # (True, '45\\n', '')

Every call gets a fresh interpreter in a new session, in an empty folder that is removed afterwards, with no
environment, no open files of ours, limits on memory, CPU, files and processes (child.py), at most 64 KiB kept of each
output stream, and the whole process group killed at the end or at the wall clock, whichever comes first. `run_code`
never raises, whatever the source is.

These are limits, not yet walls: the program can still read what this user can read, and open the network.
"""

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

CHILD = Path(__file__).with_name("child.py")
KEEP = 64 * 1024          # bytes kept of stdout and of stderr
FLOOD = 1024 * 1024       # bytes on one stream after which the program is stopped
POLL = 0.02               # seconds between two looks at a program that prints nothing


@dataclass(frozen=True)
class Result:
    """How a program ended. `ok` means: by itself, with exit code 0.

    `why` is "" when ok, else a class of failure and a detail: "timeout", "memory", "output", "error: <last line of
    the traceback>", "exit 3", "signal: Segmentation fault", or "refused: <reason>" when it could not be run at all.
    """

    ok: bool
    stdout: str
    stderr: str
    why: str


def run_code(code: str, timeout: float = 5.0, memory_mb: int = 256) -> Result:
    """Run `code` as a program of its own; `timeout` in wall-clock seconds, `memory_mb` of memory. Never raises."""
    if os.name != "posix":
        return Result(False, "", "", "refused: the sandbox needs Linux or macOS")
    folder = None
    try:
        folder = tempfile.mkdtemp(prefix="sandbox-")
        program = os.path.join(folder, "program.py")
        with open(program, "wb") as file:
            file.write(code.encode("utf-8", "surrogatepass"))
        return _run(program, folder, timeout, memory_mb)
    except (OSError, ValueError, RuntimeError, MemoryError) as error:      # a full disk, no more processes
        return Result(False, "", "", f"refused: {type(error).__name__}: {error}")
    finally:
        if folder is not None:
            _remove(folder)


def _run(program: str, folder: str, timeout: float, memory_mb: int) -> Result:
    deadline = time.monotonic() + timeout
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", str(CHILD), program, str(memory_mb), str(int(timeout) + 1)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={},
        start_new_session=True,     # its own process group, so that one kill reaches its children
    )
    try:
        streams, ended = _listen(process, deadline)
    finally:
        _kill_group(process)        # before the reaping, so that the group's number cannot be another's
        process.wait()
        process.stdout.close()
        process.stderr.close()
    stdout, stderr = (bytes(s).decode("utf-8", "replace") for s in streams)
    why = ended or _verdict(process.returncode, stderr)
    return Result(why == "", stdout, stderr, why)


def _listen(process: subprocess.Popen, deadline: float) -> tuple[list[bytearray], str]:
    """Collect both streams until the program ends; -> ([stdout, stderr], "" or why it was stopped)."""
    kept, seen = [bytearray(), bytearray()], [0, 0]
    with selectors.DefaultSelector() as selector:
        for i, pipe in enumerate((process.stdout, process.stderr)):
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ, i)
        while True:
            ended = _has_ended(process)     # looked up before reading: what was printed before the end is then all here
            ready = selector.select(0 if ended else min(POLL, max(0.0, deadline - time.monotonic())))
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                seen[key.data] += len(data)
                kept[key.data] += data[: KEEP - len(kept[key.data])]
            if max(seen) > FLOOD:
                return kept, "output"
            if ended and not ready:
                return kept, ""
            if not ended and time.monotonic() >= deadline:
                return kept, "timeout"
            if not ended and not selector.get_map():
                time.sleep(0.001)           # both streams closed: the end is near, or it goes on in silence


def _has_ended(process: subprocess.Popen) -> bool:
    """Has the program ended? It is left unreaped, so its process group keeps its number."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _verdict(code: int, stderr: str) -> str:
    """Why a program that ended by itself failed; "" if it did not."""
    if code == 0:
        return ""
    if code < 0:
        return f"signal: {signal.strsignal(-code)}"
    last = stderr.rstrip().rsplit("\n", 1)[-1]
    if last.startswith("MemoryError"):
        return "memory"
    return f"error: {last[:200]}" if code == 1 and last else f"exit {code}"


def _remove(folder: str) -> None:
    """Remove a folder, however deep: folders inside it are first lifted out beside it, so no path ever grows long.

    Links are removed, never followed. What resists is left behind rather than raised about.
    """
    waiting, lifted = [folder], 0
    try:
        os.chmod(folder, 0o700)
        while waiting:
            current = waiting.pop()
            for entry in list(os.scandir(current)):
                if entry.is_dir(follow_symlinks=False):
                    lifted += 1
                    os.chmod(entry.path, 0o700)
                    waiting.append(f"{folder}.{lifted}")
                    os.rename(entry.path, waiting[-1])
                else:
                    os.unlink(entry.path)
            os.rmdir(current)
    except OSError:
        pass
