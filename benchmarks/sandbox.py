"""What walls cost: milliseconds a program and a verdict, programs a second, HumanEval's solutions, how late a kill comes.

    python benchmarks/sandbox.py                            NANOCHAT_HUB adds HumanEval and GSM8K's notes

Writes benchmarks/results/sandbox.json. Everything but the single `pass` uses all cores.
"""

import json
import os
import platform
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from nanochat.data import hub
from nanochat.evals.chat import judge_code
from nanochat.runtime import UserError, write_json
from nanochat.sandbox import calculate, run_code, run_tests, sandbox_level
from nanochat.tasks import load_task

RUNS = 300
ANSWER, TESTS = "def root(x): return x ** 0.5", "assert root(9) == 3\nassert root(16) == 4"


def milliseconds(act: Callable[[], object], runs: int) -> dict:
    """Median and 95th percentile of the wall time of one call."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        act()
        times.append(1000 * (time.perf_counter() - start))
    times.sort()
    return {"median_ms": round(times[runs // 2], 2), "p95_ms": round(times[runs * 95 // 100], 2)}


def throughput(seconds: float = 5.0) -> float:
    """Programs a second from as many threads as there are cores."""
    end, done = time.perf_counter() + seconds, []

    def work(_) -> None:
        while time.perf_counter() < end:
            assert run_code("pass").ok
            done.append(1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, range(os.cpu_count())))
    return round(len(done) / seconds, 1)


def lateness() -> dict:
    """Seconds after the timeout at which the call came back, and what the flood cost this process in memory."""
    late, before = {}, psutil.Process().memory_info().rss
    for name, code in (("loop", "while True: pass"), ("sleep", "import time; time.sleep(60)"),
                       ("busy threads", "import threading\ndef f():\n  while True: pass\nfor _ in range(8): threading.Thread(target=f).start()")):
        start = time.perf_counter()
        assert run_code(code, timeout=0.5).why == "timeout"
        late[name] = round(time.perf_counter() - start - 0.5, 3)
    for _ in range(20):
        assert run_code("while True: print('x' * 1000)").why == "output"
    return {"late_s": late, "flood_rss_mb": round((psutil.Process().memory_info().rss - before) / 2**20, 1)}


def humaneval() -> dict:
    task = load_task("humaneval", "test")
    submissions = [task.submission(task[i], task[i]["messages"][-1]["content"]) for i in range(len(task))]
    start = time.perf_counter()
    passed = sum(verdict.ok for verdict in judge_code(submissions, task.name))
    return {"solutions": len(task), "passed": passed, "seconds": round(time.perf_counter() - start, 2)}


def notes() -> dict:
    """GSM8K's calculator notes <<3*4=12>>, recomputed: the same text, the same number (some are written 12.00 or .5)."""
    rows = [row["answer"] for split in ("train", "test") for row in hub.load("openai/gsm8k", "main", split=split)]
    pairs = [note.rpartition("=")[::2] for answer in rows for note in re.findall(r"<<([^<>]*)>>", answer)]
    start = time.perf_counter()
    results = [calculate(call) for call, _ in pairs]
    seconds = time.perf_counter() - start

    def number(text: str | None) -> float | None:
        return float(text.replace(",", "")) if re.fullmatch(r"-?[\d,]*\.?\d+", text or "") else None

    same_text = sum(got == wanted for got, (_, wanted) in zip(results, pairs))
    same_value = sum(got == wanted or number(got) == number(wanted) is not None for got, (_, wanted) in zip(results, pairs))
    return {"notes": len(pairs), "same_text": round(same_text / len(pairs), 5), "same_value": round(same_value / len(pairs), 5),
            "microseconds_each": round(1e6 * seconds / len(pairs), 1)}


def main() -> None:
    load = os.getloadavg()[0]
    result = {"level": sandbox_level(),
              "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": round(load, 2),
                          "kernel": platform.release(), "python": platform.python_version()}}
    run_code("pass")
    result["pass"] = milliseconds(lambda: run_code("pass"), RUNS)
    result["verdict"] = milliseconds(lambda: run_tests(ANSWER, TESTS, ["root"]), RUNS)
    result["programs_per_s"] = throughput()
    result |= lateness()
    try:
        result["humaneval"], result["gsm8k"] = humaneval(), notes()
    except UserError as error:
        print(f"without HumanEval and GSM8K: {error}")
    path = Path(__file__).parent / "results" / "sandbox.json"
    write_json(path, result)
    print(json.dumps(result, indent=1))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
