"""Where walls are missing the sandbox says so, falls a level, and refuses if the highest was asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LACKING = Path(__file__).with_name("lacking.py")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")


def python(code: str, lacking: str = "", **environment: str) -> list[str]:
    """The lines that a fresh Python prints, in a system without these walls."""
    command = [sys.executable, *([str(LACKING), lacking] if lacking else []), "-c", "from nanochat.sandbox import *\n" + code]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False)
    return (done.stdout + done.stderr).splitlines()


@linux
@pytest.mark.parametrize(("lacking", "level", "said"), [
    ("landlock", "namespaces", "no Landlock; programs run within namespaces only"),
    ("seccomp", "namespaces", "no seccomp; programs run within namespaces only"),
    ("landlock,seccomp,namespaces", "limits", "no Landlock and no seccomp; programs run within limits only"),
    ("seccomp,namespaces", "limits", "no seccomp; programs run within limits only"),
])
def test_a_missing_wall_is_said_once_and_strict_refuses(lacking, level, said):
    code = "print(run_code('print(6*7)'), run_tests('def f(): return 1', 'assert f() == 1', ['f']).ok, sandbox_level())"
    notice, result = python(code, lacking)
    assert notice == f"sandbox: this system has {said}"
    assert result == f"Result(ok=True, stdout='42\\n', stderr='', why='') True {level}"
    *_, error = python("check_sandbox()", lacking, NANOCHAT_SANDBOX="strict")
    missing = said.split(";")[0]
    assert error == (f"nanochat.runtime.console.UserError: a strict sandbox is asked for, but this system has {missing} "
                     "(NANOCHAT_SANDBOX, --sandbox)")
    assert not any("42" in line for line in python("print(run_code('print(6*7)'))", lacking, NANOCHAT_SANDBOX="strict"))


@linux
def test_without_namespaces_it_is_still_strict_but_has_no_folder():
    code = "print(sandbox_level(), run_code('print(1)').stdout.strip(), run_code('open(\"x\", \"w\")').why)"
    [line] = python(code, "namespaces", NANOCHAT_SANDBOX="strict")
    assert line.startswith("strict 1 error: PermissionError")


@linux
def test_within_limits_alone_its_folder_is_removed(tmp_path):
    code = ("import os\nprint(os.listdir())\nfor i in range(300): os.mkdir('a' * 20); os.chdir('a' * 20)\n"
            "open('x', 'w').close()\nif os.fork() == 0:\n  import time; time.sleep(60)\nos._exit(3)")
    _, line = python(f"import tempfile; tempfile.tempdir = {str(tmp_path)!r}\nprint(run_code({code!r}))",
                     "landlock,seccomp,namespaces")
    assert line == "Result(ok=False, stdout='', stderr='', why='exit 3')" and list(tmp_path.iterdir()) == []


def test_an_unknown_wish_is_refused():
    assert python("print(run_code('1').why)", NANOCHAT_SANDBOX="Strict") == [
        "refused: NANOCHAT_SANDBOX is 'Strict'; it can be strict, or unset"]


@linux
def test_the_command_refuses_before_it_begins():
    command = [sys.executable, str(LACKING), "landlock", "-m", "nanochat.cli", "run", "--sandbox", "strict"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and done.stderr.splitlines() == [
        "nanochat: a strict sandbox is asked for, but this system has no Landlock (NANOCHAT_SANDBOX, --sandbox)"]
