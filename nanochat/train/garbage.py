"""Python's cycle collector at times of our choosing: in the middle of a step it would stop all ranks for one."""

import gc


class Garbage:
    """
    The collector is off while this is entered. `collect` takes what is garbage now; at its first call, after compilation,
    what remains is frozen: never looked at again.
    """

    def __enter__(self):
        self._enabled = gc.isenabled()
        gc.disable()
        return self

    def collect(self) -> None:
        gc.collect()
        if not gc.get_freeze_count():
            gc.freeze()

    def __exit__(self, *_) -> None:
        gc.unfreeze()
        if self._enabled:
            gc.enable()
