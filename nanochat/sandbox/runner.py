"""Run Python that a model wrote, behind walls, and report what it printed and how it ended.

    result = run_code("print(sum(range(10)))", timeout=5.0, memory_mb=256)
    result.ok, result.stdout, result.why                # (True, '45\\n', '')

    result = run_tests(answer, "assert root(9) == 3", functions=["root"])
    result.ok                                           # did the answer's `root` pass?

Every program gets a process of its own, forked from a helper that has Python ready (inside/zygote.py), without
environment, open files, network or privileges; it may read what Python needs, write in a small folder in memory that
vanishes with it, and is killed at the wall clock (inside/walls.py). Of each output stream 64 KiB are kept. `run_code` and
`run_tests` never raise, whatever the source is. They may be called from many threads.

What this is not: a defence against faults in the kernel. And where the system lacks a wall the level falls, which is
said once (`sandbox_level`); NANOCHAT_SANDBOX=strict refuses to run then. Below "strict" a program can read this user's
files; at "limits", as on macOS, it can also write them and open the network.
"""

import os
import selectors
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from nanochat.sandbox.folder import remove
from nanochat.sandbox.helper import Running, helper, refusal, start

KEEP = 64 * 1024          # bytes kept of stdout and of stderr
LAST = 4096               # bytes of its end, where a traceback says what went wrong
FLOOD = 1024 * 1024       # bytes on one stream after which the program is stopped
REFUSED = 125             # exit code of a process whose walls did not stand
PASSED = b"passed"        # what a judge writes when its tests are through


@dataclass(frozen=True)
class Result:
    """How a program ended. `ok` means: by itself, with exit code 0; of `run_tests`: the tests passed.

    `why` is "" when ok, else a class of failure and a detail: "timeout", "memory", "output", "error: <last line of
    the traceback>", "exit 3", "signal: Segmentation fault", or "refused: <reason>" when it could not be run at all.
    """

    ok: bool
    stdout: str
    stderr: str
    why: str


def run_code(code: str | bytes, timeout: float = 5.0, memory_mb: int = 256) -> Result:
    """Run `code` as a program of its own; `timeout` in wall-clock seconds, `memory_mb` of memory. Never raises."""

    def run(stack: ExitStack) -> Result:
        program = stack.enter_context(start("program", [_bytes(code)], timeout, memory_mb, folder=_folder(stack)))
        outputs, why = _listen([program], timeout)
        return _result(outputs[0], why)

    return _guarded(run)


def run_tests(answer: str | bytes, tests: str, functions: Sequence[str], setup: str = "", timeout: float = 5.0,
              memory_mb: int = 256) -> Result:
    """Does the answer pass the tests? A verdict that the answer cannot forge. Never raises.

    answer: a program that defines `functions`. tests: a program that calls them and raises when one is wrong; setup:
    what it needs beside them. The two run in processes of their own: the tests call, the answer replies, and only
    plain values cross (inside/values.py). Passed is what the tests' process says, after their last line.
    """

    def run(stack: ExitStack) -> Result:
        folder = _folder(stack)
        near, far = socket.socketpair()
        stack.enter_context(near)
        with far:
            given = stack.enter_context(start("candidate", [_bytes(answer)], timeout, memory_mb, folder=folder,
                                              functions=functions, channels=[far.fileno()]))
        reader, writer = os.pipe()
        stack.callback(os.close, reader)
        try:
            judge = stack.enter_context(start("judge", [_bytes(setup), _bytes(tests)], timeout, memory_mb, folder=folder,
                                              functions=functions, channels=[near.fileno(), writer]))
        finally:
            os.close(writer)
            near.close()                    # now the two have nothing but each other
        outputs, why = _listen([judge, given], timeout)
        os.set_blocking(reader, False)
        said = _read(reader)
        why = why or ("" if said == PASSED else "exit 0 before the tests ended")
        return _result((outputs[1][0], outputs[0][1] + outputs[1][1]), why)

    return _guarded(run)


def _guarded(run: Callable[[ExitStack], Result]) -> Result:
    try:
        if reason := refusal():
            return Result(False, "", "", f"refused: {reason}")
        with ExitStack() as stack:
            return run(stack)
    except (OSError, ValueError, RuntimeError, MemoryError, OverflowError) as error:      # no more processes, files or memory
        return Result(False, "", "", f"refused: {error}")


def _bytes(code: str | bytes) -> bytes:
    return code.encode("utf-8", "surrogatepass") if isinstance(code, str) else bytes(code)


def _folder(stack: ExitStack) -> str:
    """Where the program starts. Behind walls it has its own folder or none; without, one that we remove."""
    walls = helper().walls
    if walls["folder"] or walls["landlock"]:
        return "/"
    folder = tempfile.mkdtemp(prefix="sandbox-")
    stack.callback(remove, folder)
    return folder


def _listen(programs: list[Running], timeout: float) -> tuple[list[tuple[bytes, bytes]], str]:
    """Collect all output until the first of the programs ends; -> ([(stdout, stderr)], "" or why that one failed)."""
    deadline = time.monotonic() + timeout
    kept = {fd: bytearray() for program in programs for fd in (program.out, program.err)}
    seen, last = dict.fromkeys(kept, 0), dict.fromkeys(kept, b"")
    why = ""

    def take(fd: int) -> bool:
        """Read once; False when nothing is there."""
        data = _read(fd)
        if data == b"":
            selector.unregister(fd)
        if not data:
            return False
        seen[fd] += len(data)
        kept[fd] += data[: KEEP - len(kept[fd])]
        last[fd] = (last[fd] + data)[-LAST:]
        return True

    with selectors.DefaultSelector() as selector:
        for program in programs:
            selector.register(program.control, selectors.EVENT_READ, program)
        for fd in kept:
            selector.register(fd, selectors.EVENT_READ)
        while programs[0].code is None and not why:
            for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                if key.data is None:
                    take(key.fd)
                else:
                    key.data.ended()
                    selector.unregister(key.fileobj)
            if max(seen.values()) > FLOOD:
                why = "output"
            elif programs[0].code is None and time.monotonic() >= deadline:
                why = "timeout"
        for fd in [key.fd for key in selector.get_map().values() if key.data is None]:
            while take(fd) and seen[fd] <= FLOOD:       # what was written before the end
                pass
    why = why or _failure(programs[0].code, last[programs[0].err])
    return [(bytes(kept[program.out]), bytes(kept[program.err])) for program in programs], why


def _read(fd: int) -> bytes | None:
    """What is there now; b"" at the end, None when the other side is silent."""
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return None


def _failure(code: int, stderr: bytes) -> str:
    """Why a program that ended by itself failed; "" if it did not."""
    if code == 0:
        return ""
    if code < 0:
        return f"signal: {signal.strsignal(-code)}"
    last = stderr.decode("utf-8", "replace").rstrip().rsplit("\n", 1)[-1]
    if code == REFUSED:
        return f"refused: {last}"
    if last.startswith("MemoryError"):
        return "memory"
    return f"error: {_printable(last[:200])}" if code == 1 and last else f"exit {code}"


def _printable(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _result(output: tuple[bytes, bytes], why: str) -> Result:
    stdout, stderr = (stream[:KEEP].decode("utf-8", "replace") for stream in output)
    return Result(why == "", stdout, stderr, why)
