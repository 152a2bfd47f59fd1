"""Every attack holds and no forged answer passes: as this user, as one without rights, with namespaces and without.

The table is in attacks.py, which is run as a program, so that it can be run as another user and without some walls.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import attacks
import pytest

HERE = Path(__file__).parent
REPO = HERE.parents[1]
NOBODY = 65534
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")


def pythons() -> list[str]:
    """Interpreters that a user without rights can start: not one below /root."""
    def starts(path: str) -> bool:
        try:
            check = "import sys; sys.exit(sys.version_info < (3, 10))"
            return subprocess.run([path, "-c", check], user=NOBODY, check=False).returncode == 0
        except OSError:
            return False

    return [path for path in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3") if starts(path)]


def run(*arguments: str, python: str = sys.executable, **how) -> tuple[list[dict], dict]:
    environment = {"PYTHONPATH": str(REPO), "PATH": os.environ["PATH"], "HOME": "/"}
    done = subprocess.run([python, *arguments], env=environment, cwd="/", capture_output=True, text=True, timeout=300,
                          check=False, **how)
    assert done.returncode == 0, done.stderr
    *broken, summary = [json.loads(line) for line in done.stdout.splitlines()]
    return broken, summary


def test_there_are_many_and_over_every_class():
    names = [(kind, name) for kind, entries in attacks.CLASSES.items() for name in entries]
    assert len(names) >= 200 and len(attacks.FORGERIES) >= 50 and all(len(c) >= 6 for c in attacks.CLASSES.values())


def test_what_gets_through_would_be_seen(tmp_path):
    outside = attacks.Outside(tmp_path)
    for code in ("print('GOT')", "import time; print('SECRET', flush=True); time.sleep(9)"):
        assert attacks.attack(outside, "reads", "through", code)[0]["faults"]
    assert outside.changed() == []
    (tmp_path / "keep").chmod(0o777)
    (tmp_path / "new").touch()
    attacks.socket.create_connection(outside.tcp.getsockname())
    assert len(outside.changed()) == 4                       # keep, new, their folder, the socket
    assert attacks.forge("forgery", "no forgery", attacks.HONEST["right"])[0]["faults"]


def test_as_this_user_everything_holds():
    broken, summary = run(str(HERE / "attacks.py"))
    assert broken == [] and summary["tried"] >= 280


def test_without_namespaces_everything_holds():
    broken, summary = run(str(HERE / "lacking.py"), "namespaces", str(HERE / "attacks.py"), "walls")
    assert broken == [] and summary["tried"] >= 170


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user, and this user is unprivileged already")
@pytest.mark.parametrize("lacking", ["", "namespaces"])
def test_as_nobody_everything_holds(lacking):
    found = pythons()
    if not found:
        pytest.skip("there is no Python that an unprivileged user could start")
    command = [str(HERE / "lacking.py"), lacking] if lacking else []
    broken, summary = run(*command, str(HERE / "attacks.py"), "walls", python=found[0], user=NOBODY, group=NOBODY,
                          extra_groups=[])
    assert broken == [] and summary["tried"] >= 170
