"""For every test: one thread (the machines are small and shared, and one thread repeats to the last bit), and Ctrl-C heard."""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)      # a shell's background jobs, and all they start, ignore it
