"""What a process does behind the walls: be a program, or one of the two that make a verdict.

    program      run the source as `python program.py` would
    candidate    run the answer, then only answer calls of its functions, through the channel
    judge        run the tests; where they call the answer's functions, ask the candidate through the channel

The two share nothing but the channel, and only plain values cross it (values.py). So nothing the answer does to its own
process, whether it exits, patches, traces or lies about ==, reaches the tests.
"""

import atexit
import builtins
import os
import sys
import threading
import types
from functools import partial

from . import values

CHANNEL, RESULT = 3, 4
PASSED = b"passed"
QUIET = (StopIteration, StopAsyncIteration)      # errors that would end a loop of the tests as if it were done
KEPT = (types.ModuleType, types.FunctionType, type)


class AnswerError(Exception):
    """The answer gave no value: it ended, raised something unusual, or returned what cannot cross."""

    __module__ = "builtins"                 # so that a traceback shows the bare name


def play(role: str, parts: list[bytes], functions: list[str]) -> int:
    """Do it and return the exit code; the messages of what went wrong are on stderr, as Python writes them."""
    try:
        {"program": program, "candidate": candidate, "judge": judge}[role](*parts, functions)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:          # noqa: BLE001  whatever it is, it is the program's own
        frame = error.__traceback__
        while frame is not None and frame.tb_frame.f_globals.get("__package__") == __package__:
            frame = frame.tb_next           # our frames are no news
        sys.excepthook(type(error), error.with_traceback(frame), frame)
        return 1
    return 0


def run(source: bytes, name: str) -> dict:
    """Execute a file's text as the main module; -> its names."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(source, name, "exec", dont_inherit=True), module.__dict__)   # noqa: S102  behind the walls
    return module.__dict__


def program(source: bytes, functions: list[str]) -> None:
    run(source, "program.py")


def candidate(source: bytes, functions: list[str]) -> None:
    """Run the answer, say whether that went well, then answer calls [name, args, kwargs] until nobody asks."""
    names = {}

    def define():
        names.update(run(source, "answer.py"))
        for name in functions:
            if name not in names:
                raise NameError(f"name {name!r} is not defined")

    values.send(CHANNEL, _attempt(define))
    while True:
        try:
            name, args, kwargs = values.receive(CHANNEL)
        except EOFError:
            return
        values.send(CHANNEL, _attempt(partial(_call, names[name], args, kwargs)))


def _call(function, args, kwargs):
    return function(*values.decode(args), **values.decode(kwargs))


def _attempt(act) -> list:
    """["value", encoded] of what `act` returns, or ["raised", type, text]."""
    try:
        reply = ["value", values.encode(act())]
        sys.stdout.flush()                  # nobody may ask again
        values.json.dumps(reply)
        return reply
    except BaseException as error:          # noqa: BLE001  SystemExit too
        return ["raised", type(error).__name__[:60], _text(error)]


def _text(error: BaseException) -> str:
    try:
        return str(error)[:200]
    except BaseException:                   # noqa: BLE001  its __str__ is the answer's
        return ""


def judge(setup: bytes, tests: bytes, functions: list[str]) -> None:
    """Run the tests in the names that `setup` made, the answer's functions among them. Only their end is a pass."""
    _value(values.receive(CHANNEL))         # its definitions
    names = run(setup, "setup.py")
    names.update({name: _remote(name) for name in functions})
    exec(compile(tests, "tests.py", "exec", dont_inherit=True), names)           # noqa: S102
    os.write(RESULT, PASSED)


def _remote(name: str):
    def function(*args, **kwargs):
        values.send(CHANNEL, [name, values.encode(args), values.encode(kwargs)])
        return _value(values.receive(CHANNEL))

    function.__name__ = name
    return function


def _value(reply):
    match reply:
        case ["value", data]:
            return values.decode(data)
        case ["raised", str(name), str(text)]:
            kind = getattr(builtins, name, None)
            if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, QUIET):
                kind = type(name if name.isidentifier() else "AnswerError", (AnswerError,), {"__module__": "builtins"})
            try:
                error = kind(text)
            except TypeError:               # UnicodeDecodeError wants more
                error = AnswerError(f"{name}: {text}")
            raise error
    raise AnswerError("no reply but nonsense")


def end(code: int) -> None:
    """End the process as Python does: threads, exit functions, the module's objects, buffers."""
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        names = sys.modules["__main__"].__dict__
        for name in [name for name, value in names.items() if not isinstance(value, KEPT)]:
            del names[name]                 # each object's __del__ still finds the modules and functions it needs
    except BaseException:                   # noqa: BLE001, S110  nothing can be done for it now
        pass
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:               # noqa: BLE001, S110
            pass
    os._exit(code & 0xFF)
