"""The course: what a notebook's setup cell needs, without importing torch.

    from nanochat import course
    from nanochat.course import check, use
    S = course.scale(SCALE)                    # every setting of this scale: S.pretrain, S.sft, …
    run = course.open_run(SCALE, RUN, SEED)    # the run directory, made if it is not there
    course.environment(S, run)                 # what this lesson stands on
"""

import json
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

from nanochat.course.checks import check, use
from nanochat.course.manifest import Course, Scale, load, root
from nanochat.runtime import Run
from nanochat.runtime import open_run as _open_run

__all__ = ["Course", "Scale", "check", "environment", "load", "open_run", "root", "scale", "use"]


def scale(name: str) -> Scale:
    """The settings of one scale of course.yml, as `nanochat run` has changed them.

    $NANOCHAT_SETTINGS carries that from the command to the notebooks: {"machine": {"nproc": 4}}, as JSON. Raises
    UserError for an unknown name.
    """
    return load().scale(name).changed(json.loads(os.environ.get("NANOCHAT_SETTINGS", "{}")))


def open_run(scale: str, run: str = "", seed: int = 0) -> Run:
    """The run directory of a notebook: `run` is a name under runs/ or a folder.

    Empty means $COURSE_RUN, or else the scale's name. The folder is made when it is not there. Raises UserError when it
    belongs to another scale or seed.
    """
    load().scale(scale)
    return _open_run(run or os.environ.get("COURSE_RUN") or scale, scale=scale, seed=seed, create=True)


def environment(scale: Scale, run: Run) -> None:
    """Print what the notebook stands on: versions, machine, scale, run, and which artifacts are there."""
    course = load()
    present = [name for name, a in course.artifacts.items() if (run / a.proof).exists()]
    missing = [name for name in course.artifacts if name not in present]
    print(f"python    {platform.python_version()} on {platform.system()}, {os.cpu_count()} cores, {_memory()}")
    print(f"torch     {_version('torch')}")
    print(f"device    {scale.machine.device} asked for; {_gpus()}")
    print(f"scale     {scale.name}: {scale.where}")
    print(f"run       {run.name}, seed {run.seed}")
    print(f"artifacts {' '.join(present) or 'none yet'}" + (f"  (to come: {' '.join(missing)})" if missing else ""))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return f"is not installed: pip install {package}"


def _memory() -> str:
    import psutil

    return f"{psutil.virtual_memory().total / 2**30:.0f} GiB"


def _gpus() -> str:
    """Named without torch: importing it takes seconds, and a training lesson must not start CUDA in the notebook."""
    if not shutil.which("nvidia-smi"):
        return "no NVIDIA GPU here"
    import subprocess

    names = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True,
                           check=False)
    found = names.stdout.split("\n")[:-1] if names.returncode == 0 else []
    return f"{len(found)} × {found[0]}" if found else "no NVIDIA GPU here"
