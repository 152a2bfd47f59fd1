"""What runs first in the sandbox's process: put the walls up, then become the program.

    python -I -S -B child.py PROGRAM MEMORY_MB CPU_SECONDS

Only the standard library, no package imports: this file is started by path, in an empty folder, with an empty
environment. Limits survive exec, so the program starts in a fresh interpreter that never saw this one.
"""

import os
import resource
import sys

MB = 1 << 20


def limit(name: str, value: int) -> None:
    """Set soft and hard limit; a system that lacks the limit, or holds a lower one, keeps what it has."""
    try:
        resource.setrlimit(getattr(resource, name), (value, value))
    except (AttributeError, ValueError, OSError):
        pass


def main(program: str, memory_mb: int, cpu_seconds: int) -> None:
    limit("RLIMIT_AS", memory_mb * MB)
    limit("RLIMIT_DATA", memory_mb * MB)
    limit("RLIMIT_CPU", cpu_seconds)
    limit("RLIMIT_FSIZE", 16 * MB)      # of each file it writes
    limit("RLIMIT_NOFILE", 64)
    limit("RLIMIT_NPROC", 64)           # of its user; the kernel ignores this for root
    limit("RLIMIT_CORE", 0)
    limit("RLIMIT_STACK", 8 * MB)
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-B", program], {})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
