"""For every test: one thread. The machines are small and shared, and one thread repeats to the last bit."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
