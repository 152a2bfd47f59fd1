"""The house: nothing runs on import, the first lessons need no torch."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def modules() -> list[str]:
    files = sorted((ROOT / "nanochat").rglob("*.py"))
    return [".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for f in files]


IMPORT_ALL = """
import builtins, importlib, io, os, socket, subprocess, sys, threading
modules = sys.argv[1:]
import torch, torch._dynamo, numpy, pydantic, datasets, fastapi, uvicorn, papermill, nbformat, nbclient, matplotlib.pyplot, ipywidgets, typer, rich, pytest, tiktoken, jupytext, safetensors.torch, pyarrow.parquet, psutil
before, threads, environment, cwd, state = set(os.listdir(".")), threading.active_count(), dict(os.environ), os.getcwd(), torch.get_rng_state()
def refuse(what):
    def raiser(*a, **k): raise AssertionError("import ran " + what)
    return raiser
subprocess.Popen.__init__ = refuse("a process")
socket.socket.connect = refuse("a connection")
sys.stdout = io.StringIO()
real_open = builtins.open
def read_only(file, mode="r", *a, **k):
    assert not set(mode) & set("wax+"), f"import writes {file}"
    return real_open(file, mode, *a, **k)
builtins.open = read_only
for name in modules:
    importlib.import_module(name)
assert sys.stdout.getvalue() == "", "import prints " + sys.stdout.getvalue()
assert threading.active_count() == threads, "import starts a thread"
assert dict(os.environ) == environment, "import changes the environment"
assert os.getcwd() == cwd and set(os.listdir(".")) == before, "import touches the folder"
assert torch.equal(torch.get_rng_state(), state), "import draws random numbers"
"""


def test_nothing_runs_on_import_of_any_module(tmp_path):
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL, *modules()], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_rooms_of_the_first_two_lessons_need_no_torch():
    code = "import sys, nanochat.course, nanochat.tokenizer, nanochat.course.checks, rustbpe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
