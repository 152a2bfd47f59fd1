"""SIGTERM and SIGINT as a wish: finish the step, save, leave.

    with Stop() as stop:
        for step in …:
            …
            if stop.asked: save; stop.leave("base: saved step 300")

A cloud announces the end of a machine with SIGTERM, a notebook's stop button and Ctrl-C send SIGINT. After the save
SIGTERM ends the program with exit code 0, SIGINT raises KeyboardInterrupt, as it does everywhere in Python. A second
signal does so at once.
"""

import os
import signal
import threading
import time

from nanochat.runtime import say

ECHO = 1.0      # seconds; a launcher passes on the signal that a cloud sends to every process, too: that one is no second wish


class Stop:
    """Holds the two signals while it is entered. In a thread that is not the main one they stay as they are."""

    def __init__(self):
        self.asked = 0                # the number of the signal that came
        self._before: dict[int, object] = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _receive(self, number: int, _frame) -> None:
        if not self.asked:
            self.asked, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > ECHO:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            os._exit(128 + number)    # now: no thread is waited for

    def leave(self, told: str) -> None:
        """Say one line and end: KeyboardInterrupt after SIGINT, else (also where another rank was asked) exit code 0."""
        say(told)
        if self.asked == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(0)
