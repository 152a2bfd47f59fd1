"""One call starts a stage: in this process for one rank, through torchrun for more.

    launch("pretrain", config, run, machine) -> headline numbers

With several ranks the elastic launcher runs `python -m nanochat.train.launch JOB` on every rank, under a guard that ends
all of them when this process disappears. The metrics file is followed, so a live plot works the same either way. When a
rank dies, the launcher ends the others; all start again from the newest checkpoint.
"""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nanochat.runtime import Run, UserError, open_run, say, world
from nanochat.train.config import ChatTrainConfig, GRPOConfig, MachineConfig, PretrainConfig
from nanochat.train.signals import Stop

RESTARTS = 3       # after the death of a rank

# stage: (module and function, configuration, folder in the run)
STAGES = {
    "pretrain": ("nanochat.train.pretrain", PretrainConfig, "base"),
    "midtrain": ("nanochat.train.midtrain", ChatTrainConfig, "mid"),
    "sft": ("nanochat.train.sft", ChatTrainConfig, "sft"),
    "grpo": ("nanochat.train.grpo", GRPOConfig, "rl"),
}


def launch(stage: str, config, run: Run, machine: MachineConfig | None = None, live=None) -> dict:
    """Run a stage to its end and return its headline numbers; a finished one returns them at once.

    `live` is called with every row of the stage's metrics. Raises UserError when the stage refuses or fails.
    """
    if stage not in STAGES:
        raise UserError(f"unknown stage {stage!r}; choose one of {', '.join(STAGES)}")
    machine = machine or MachineConfig()
    if machine.nproc == 1:
        return _run(stage, config, run, machine, live)
    return _torchrun(stage, config, run, machine, live)


def _run(stage: str, config, run: Run, machine: MachineConfig, live=None) -> dict:
    module = importlib.import_module(STAGES[stage][0])
    return getattr(module, stage)(run, config, machine, world(machine.device), live)


def _torchrun(stage: str, config, run: Run, machine: MachineConfig, live) -> dict:
    folder = run / STAGES[stage][2]
    folder.mkdir(parents=True, exist_ok=True)
    job = {"stage": stage, "run": str(run.path), "config": config.model_dump(mode="json"), "machine": machine.model_dump(mode="json")}
    log = folder / "torchrun.log"
    with tempfile.TemporaryDirectory() as scratch, Stop() as stop:
        (Path(scratch) / "job.json").write_text(json.dumps(job))
        command = [sys.executable, "-m", "nanochat.train.guard", sys.executable, "-m", "torch.distributed.run", "--standalone",
                   f"--nproc-per-node={machine.nproc}", "-m", "nanochat.train.launch", str(Path(scratch) / "job.json")]
        environment = {**os.environ, "OMP_NUM_THREADS": str(machine.threads or 1),
                       "OMP_WAIT_POLICY": "passive",                # threads that wait must not take a core from another rank
                       "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "60"}      # seconds a rank has to save
        for restart in range(1 + RESTARTS):
            with open(log, "w") as output:
                guard = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
                                         env=environment, start_new_session=True)   # a kernel's restart kills its group
                try:
                    _follow(run, STAGES[stage][2], guard, live, stop)
                finally:
                    guard.stdin.close()          # the end of the pipe stops the ranks, should they still run
                    code = guard.wait()
            if stop.asked:
                stop.leave(f"{stage}: {_last_line(log)}")
            death = _death(log) if code else ""
            if not death or restart == RESTARTS:
                break
            say(f"{stage}: {death}; all start again from the newest checkpoint ({restart + 1} of {RESTARTS} times)")
    if code:
        raise UserError(f"{stage} failed on {machine.nproc} processes: {death or _reason(log)} (full log: {log})")
    return json.loads((folder / "result.json").read_text())


def _follow(run: Run, name: str, guard: subprocess.Popen, live, stop: Stop) -> None:
    """Pass new rows of the stage's metrics to `live` until the ranks have ended or should."""
    seen = len(run.history(name)) if live else 0
    while True:
        ended = guard.poll() is not None
        if live:
            rows = run.history(name)
            for row in rows[seen:]:
                live(row)
            seen = len(rows)
        if ended or stop.asked:
            return
        time.sleep(0.5)


def _death(log: Path) -> str:
    """Which rank was killed by a signal; empty when none was, e.g. where a rank has ended with an error.

    The launcher's report lists every rank that failed: those that lost their peer, and those that it ended itself, too.
    """
    ends = re.findall(r"rank\s*: (\d+).*?exitcode\s*: (-?\d+)", log.read_text(errors="replace"), re.DOTALL)
    killed = [(rank, -int(code)) for rank, code in ends if int(code) < 0 and -int(code) != signal.SIGTERM]
    return "rank {} was killed by signal {}".format(*killed[0]) if killed else ""


def _last_line(log: Path) -> str:
    """What the ranks said when they were stopped."""
    told = [line for line in log.read_text(errors="replace").splitlines() if "stopped after step" in line]
    return told[-1] if told else "stopped; the same call goes on from the newest checkpoint"


def _reason(log: Path) -> str:
    """The line of a failed launch that tells most: a user error, else the last exception."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    told = [line for line in lines if "UserError:" in line] or [line for line in lines if "Error" in line]
    return told[0].split("UserError:")[-1].strip() if told else "no message"


def main(path: str) -> None:
    """The entry point of each rank."""
    job = json.loads(Path(path).read_text())
    config = STAGES[job["stage"]][1].model_validate(job["config"])
    run = open_run(job["run"])
    try:
        _run(job["stage"], config, run, MachineConfig.model_validate(job["machine"]))
    except UserError as error:
        print(f"UserError: {error}", flush=True)      # on whichever rank it happened
        sys.exit(1)
    import torch.distributed as dist

    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
