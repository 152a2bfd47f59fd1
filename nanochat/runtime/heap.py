"""The C library's heap: keep what a training step will ask for again."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # names and numbers of glibc's malloc.h


def keep_heap() -> bool:
    """
    Let this process keep freed memory for its next allocation; False where the C library has no such setting.

    glibc maps every large tensor from the kernel and gives it back when it is freed, so each step of a training on the
    CPU waits for the same pages to be zeroed again, some 4 % of it at 10 million parameters.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
