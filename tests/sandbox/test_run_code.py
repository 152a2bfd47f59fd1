"""A program that a model wrote runs apart, within limits, and cannot make `run_code` raise, wait or leave a trace."""

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanochat.sandbox import Result, run_code
from nanochat.sandbox import helper as helping
from nanochat.sandbox.folder import remove
from nanochat.sandbox.helper import helper


@pytest.fixture(autouse=True)
def leaves_nothing(tmp_path, monkeypatch):
    """After each test: no folder of the sandbox's and no process but the helper."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    helper()
    yield
    assert list(tmp_path.iterdir()) == []
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= {helping._helper.process.pid}


def test_an_honest_program():
    assert run_code("import math\nprint(math.factorial(10))") == Result(True, "3628800\n", "", "")


def test_what_went_wrong_is_named():
    assert run_code("print(1)\n1/0").why == "error: ZeroDivisionError: division by zero"
    assert run_code("assert 1 == 2").why == "error: AssertionError"
    assert run_code("def f(:").why == "error: SyntaxError: invalid syntax"
    assert run_code("import sys; sys.exit(3)").why == "exit 3"
    assert run_code("import os; os.abort()").why == "signal: Aborted"
    failed = run_code("import sys; print('out'); print('err', file=sys.stderr); raise ValueError('x')")
    assert (failed.ok, failed.stdout) == (False, "out\n")
    assert "err\n" in failed.stderr and "ValueError: x" in failed.stderr


def test_an_early_exit_is_no_error_of_its_own():
    assert run_code("import sys; print('a'); sys.exit(0)") == Result(True, "a\n", "", "")


@pytest.mark.parametrize("code", [
    "while True: pass",
    "import time; time.sleep(60)",
    "import os, time; os.close(1); os.close(2); time.sleep(60)",
    "import signal, time\nfor s in {*range(1, 32)} - {9, 19}: signal.signal(s, signal.SIG_IGN)\ntime.sleep(60)",
    "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start()",
    "import time\nclass X:\n  def __del__(self): time.sleep(60)\nx = X()",
    "import os; os.kill(os.getpid(), 19)",
    "import atexit, time; atexit.register(time.sleep, 60)",
    "print('early', flush=True)\nwhile True: pass",
])  # fmt: skip
def test_time_is_limited(code):
    start = time.monotonic()
    result = run_code(code, timeout=0.5)
    assert (result.ok, result.why) == (False, "timeout") and time.monotonic() - start < 5
    assert result.stdout == ("early\n" if "early" in code else "")


@pytest.mark.parametrize("code", ["x = bytearray(10**9)", "x = []\nwhile True: x += [bytearray(10**6)]", "'a' * 10**9"])
def test_memory_is_limited(code):
    assert run_code(code, memory_mb=128).why == "memory"
    assert run_code("x = bytearray(50 * 10**6)", memory_mb=128).ok


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_flood_is_cut_and_stopped(stream):
    result = run_code(f"import sys\nwhile True: sys.{stream}.write('x' * 1000)", timeout=30)
    assert result.why == "output" and len(getattr(result, stream)) == 64 * 1024


def test_long_output_of_a_program_that_ends_is_cut_but_fine():
    result = run_code("print('x' * 200_000)")
    assert result.ok and result.stdout == "x" * 64 * 1024


def test_both_streams_are_read_to_their_end():
    result = run_code("import sys\nfor i in range(5000): print(i); print(-i, file=sys.stderr)")
    assert result.stdout.splitlines() == [str(i) for i in range(5000)] and len(result.stderr.splitlines()) == 5000


def test_its_folder_is_small_and_vanishes():
    assert "File too large" in run_code("open('big', 'wb').write(b'z' * (32 << 20))").why
    assert run_code("open('note', 'w').write('x')\nprint(open('note').read())").stdout == "x\n"
    assert run_code("import os; print(os.listdir())").stdout == "[]\n"
    assert "No space left" in run_code("for i in range(100): open(str(i), 'wb').write(b'z' * (1 << 20))").why
    assert "No space left" in run_code("for i in range(5000): open(str(i), 'w').close()").why


@pytest.mark.parametrize("code", [
    "for i in range(300): os.mkdir('a' * 20); os.chdir('a' * 20)",
    "os.mkdir('k'); open('k/f', 'w').close(); os.chmod('k', 0); os.chmod('.', 0)",
    "for i in range(20):\n  os.makedirs(f'{i}/x/y'); open(f'{i}/x/f', 'w').close()",
    "os.symlink(OUTSIDE, 'l'); os.mkdir('d'); os.symlink(OUTSIDE, 'd/l'); os.mkfifo('d/p')",
])  # fmt: skip
def test_any_tree_is_removed_and_no_link_followed(code, tmp_path, monkeypatch):
    outside, folder = tmp_path.parent / "outside", tmp_path / "folder"
    outside.mkdir(exist_ok=True)
    (outside / "keep").write_text("x")
    folder.mkdir()
    monkeypatch.chdir(folder)
    exec("import os\n" + code, {"OUTSIDE": str(outside)})      # noqa: S102  harmless, and in a folder of our own
    remove(str(folder))
    assert not folder.exists() and (outside / "keep").read_text() == "x"


def test_it_inherits_no_environment_no_files_and_no_input(monkeypatch):
    monkeypatch.setenv("API_KEY", "secret")
    with tempfile.TemporaryFile(dir="/") if os.access("/", os.W_OK) else open(__file__) as file:
        os.set_inheritable(file.fileno(), True)
        names = run_code("import os; print(sorted(os.environ))").stdout
        fds = run_code("import os\nfor i in range(3, 60):\n  try: os.fstat(i); print(i)\n  except OSError: pass").stdout
    assert set(eval(names)) <= {"LC_CTYPE", "__CF_USER_TEXT_ENCODING"} and fds == ""
    assert run_code("print(repr(input()))").why == "error: EOFError: EOF when reading a line"


def test_it_does_not_see_our_modules():
    assert run_code("import nanochat").why.startswith("error: ModuleNotFoundError")


@pytest.mark.parametrize("code", [
    "print(1)\0", "print('\ud800')", "\ufeffprint(1)", "# coding: nonsense\n", "\x1a", "(" * 10_000,
    "x = " + "9" * 10**6, "#" * 10**7,
])  # fmt: skip
def test_no_source_makes_it_raise(code):
    assert isinstance(run_code(code, timeout=5), Result)


@settings(max_examples=int(os.environ.get("SANDBOX_FUZZ", "200")), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200), st.text("()[]{}:=+-.,'\"\\ \n\t0x9abfordeinlmpst", max_size=80)))
def test_random_sources_give_results(code):
    result = run_code(code, timeout=1)
    assert isinstance(result, Result) and result.ok == (result.why == "") and not result.why.startswith("refused")


def test_bytes_that_are_no_text_are_shown_as_such():
    assert run_code("import sys; sys.stdout.buffer.write(b'a\\xffb')").stdout == "a\ufffdb"


def test_a_harness_that_cannot_start_says_refused(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(helping, "_helper", None)
        patch.setattr("sys.executable", "/no/such/python")
        result = run_code("print(1)")
        assert not result.ok and result.why.startswith("refused: [Errno 2] No such file or directory")
        patch.setattr("sys.executable", "/bin/true")
        assert run_code("print(1)").why == "refused: the sandbox's helper does not start"


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def dead_soon(processes: list[psutil.Process], seconds: float = 5.0) -> bool:
    """Whether all have ended; one that nobody has asked about yet is a zombie, and dead."""
    end = time.monotonic() + seconds
    while any(alive(p) for p in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_a_killed_helper_is_replaced():
    before = helper().process
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_code, "import time; time.sleep(60)", 20)
        while not psutil.Process(before.pid).children():
            time.sleep(0.01)
        [program] = psutil.Process(before.pid).children()
        before.kill()
        assert running.result().why == "refused: the sandbox's helper died"
    assert run_code("print(6*7)").stdout == "42\n" and helper().process.pid != before.pid
    assert dead_soon([program])                               # the kernel killed it with the helper
    helper().process.kill()
    assert run_code("print(6*7)").stdout == "42\n"           # even if nobody noticed yet


def test_a_killed_harness_leaves_nothing():
    code = ("import os, threading\nfrom nanochat.sandbox import run_code\nfrom nanochat.sandbox.helper import helper\n"
            "threading.Thread(target=run_code, args=('import time; time.sleep(60)', 60)).start()\n"
            "print(helper().process.pid, flush=True)")
    harness = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process = psutil.Process(int(harness.stdout.readline()))
    while not process.children():
        time.sleep(0.01)
    family = [process, *process.children()]
    harness.kill()
    harness.communicate()
    assert dead_soon(family)


def test_the_helper_outlives_the_thread_that_started_it(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(helping, "_helper", None)
        with ThreadPoolExecutor(1) as pool:
            pid = pool.submit(lambda: helper().process.pid).result()
        assert run_code("print(6*7)").stdout == "42\n" and helper().process.pid == pid
        helper().close()


def test_many_at_once():
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: run_code(f"print({i} ** 2)", timeout=20), range(16)))
    assert [r.stdout for r in results] == [f"{i * i}\n" for i in range(16)]


def test_nothing_in_the_sandbox_evaluates_text_in_our_process():
    import ast

    import nanochat.sandbox

    for path in Path(nanochat.sandbox.__file__).parent.glob("*.py"):        # inside/ is another process
        called = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not {"eval", "exec", "compile", "__import__"} & {f.id for f in called if isinstance(f, ast.Name)}, path
