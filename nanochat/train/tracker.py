"""Metrics for TensorBoard or Weights & Biases: off unless `machine.tracker` names one, and neither is a dependency."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

from nanochat.runtime import Run, UserError

Track = Callable[[int, dict[str, float]], None]


@contextmanager
def tracker(kind: str | None, run: Run, stage: str) -> Iterator[Track]:
    """Gives `track(step, numbers)`. TensorBoard's files go to the stage's folder, W&B's project is named nanochat.

    Raises UserError when the package is missing.
    """
    if kind is None:
        yield lambda step, numbers: None
    elif kind == "tensorboard":
        with _package("torch.utils.tensorboard", kind).SummaryWriter(str(run / stage / "tensorboard")) as writer:
            yield lambda step, numbers: [writer.add_scalar(name, value, step) for name, value in numbers.items()]
    else:
        with _package("wandb", kind).init(project="nanochat", group=run.name, name=f"{run.name} {stage}",
                                          dir=str(run / stage)) as opened:
            yield lambda step, numbers: opened.log(numbers, step=step)


def _package(module: str, kind: str):
    try:
        return import_module(module)
    except ImportError:
        raise UserError(f"machine.tracker is {kind}, which is not installed: pip install {kind}, or set it to null") from None
