"""Runs a command and ends it when the process that asked for it is gone.

    python -m nanochat.train.guard COMMAND …      (its standard input is a pipe that only the asking process holds)

A notebook kernel that is restarted or killed cannot clean up after itself; the end of the pipe is the one sign that always
comes. The guard then asks the command to stop (SIGTERM), gives it time to save and kills its group.
"""

import os
import signal
import subprocess
import sys
import threading

PATIENCE = 70      # seconds; the launcher gives its ranks 60


def main(command: list[str]) -> int:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def watch() -> None:
        while os.read(0, 1):           # returns b"" when the other end is closed
            pass
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
