"""Our end of the helper process (inside/zygote.py): started when first needed, shared by all threads, replaced when it dies.

    running = start("program", [source], timeout=5.0, memory_mb=256)
    sandbox_level()         # "strict", "namespaces" or "limits": which walls this system has
"""

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from nanochat.runtime import UserError, say

BOOT = "import sys; sys.path.insert(0, sys.argv[1]); import inside; del sys.path[0]; from inside import zygote; zygote.main()"
START = 30.0                            # seconds within which a helper must be ready
MAX_SOURCE = 16 << 20                   # bytes
NEEDED = {"landlock": "Landlock", "seccomp": "seccomp", "privileges": "no_new_privs"}      # for the level strict


class Helper:
    """A running helper: `walls` says which stand here ({name: bool})."""

    def __init__(self):
        self.owner = os.getpid()
        self.socket, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", BOOT, str(Path(__file__).parent), str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env={}, cwd="/", pass_fds=[theirs.fileno()], start_new_session=True)
        self.socket.settimeout(START)
        try:
            with self.socket.makefile("rb") as file:
                self.walls = json.loads(file.readline() or b"null")
        except (OSError, ValueError):
            self.walls = None
        if self.walls is None:
            self.close()
            raise OSError("the sandbox's helper does not start")

    def close(self) -> None:
        """End it, and with it every program it runs. A forked copy of us lets go only."""
        self.socket.close()
        if self.owner == os.getpid():
            self.process.kill()
            self.process.wait()


_lock = threading.Lock()
_helper: Helper | None = None
_told = False


def helper() -> Helper:
    """The helper of this process, alive. Raises OSError when none can be started."""
    global _helper, _told
    with _lock:
        if _helper is not None and (_helper.owner != os.getpid() or _helper.process.poll() is not None):
            _helper.close()
            _helper = None
        if _helper is None:
            _helper = Helper()
            atexit.register(_helper.close)
            if missing := lacking(_helper.walls):
                if not _told:
                    say(f"sandbox: this system has no {missing}; programs run within {level(_helper.walls)} only")
                _told = True
        return _helper


def lacking(walls: dict) -> str:
    """What is missing for the level strict, in words."""
    return " and no ".join(name for wall, name in NEEDED.items() if not walls[wall])


def level(walls: dict) -> str:
    return "strict" if not lacking(walls) else "namespaces" if walls["namespaces"] else "limits"


def sandbox_level() -> str:
    """"strict": Landlock and seccomp stand, nothing outside can be changed or reached. "namespaces": no network, but
    files of this user can. "limits": only time, memory and output are bounded. Raises UserError where nothing runs."""
    try:
        return level(helper().walls)
    except OSError as error:
        raise UserError(f"the sandbox cannot run: {error}") from None


def refusal() -> str:
    """Why model-written code must not run here, in one line; "" when it may.

    The environment variable NANOCHAT_SANDBOX=strict asks for the level strict; unset, any level will do.
    """
    wish = os.environ.get("NANOCHAT_SANDBOX", "")
    if os.name != "posix":
        return "the sandbox needs Linux or macOS"
    if wish not in ("", "strict"):
        return f"NANOCHAT_SANDBOX is {wish!r}; it can be strict, or unset"
    missing = lacking(helper().walls)
    return f"a strict sandbox is asked for, but this system has no {missing}" if wish and missing else ""


def check_sandbox() -> None:
    """Raise UserError if model-written code may not run here; see `refusal`."""
    try:
        reason = refusal()
    except OSError as error:
        reason = str(error)
    if reason:
        raise UserError(f"{reason} (NANOCHAT_SANDBOX, --sandbox)" if os.environ.get("NANOCHAT_SANDBOX") == "strict" else reason)


class Running:
    """A program at work: its output (`out`, `err`: read ends of pipes) and `control`, which brings its exit code.

    Use as a context; at its end the program is dead and everything closed.
    """

    def __init__(self, out: int, err: int, control: socket.socket, process: Helper):
        self.out, self.err, self.control, self.helper = out, err, control, process
        self.code: int | None = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.code is None and not self._end():
            self.helper.close()             # it does not answer: end it, and all its programs
        self.control.close()
        os.close(self.out)
        os.close(self.err)

    def _end(self) -> bool:
        """Have the program killed; -> whether it is dead."""
        with contextlib.suppress(BrokenPipeError):          # then it has just ended by itself
            self.control.sendall(b"end")
        try:
            self.control.settimeout(5)
            return self.control.recv(16) != b""
        except OSError:
            return False

    def ended(self) -> None:
        """Take the exit code, once `control` is readable. Raises OSError when the helper died."""
        said = self.control.recv(16)
        if not said:
            raise OSError("the sandbox's helper died")
        self.code = int(said)


def start(role: str, parts: Sequence[bytes], timeout: float, memory_mb: int, *, folder: str = "/",
          functions: Sequence[str] = (), channels: Sequence[int] = ()) -> Running:
    """Start a program. role, parts, functions: see inside/roles.py; channels: open files it finds from 3 on.

    Raises OSError (no files, no processes, no helper), ValueError for sources that are too long.
    """
    if sum(map(len, parts)) > MAX_SOURCE:
        raise ValueError(f"the program is longer than {MAX_SOURCE >> 20} MiB")
    header = {"role": role, "lengths": [len(part) for part in parts], "functions": list(functions), "folder": folder,
              "memory_mb": memory_mb, "cpu_seconds": int(timeout) + 1}
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        task = theirs.enter_context(tempfile.TemporaryFile(buffering=0))
        for part in (json.dumps(header).encode() + b"\n", *parts):
            while part:
                part = part[task.write(part):]
        ends = []
        for _ in range(2):
            reader, writer = os.pipe()
            ours.callback(os.close, reader)
            theirs.callback(os.close, writer)
            os.set_blocking(reader, False)
            ends.append((reader, writer))
        (out, their_out), (err, their_err) = ends
        files = [task.fileno(), their_out, their_err, *channels]
        process = helper()
        control = _ask(process, files)
        if control is None:                 # it has just died
            process.close()
            process = helper()
            control = _ask(process, files)
        if control is None:
            raise OSError("the sandbox's helper dies")
        ours.pop_all()
        return Running(out, err, control, process)


def _ask(process: Helper, files: list[int]) -> socket.socket | None:
    """Have the helper fork; -> our end of the control socket, None when it does not answer."""
    control, theirs = socket.socketpair()
    try:
        with theirs:
            socket.send_fds(process.socket, [b"r"], [theirs.fileno(), *files])
        if control.recv(1) == b"+":
            return control
    except OSError:
        pass
    control.close()
    return None
