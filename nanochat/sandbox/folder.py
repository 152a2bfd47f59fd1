"""Remove a folder that a program has been in, however deep or odd, without following a link out of it."""

import os
import stat

OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def remove(folder: str) -> None:
    """Remove `folder` and all in it. Never raises; what resists is left behind.

    One step down or up at a time, with one folder open: neither recursion nor a path ever grows long.
    """
    try:
        here = os.open(folder, OPEN)
    except OSError:
        return
    try:
        above = []                          # of each folder above: (its identity, its folders still to do, the name we took)
        inner = _empty(here)
        while inner or above:
            if inner:
                name = inner.pop()
                os.chmod(name, 0o700, dir_fd=here)
                above.append((_identity(here), inner, name))
                here = _step(here, name)
                inner = _empty(here)
            else:
                identity, inner, name = above.pop()
                here = _step(here, "..")
                if _identity(here) != identity:         # somebody moves folders about while we work
                    return
                os.rmdir(name, dir_fd=here)
        os.rmdir(folder)
    except OSError:
        pass
    finally:
        os.close(here)


def _empty(fd: int) -> list[str]:
    """Remove all but folders; -> the folders."""
    os.fchmod(fd, 0o700)
    folders = []
    for name in os.listdir(fd):
        if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            folders.append(name)
        else:
            os.unlink(name, dir_fd=fd)
    return folders


def _step(fd: int, name: str) -> int:
    """Open a neighbouring folder and close this one."""
    there = os.open(name, OPEN, dir_fd=fd)
    os.dup2(there, fd, inheritable=False)
    os.close(there)
    return fd


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
