"""While an exercise is judged: no calls to the library's own version of it, a time limit, and no trace left behind.

    with guarded(["nanochat.tokenizer.bpe.merge"], learner=namespace, judge=cases_module), time_limit(5):
        ...
"""

import contextlib
import importlib
import random
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from nanochat.runtime import UserError

OURS = {__file__, contextlib.__file__, str(Path(__file__).with_name("judge.py"))}


class WriteItYourself(Exception):
    """The learner's code called the function it is meant to replace."""


class TimeUp(BaseException):
    """The time limit of a case. Not an Exception, so that `except Exception` in a loop cannot swallow it."""


def resolve(path: str):
    """The object at an import path such as "nanochat.tokenizer.bpe.BasicTokenizer.encode", with its owner and name."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            owner = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and (name + ".").startswith(error.name + "."):
                continue                       # not a module: a class, perhaps
            raise
        try:
            for part in parts[cut:-1]:
                owner = getattr(owner, part)
            return getattr(owner, parts[-1]), owner, parts[-1]
        except AttributeError:
            break
    raise UserError(f"course.yml names {path}, which cannot be imported")


@contextmanager
def guarded(paths: list[str], learner: dict, judge: ModuleType):
    """Make each object in `paths` refuse calls that come from the learner's code.

    A call counts as the learner's when, going up the stack, a frame of the learner's namespace comes before one of the
    module that holds the cases: so an oracle may still use the library. Names bound to the object in the learner's
    namespace and in our own modules are replaced too. Everything is put back at the end.
    """
    undo = []
    for path in dict.fromkeys(paths):
        target, owner, name = resolve(path)
        if isinstance(target, type):           # a class stays the same class: its constructor refuses
            spots = [(target, "__init__", target.__init__)]
            replacement = _refusing(target.__init__, path, learner, judge)
        elif callable(target):
            spots = [(owner, name, owner.__dict__.get(name, target))]
            spots += [(m, k, target) for m in _our_modules(judge) for k, v in list(vars(m).items())
                      if v is target and (m, k) != (owner, name)]
            replacement = _refusing(target, path, learner, judge)
            if isinstance(owner, type) and isinstance(owner.__dict__.get(name), (staticmethod, classmethod)):
                replacement = staticmethod(replacement)
            for k in [k for k, v in learner.items() if v is target]:
                learner[k] = replacement
                undo.append((learner.__setitem__, k, target))
        else:
            continue
        for spot_owner, spot_name, original in spots:
            setattr(spot_owner, spot_name, replacement)
            undo.append((lambda k, v, o=spot_owner: setattr(o, k, v), spot_name, original))
    try:
        yield
    finally:
        for put, name, original in reversed(undo):
            put(name, original)


def _our_modules(judge: ModuleType) -> list[ModuleType]:
    return [m for n, m in list(sys.modules.items()) if n.startswith("nanochat.") and m is not None and m is not judge]


def _refusing(target, path: str, learner: dict, judge: ModuleType):
    def refuse(*args, **kwargs):
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_globals is learner:
                raise WriteItYourself(f"your code calls {path}: write it yourself")
            if frame.f_globals is vars(judge):
                break
            frame = frame.f_back
        return target(*args, **kwargs)

    return refuse


@contextmanager
def time_limit(seconds: float):
    """Raise TimeUp in the block after `seconds`, again and again, so that a bare `except:` cannot hold it for long.

    Works in the main thread of a POSIX process; elsewhere there is no limit.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(signum, frame):
        if frame.f_code.co_filename not in OURS:      # never on the way out, where it would escape the block
            raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.01)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def own_randomness(seed: int):
    """Seed every generator in use; give them, and torch's default dtype, back as they were."""
    python = random.getstate()
    random.seed(seed)
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy:
        numpy_state = numpy.random.get_state()
        numpy.random.seed(seed % 2**32)
    if torch:
        torch_state, dtype, grad = torch.get_rng_state(), torch.get_default_dtype(), torch.is_grad_enabled()
        torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        if numpy:
            numpy.random.set_state(numpy_state)
        if torch:
            torch.set_rng_state(torch_state)
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(grad)
