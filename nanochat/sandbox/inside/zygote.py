"""The helper: one small process that has Python ready and forks itself for every program.

    python -I -S -B -X utf8 -c "…from inside import zygote; zygote.main()" FOLDER SOCKET

Starting an interpreter takes tens of milliseconds, forking one takes less than one. The helper is started by exec,
before any GPU or thread could be in its way. It leaves the machine's namespaces, tries once which walls stand, says so,
and waits. For each run it receives open files: the task (a header of JSON in one line, then the sources), stdout,
stderr, a control socket, and perhaps more for the program. It holds the control socket while the program runs: it
writes a plus there at the start and the exit code at the end, and kills the program when anything, or the end, comes from the other side.

It ends when our process does: the socket closes, or the kernel signals it.
"""

import fcntl
import gc
import importlib
import json
import os
import platform
import select
import selectors
import signal
import socket
import sys

from . import roles, seccomp, walls

# What programs import most, made ready before the fork.
READY = [
    "argparse", "array", "base64", "bisect", "calendar", "cmath", "collections", "contextlib", "copy", "csv", "dataclasses",
    "datetime", "decimal", "enum", "fractions", "functools", "hashlib", "heapq", "inspect", "io", "itertools", "linecache",
    "math", "numbers", "operator", "pprint", "queue", "random", "re", "statistics", "string", "struct", "tempfile",
    "textwrap", "time", "traceback", "typing", "unicodedata", "uuid",
]  # fmt: skip
REFUSED = 125                               # exit code of a run whose walls did not stand


def main() -> None:
    harness, ours = socket.socket(fileno=int(sys.argv[2])), os.getppid()
    life, held = os.pipe()                  # children see the end of `life` when the helper has died
    signal.signal(signal.SIGTERM, lambda *_: os.getppid() == ours or os._exit(0))
    sys.argv = ["program.py"]
    os.environ.clear()
    enclosed = walls.namespaces()
    walls.hide()
    if walls.LINUX:                         # a thread of our parent may have started us and end before it: see SIGTERM
        walls.libc().prctl(walls.PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != ours:
            os._exit(0)
    if platform.machine() in seccomp.ARCHITECTURES:
        seccomp.refusals(platform.machine())                # computed once, for all children
    for name in READY:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    standing = probe(enclosed)
    harness.sendall(json.dumps(standing).encode() + b"\n")
    files = serve(harness)
    harness.close()
    os.close(held)
    task, standing_now = prepare(files, life, standing)
    if standing_now != standing:
        print("the walls did not stand:", *(wall for wall in standing if not standing_now[wall]), file=sys.stderr)
        roles.end(REFUSED)
    for name in [name for name in sys.modules if name.split(".")[0] == __package__.split(".")[0]]:
        del sys.modules[name]
    roles.end(roles.play(*task))


def probe(enclosed: bool) -> dict:
    """Which walls stand here, tried out by a child."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, json.dumps(walls.put_up(512, 5, enclosed)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read()
    os.waitpid(pid, 0)
    return json.loads(said)


def serve(harness: socket.socket) -> list[int]:
    """Fork for every request, report every end. Returns only in a child: its open files."""
    runs: dict[int, socket.socket] = {}     # pid: control
    woken, waker = os.pipe()
    for fd in (woken, waker):
        os.set_blocking(fd, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    with selectors.DefaultSelector() as selector:
        selector.register(harness, selectors.EVENT_READ, "request")
        selector.register(woken, selectors.EVENT_READ, "ended")
        while True:
            for key, _ in selector.select():
                if key.data == "ended":
                    os.read(woken, 4096)
                    for pid, code in reap(runs):
                        control = runs.pop(pid)
                        if control.fileno() in selector.get_map():
                            selector.unregister(control)
                        report(control, code)
                elif key.data == "request":
                    request, files, _, _ = socket.recv_fds(harness, 1, 8)
                    if not request:         # our parent has ended
                        for pid in runs:
                            kill(pid)
                        os._exit(0)
                    control = socket.socket(fileno=files[0])
                    control.sendall(b"+")
                    try:
                        pid = os.fork()
                    except OSError:
                        report(control, REFUSED)
                    else:
                        if pid == 0:
                            signal.set_wakeup_fd(-1)
                            control.detach()
                            return files[1:]
                        runs[pid] = control
                        selector.register(control, selectors.EVENT_READ, pid)
                    for fd in files[1:]:
                        os.close(fd)
                elif key.data in runs:
                    selector.unregister(key.fileobj)
                    kill(key.data)


def reap(runs: dict) -> list[tuple[int, int]]:
    """The programs that have ended, with their exit codes (minus the signal's number for a killed one)."""
    ended = []
    for pid in runs:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            kill(pid, reaped=True)          # whatever it left in its process group
            ended.append((pid, os.waitstatus_to_exitcode(status)))
    return ended


def kill(pid: int, reaped: bool = False) -> None:
    for act in (os.killpg, *([] if reaped else [os.kill])):
        try:
            act(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def report(control: socket.socket, code: int) -> None:
    try:
        control.sendall(b"%d\n" % code)
    except OSError:
        pass                                # nobody wants to know
    control.close()


def prepare(files: list[int], life: int, standing: dict) -> tuple[tuple, dict]:
    """In the child: take the files, put up the walls; -> (what to do, which walls stand)."""
    os.setsid()
    for number in {signal.SIGCHLD, signal.SIGTERM}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    with open(files[0], "rb") as file:      # the file's place is shared with whoever wrote it
        file.seek(0)
        header = json.loads(file.readline())
        parts = [file.read(length) for length in header["lengths"]]
    out, err, *extra = files[1:]
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 32) for fd in (os.open(os.devnull, os.O_RDONLY), out, err, *extra, life)]
    for number, fd in enumerate(high[:-1]):
        os.dup2(fd, number, inheritable=True)
    life = len(high) - 1
    os.dup2(high[-1], life)
    os.closerange(life + 1, os.sysconf("SC_OPEN_MAX"))
    os.chdir(header["folder"])
    standing_now = walls.put_up(header["memory_mb"], header["cpu_seconds"], standing["namespaces"])
    if select.select([life], [], [], 0)[0]:
        os._exit(REFUSED)                   # the helper died before the kernel was told to kill us with it
    os.close(life)
    return (header["role"], parts, header["functions"]), standing_now
