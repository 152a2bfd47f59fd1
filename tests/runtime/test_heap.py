import subprocess
import sys

import pytest

FAULTS = """
import sys
from resource import RUSAGE_SELF, getrusage
from nanochat.runtime.heap import keep_heap
if sys.argv[1] == "keep" and not keep_heap():
    raise SystemExit(3)
for step in range(5):
    before = getrusage(RUSAGE_SELF).ru_minflt
    b"x" * (64 << 20)                                               # 16,384 pages
print(getrusage(RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int | None:
    """Pages that the kernel had to bring for the last of five equal blocks; None where the heap cannot be told."""
    done = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=False)
    return None if done.returncode == 3 else int(done.stdout)


def test_a_large_block_is_kept_for_the_next_step():
    if (kept := faults("keep")) is None:
        pytest.skip("this C library has no mallopt")
    assert kept < 10 < faults("leave")  # with huge pages 32, else 16,384
