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
from collections.abc import Callable

from nanochat.runtime import say

ECHO = 1.0      # seconds; a launcher repeats the signal that a cloud sends to every process: that is no second wish


class Stop:
    """Holds the two signals while it is entered. In a thread that is not the main one they stay as they are.

    pass_on: called with the number of the first, for whoever waits for another process that should stop.
    """

    def __init__(self, pass_on: Callable[[int], None] | None = None):
        self.asked = 0                # the number of the signal that came
        self._pass_on = pass_on
        self._before: dict[int, object] = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) != signal.SIG_IGN:          # e.g. Ctrl-C for a job in the background
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _receive(self, number: int, _frame) -> None:
        if not self.asked:
            self.asked, self._since = number, time.monotonic()
            if self._pass_on:
                self._pass_on(number)
        elif time.monotonic() - self._since > ECHO:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            os._exit(128 + number)    # now: no thread is waited for

    def leave(self, told: str) -> None:
        """Say one line and end: KeyboardInterrupt after SIGINT, else (or where another rank was asked) exit code 0."""
        say(told)
        if self.asked == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(0)
