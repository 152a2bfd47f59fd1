"""One call starts a stage: in this process for one rank, through torchrun for more.

    launch("pretrain", config, run, machine) -> headline numbers

With several ranks the elastic launcher runs `python -m nanochat.train.launch JOB` on every rank, under a guard that ends
all of them when this process disappears. The metrics file is followed, so a live plot works the same either way. When a
rank dies, the launcher ends the others; all start again from the newest checkpoint.

Several nodes share the run's folder. This process is on node 0 and writes what is to be run to JOB; `join` on the
other nodes waits for it and starts the same there, every time anew.
"""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from nanochat.runtime import Run, UserError, open_run, read_json, say, world, write_json
from nanochat.train.config import ChatTrainConfig, GRPOConfig, MachineConfig, PretrainConfig
from nanochat.train.signals import Stop

RESTARTS = 3       # after the death of a rank
JOB = ".job.json"  # in the run's folder

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
    if machine.nproc * machine.nodes == 1:
        return _run(stage, config, run, machine, live)
    return _torchrun(stage, config, run, machine, live)


def _run(stage: str, config, run: Run, machine: MachineConfig, live=None) -> dict:
    module = importlib.import_module(STAGES[stage][0])
    return getattr(module, stage)(run, config, machine, world(machine.device), live)


def _torchrun(stage: str, config, run: Run, machine: MachineConfig, live) -> dict:
    name = folder_of(stage, config.model_dump())
    folder = run / name
    folder.mkdir(parents=True, exist_ok=True)
    with Stop() as stop:
        for restart in range(1 + RESTARTS):
            announce(run.path, stage, config.model_dump(mode="json"), machine)
            guard = _start(run.path, machine, folder / _log(0), node=0)
            try:
                _follow(run, name, guard, live, stop)
            finally:
                guard.stdin.close()          # the end of the pipe stops the ranks, should they still run
                code = guard.wait()
                (run / JOB).unlink(missing_ok=True)
            if stop.asked:
                stop.leave(f"{stage}: {_last_line(folder)}")
            death = _death(folder, machine) if code else ""
            if not death or restart == RESTARTS:
                break
            say(f"{stage}: {death}; all start again from the newest checkpoint ({restart + 1} of {RESTARTS} times)")
    if code:
        raise UserError(f"{stage} failed on {machine.nproc * machine.nodes} processes: {death or _reason(folder)} "
                        f"(full log: {folder / _log(0)})")
    if not (folder / "result.json").exists():                # another node was told to stop: all have
        raise UserError(f"{stage}: {_last_line(folder)}")
    return json.loads((folder / "result.json").read_text())


def folder_of(stage: str, config: dict) -> str:
    """Where in the run a stage is kept: a pretraining may name another place."""
    return config.get("folder", STAGES[stage][2])


def announce(run: Path, stage: str, config: dict, machine: MachineConfig) -> None:
    """Tell all nodes of a run what is started now; no stage tells them that the run has ended."""
    for log in (run / folder_of(stage, config)).glob(_log("*")) if stage else ():
        log.unlink()
    job = {"id": uuid.uuid4().hex, "stage": stage, "config": config, "machine": machine.model_dump(mode="json")}
    write_json(run / JOB, job)


def join(run: Path, node: int, ready: Callable[[], None] = lambda: None) -> None:
    """Be node `node` of a run: take part in every stage that node 0 starts, until its run has ended or we should stop.

    `ready` is called before the first, e.g. to wait for data.
    """
    def job() -> dict:
        try:
            return json.loads((run / JOB).read_text())
        except FileNotFoundError:              # nothing runs now
            return {"id": "", "stage": ""}

    done = job()["id"] if not job()["stage"] else ""           # an end of earlier days
    with Stop() as stop:
        while not stop.asked:
            now = job()
            if now["id"] in ("", done) or now["machine"]["nodes"] <= node:     # the latter: killed before there were nodes
                time.sleep(0.5)
                continue
            if not now["stage"]:
                say("the run has ended")
                return
            ready()
            done, machine = now["id"], MachineConfig.model_validate(now["machine"])
            say(f"{now['stage']}: {machine.nproc} processes of {machine.nproc * machine.nodes} are here")
            log = run / folder_of(now["stage"], now["config"]) / _log(node)
            log.parent.mkdir(parents=True, exist_ok=True)
            guard = _start(run, machine, log, node)
            while guard.poll() is None and not stop.asked and job()["id"] in ("", done):
                time.sleep(0.5)
            guard.stdin.close()
            code = guard.wait()
            say(f"{now['stage']}: " + (f"ended with code {code} (full log: {log})" if code else "ended"))


def _log(node: int | str) -> str:
    return f"torchrun_{node}.log"


def _start(run: Path, machine: MachineConfig, log: Path, node: int) -> subprocess.Popen:
    """The ranks of one node, under a guard that lives as long as its standard input is open."""
    nodes = ["--standalone"] if machine.nodes == 1 else [
        f"--nnodes={machine.nodes}", f"--node-rank={node}", "--rdzv-backend=static",
        f"--rdzv-endpoint={machine.rendezvous}", "--rdzv-conf=timeout=3600"]         # the others may be downloading
    command = [sys.executable, "-m", "nanochat.train.guard", sys.executable, "-m", "torch.distributed.run", *nodes,
               f"--nproc-per-node={machine.nproc}", "-m", "nanochat.train.launch", str(run / JOB)]
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PET_")}     # torchrun's own
    environment = {**outer, "OMP_NUM_THREADS": str(machine.threads or 1),
                   "OMP_WAIT_POLICY": "passive",    # threads that wait must not take a core from another rank
                   "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "60"}      # seconds a rank has to save
    with open(log, "w") as output:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
                                env=environment, start_new_session=True)   # a kernel's restart kills its group


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


def _told(folder: Path) -> str:
    """All that the ranks of all nodes have said."""
    return "\n".join(log.read_text(errors="replace") for log in sorted(folder.glob(_log("*"))))


def _death(folder: Path, machine: MachineConfig) -> str:
    """Which rank was killed by a signal; empty when none was, e.g. where a rank has ended with an error.

    The launcher's report lists every rank that failed: those that lost their peer, and those that it ended itself, too.
    """
    told = _told(folder)
    ends = re.findall(r"^ *rank\s*: (\d+).*?exitcode\s*: (-?\d+)", told, re.DOTALL | re.MULTILINE)
    killed = [(rank, -int(code)) for rank, code in ends if int(code) < 0 and -int(code) != signal.SIGTERM]
    if killed:
        return "rank {} was killed by signal {}".format(*killed[0])
    return "a node was lost" if machine.nodes > 1 and "UserError:" not in told else ""


def _last_line(folder: Path) -> str:
    """What the ranks said when they were stopped."""
    told = [line for line in _told(folder).splitlines() if "stopped after step" in line]
    return told[-1] if told else "stopped; the same call goes on from the newest checkpoint"


def _reason(folder: Path) -> str:
    """The line of a failed launch that tells most: a user error, else the last exception."""
    lines = [line.strip() for line in _told(folder).splitlines()]
    told = [line for line in lines if "UserError:" in line] or [line for line in lines if "Error" in line]
    return told[0].split("UserError:")[-1].strip() if told else "no message"


def main(path: Path) -> None:
    """The entry point of each rank."""
    job = read_json(path)
    config = STAGES[job["stage"]][1].model_validate(job["config"])
    try:
        _run(job["stage"], config, open_run(path.parent), MachineConfig.model_validate(job["machine"]))
    except UserError as error:
        print(f"UserError: {error}", flush=True)      # on whichever rank it happened
        sys.exit(1)
    import torch.distributed as dist

    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
