"""One process at a time in a folder. The kernel takes the lock away with the process, so a killed one blocks nobody."""

import fcntl
import os
import re
import socket
from contextlib import contextmanager
from pathlib import Path

from nanochat.runtime.console import UserError, say


@contextmanager
def locked(folder: Path):
    """Hold `folder` for this process. Raises UserError with the pid and host of another that holds it."""
    with open(folder / ".lock", "a+") as lock:
        lock.seek(0)
        holder = lock.read().strip()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            advice = "wait for it or choose another --run"
            if _gone(holder):                  # a child that it has forked has the lock, too
                advice = "it has ended, but a child of it still holds the lock: end that one"
            raise UserError(f"{folder} is in use by {holder or 'another process'}; {advice}") from None
        if holder:                             # whoever ends by itself wipes its name
            say(f"{folder.name}: {holder} was killed here; going on from what it left")
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


def _gone(holder: str) -> bool:
    """Whether the process named in a lock was on this machine and has ended."""
    named = re.fullmatch(r"process (\d+) on (.+)", holder)
    if not named or named[2] != socket.gethostname():
        return False
    try:
        os.kill(int(named[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
