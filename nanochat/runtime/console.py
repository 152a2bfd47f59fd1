"""What a program says: one-line messages, one-line user errors, and the clock that a shared machine cannot bend."""

import os
import shutil
import sys
import time

CLEAR = "\r\x1b[K"     # to the beginning of the line, and nothing after it


class UserError(Exception):
    """A mistake of the user's. Its message is one line: what was wrong, where, and what to do."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows for this error: the line, not our internals."""
        return [f"{type(self).__name__}: {self}"]


def say(text: str = "") -> None:
    """Print on rank 0 only, at once (a log file of a killed run must hold the last line)."""
    if int(os.environ.get("RANK", "0")) == 0:
        print((CLEAR if sys.stdout.isatty() else "") + text, flush=True)


def status(text: str) -> None:
    """Show a line in place of the status before, on a terminal only; what is said next takes its place."""
    if int(os.environ.get("RANK", "0")) == 0 and sys.stdout.isatty():
        print(CLEAR + text[: shutil.get_terminal_size().columns - 1], end="", flush=True)


def core_seconds() -> float:
    """CPU seconds this process has used, over all its threads: unlike wall time it does not grow when others use the machine."""
    return time.process_time()
