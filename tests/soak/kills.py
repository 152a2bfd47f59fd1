"""kill −9 at random moments: in every stage, and inside saves. What is left must go on as if nothing had happened.

    python tests/soak/kills.py --cycles 50 --saves 100 --out benchmarks/results/soak.json

A cycle starts a stage of a tiny run, kills it at a random time, runs it again to its end and compares the weights and
all losses with those of an undisturbed run, bit for bit. A save trial kills a process that does nothing but save; a
checkpoint must be loadable afterwards, and not older than the last one that was in place. `make soak` does many, the
tests few.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "train")]
import tiny

# A process that has imported everything is forked for each trial: starting one costs milliseconds, not seconds.
processes = multiprocessing.get_context("forkserver")
PRELOAD = ["tiny", "nanochat.train.pretrain", "nanochat.train.midtrain", "nanochat.train.sft", "nanochat.train.grpo"]


def run_stage(folder: Path, stage: str) -> None:
    """One stage to its end, in a process of its own."""
    from nanochat.runtime import open_run
    from nanochat.train.launch import launch

    quiet()
    launch(stage, tiny.CONFIGS[stage], open_run(folder), tiny.machine())


def quiet() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def outcome(folder: Path, stage: str) -> tuple:
    """Weights and losses that a finished stage left."""
    from nanochat.runtime import open_run
    from nanochat.train import checkpoint

    name = tiny.FOLDERS[stage]
    rows = open_run(folder).history(name)
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    return checkpoint.latest(folder / name).joinpath("model.safetensors").read_bytes(), losses


def begin(folder: Path, stage: str):
    """Start a stage and wait for its first step; -> its process."""
    process = processes.Process(target=run_stage, args=(folder, stage))
    process.start()
    while process.is_alive() and not (folder / tiny.FOLDERS[stage] / "metrics.jsonl").exists():
        time.sleep(0.002)
    return process


def undisturbed(run: Path, stage: str) -> float:
    """Run the stage; -> the seconds from its first step to its end."""
    process, began = begin(run, stage), time.perf_counter()
    process.join()
    return time.perf_counter() - began


def stage_cycles(run: Path, stage: str, seconds: float, cycles: int, dice: random.Random, scratch: Path) -> dict:
    """Kill the stage `cycles` times, up to `seconds` after its first step. `run` holds it undisturbed."""
    name, wanted = tiny.FOLDERS[stage], outcome(run, stage)
    folder, resumed, equal = scratch / "killed", 0, 0
    for _ in range(cycles):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run, folder, ignore=lambda where, names: [name] if Path(where) == run else [])
        victim = begin(folder, stage)
        time.sleep(dice.uniform(0, seconds))
        victim.kill()
        victim.join()
        resumed += any((folder / name).glob("step_*/manifest.json"))
        again = processes.Process(target=run_stage, args=(folder, stage))
        again.start()
        again.join()
        equal += again.exitcode == 0 and outcome(folder, stage) == wanted
    return {"kills": cycles, "killed_with_a_checkpoint": resumed, "ended_bit_equal": equal}


def save_forever(folder: Path, told) -> None:
    """Save one checkpoint after the other and tell the number of each that is in place."""
    from nanochat.model import GPT, GPTConfig
    from nanochat.runtime import World
    from nanochat.train.saver import Saver

    model = GPT(GPTConfig(sequence_len=8, vocab_size=64, n_layer=1, n_head=1, n_kv_head=1, n_embd=16)).init_weights(0)
    with Saver(folder, World()) as saver:
        for step in range(1, 1_000_000):
            saver.start(step, model=model, optim={"a": model.wte.weight.detach() * step}, data={}, state={})
            saver.finish()
            told.send(step)


def save_kills(trials: int, dice: random.Random, scratch: Path) -> dict:
    from nanochat.train import checkpoint

    good = inside = 0
    for _ in range(trials):
        folder = scratch / "saves"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        here, there = processes.Pipe(duplex=False)
        saver = processes.Process(target=save_forever, args=(folder, there))
        saver.start()
        there.close()
        last = here.recv()                             # the first is in place
        time.sleep(dice.uniform(0, 0.1))
        saver.kill()
        saver.join()
        try:
            while True:
                last = here.recv()
        except EOFError:
            pass
        inside += any(folder.glob(".tmp-*"))
        path = checkpoint.latest(folder)
        good += path is not None and int(path.name.removeprefix("step_")) >= last and bool(checkpoint.load(path))
    return {"kills": trials, "killed_while_writing": inside, "loadable_and_not_older": good}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=50, help="kills per stage")
    parser.add_argument("--saves", type=int, default=100, help="kills inside saves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where the results go, as JSON")
    options = parser.parse_args()
    processes.set_forkserver_preload(PRELOAD)
    dice, results = random.Random(options.seed), {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        run = tiny.make_run(scratch / "undisturbed")
        results["saves"] = save_kills(options.saves, dice, scratch)
        print("saves", results["saves"], flush=True)
        for stage in tiny.CONFIGS:
            seconds = undisturbed(run.path, stage)
            results[stage] = stage_cycles(run.path, stage, seconds, options.cycles, dice, scratch)
            print(stage, results[stage], flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")
    survived = {name: r.get("ended_bit_equal", r.get("loadable_and_not_older")) for name, r in results.items()}
    bad = [name for name, r in results.items() if r["kills"] != survived[name]]
    sys.exit(f"not all survived: {', '.join(bad)}" if bad else 0)


if __name__ == "__main__":
    main()
