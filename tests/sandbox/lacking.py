"""A system that lacks walls: `python lacking.py landlock,seccomp,namespaces PROGRAM [ARGUMENTS]` runs Python there.

The walls are taken away for real, by a filter of system calls that the program inherits: what an older kernel or a
container answers, it answers.
"""

import ctypes
import os
import struct
import sys

from nanochat.sandbox.inside import seccomp
from nanochat.sandbox.inside.seccomp import ALLOW, ARCHITECTURES, ENOSYS, EPERM, EQUAL, LOAD, NUMBER, RETURN

X86 = os.uname().machine == "x86_64"
PRCTL, SECCOMP, UNSHARE = (157, 317, 272) if X86 else (167, 277, 97)


def refuse(walls: list[str]) -> None:
    """From here on this process and all it becomes lack these walls."""
    steps = [(LOAD, 0, 0, NUMBER)]
    if "landlock" in walls:
        steps += [(EQUAL, 0, 1, 444), (RETURN, 0, 0, ENOSYS)]
    if "namespaces" in walls:
        steps += [(EQUAL, 0, 1, UNSHARE), (RETURN, 0, 0, EPERM)]
    if "seccomp" in walls:
        steps += [(EQUAL, 0, 1, SECCOMP), (RETURN, 0, 0, ENOSYS), (EQUAL, 0, 3, PRCTL), (LOAD, 0, 0, 16),
                  (EQUAL, 0, 1, seccomp.PR_SET_SECCOMP), (RETURN, 0, 0, EPERM)]
    code = b"".join(struct.pack("HBBI", *step) for step in [*steps, (RETURN, 0, 0, ALLOW)])
    buffer = ctypes.create_string_buffer(code, len(code))
    libc = ctypes.CDLL(None)
    assert os.uname().machine in ARCHITECTURES and libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(seccomp.PR_SET_SECCOMP, 2, struct.pack("HP", len(code) // 8, ctypes.addressof(buffer)), 0, 0) == 0


if __name__ == "__main__":
    refuse(sys.argv[1].split(","))
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
