"""Downloads from a server that misbehaves: every file arrives whole, or one clear line does, and a part is never seen.

NANOCHAT_SOAK=1 runs the loops at their full length.
"""

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import namedtuple
from email.message import Message
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import flaky

from nanochat.data import download as module
from nanochat.data.download import RETRIES, check, download, download_all
from nanochat.runtime import UserError

SOAK = bool(os.environ.get("NANOCHAT_SOAK"))
ROOT = Path(__file__).resolve().parents[2]


def parquet(seed, size=100_000):
    """Bytes that begin and end like a parquet file."""
    return b"PAR1" + random.Random(seed).randbytes(size - 8) + b"PAR1"


BODY = parquet(0)
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server():
    with flaky.serve({"/a.parquet": BODY}) as running:
        yield running


@pytest.fixture
def get(server, tmp_path):
    """get(*behaviours, name=…, **options) downloads from a server that behaves so; get.waits are the pauses it made."""
    def run(*behaviours, name="a.parquet", **options):
        server.script[f"/{name}"] = list(behaviours)

        def sleep(seconds):
            run.waits.append(seconds)
            assert not run.path.exists()       # between two tries nothing bears the file's name

        run.path = tmp_path / "cache" / name
        return download(f"{server.url}/{name}", run.path, **{"stall": 5.0, "sleep": sleep, **options})

    run.waits = []
    return run


def leftovers(path):
    return sorted(p.name for p in path.parent.iterdir() if ".part-" in p.name)


def test_a_file_cut_at_random_bytes_is_completed_from_where_it_was(tmp_path):
    rng, n = random.Random(7), 50 if SOAK else 8
    files = {f"/{i}.parquet": parquet(i, rng.randrange(20, 400_000)) for i in range(n)}
    with flaky.serve(files) as server:
        for name, body in files.items():
            cuts = sorted(rng.randrange(len(body)) for _ in range(rng.randint(1, 3)))
            server.script[name] = [flaky.cut(at) for at in cuts]
            path = download(server.url + name, tmp_path / name[1:], sleep=lambda _: None)
            assert path.read_bytes() == body
        again = sum(server.sent.values()) - sum(map(len, files.values()))
        assert again <= 0.5 * sum(map(len, files.values()))
    assert not list(tmp_path.glob(".*part-*"))


@pytest.mark.parametrize("behaviour, options", [
    pytest.param(flaky.content(flaky.flipped), {"sha256": SHA}, id="a flipped bit"),
    pytest.param(flaky.content(lambda body: body[:-1000]), {}, id="a short body with a matching length"),
    pytest.param(flaky.content(lambda body: body[:-1000]), {"size": len(BODY)}, id="a length that is not the file's"),
    pytest.param(flaky.content(lambda body: body + b"more"), {}, id="bytes after the end"),
    pytest.param(flaky.content(lambda body: body[1:]), {}, id="bytes missing at the start"),
    pytest.param(flaky.page(), {}, id="a web page with 200"),
    pytest.param(flaky.content(lambda _: b"<html>no</html>", Content_Type="text/plain"), {}, id="a web page in disguise"),
    pytest.param(flaky.without_length, {}, id="no length"),
    pytest.param(flaky.chunked(cut_at=50_000), {}, id="chunks without an end"),
    pytest.param(flaky.stall(), {"stall": 0.4}, id="a stall at the start"),
    pytest.param(flaky.stall(30_000), {"stall": 0.4}, id="a stall in the middle"),
    pytest.param(flaky.status(500), {}, id="500"),
])
def test_what_is_wrong_is_noticed_and_fetched_again(get, behaviour, options):
    assert get(behaviour, behaviour, **options).read_bytes() == BODY
    assert len(get.waits) == 2 and all(1 <= wait <= 30 for wait in get.waits)
    assert not leftovers(get.path)


@pytest.mark.parametrize("code", [429, 503])
def test_the_servers_wish_to_be_left_alone_is_honoured(get, code):
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    get(flaky.status(code, Retry_After=7), flaky.status(code, Retry_After=later))
    assert get.waits[0] == 7 and 50 < get.waits[1] <= 60
    get.path.unlink()
    with pytest.raises(UserError, match=f"HTTP {code}, and asks to wait 4000 s"):
        get(flaky.status(code, Retry_After=4000))
    assert len(get.waits) == 2


@pytest.mark.parametrize("behaviour, message", [
    (flaky.status(401), "HTTP 401"), (flaky.status(403), "HTTP 403"), (flaky.status(404), "HTTP 404"),
    (flaky.status(302, Location="/a.parquet"), "redirects without end")])
def test_what_will_not_pass_is_said_at_once(server, get, behaviour, message):
    with pytest.raises(UserError, match=f"cannot download a.parquet from 127.0.0.1.*{message}"):
        get(*[behaviour] * 30)
    assert get.waits == [] and len(server.requests) <= 11 and not get.path.exists() and not leftovers(get.path)


def test_a_web_page_is_refused_for_any_name_and_costs_nothing_of_what_is_there(server, get):
    server.files["/list.txt"] = b"words\n" * 20_000
    disguised = flaky.content(lambda _: b"<html>no</html>", Content_Type="text/plain")
    assert get(flaky.page(), name="list.txt").read_bytes() == server.files["/list.txt"] and len(get.waits) == 1
    assert get(flaky.cut(90_000), flaky.page(), disguised).read_bytes() == BODY
    assert server.sent["/a.parquet"] < len(BODY) + 100


def test_it_gives_up_after_five_more_tries_and_keeps_what_it_has(server, get):
    with pytest.raises(UserError, match=r"40,000 of 100,000 bytes came \(tried 6 times\)"):
        get(*[flaky.cut(40_000)] * 10)
    assert len(server.requests) == 1 + RETRIES and len(get.waits) == RETRIES and not get.path.exists()
    get()
    assert server.sent["/a.parquet"] == len(BODY)


def test_a_slow_server_is_left_when_the_time_is_up(get, server):
    with pytest.raises(UserError, match="its time is up"):
        get(flaky.slow(4), deadline=1.0)
    assert not get.path.exists() and leftovers(get.path)


def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(server, get):
    with pytest.raises(UserError, match="its time is up"):
        get(flaky.slow(4), deadline=1.0)
    server.files["/a.parquet"] = parquet("another")
    assert get().read_bytes() == parquet("another") and not leftovers(get.path)


def test_the_rest_of_another_file_is_not_put_to_what_is_here(get):
    assert get(flaky.cut(40_000), flaky.spliced(lambda body: parquet("another", len(body)))).read_bytes() == BODY


def test_the_hubs_own_word_about_a_file_is_checked(server, tmp_path):
    server.files["/bucket.parquet"] = BODY
    linked = {"Location": "/bucket.parquet", "X_Linked_Size": len(BODY), "X_Linked_Etag": f'"{SHA}"'}
    server.script = {"/a.parquet": [flaky.status(302, **linked)] * 4,
                     "/bucket.parquet": [flaky.content(flaky.flipped), flaky.content(lambda b: b[:-9] + b"PAR1")]}
    path = download(f"{server.url}/a.parquet", tmp_path / "a.parquet", sleep=lambda _: None)
    assert path.read_bytes() == BODY
    path.unlink()
    server.script["/a.parquet"] = [flaky.status(302, **{**linked, "X_Linked_Etag": "0" * 64})]
    with pytest.raises(UserError, match="it offers SHA-256 0000.* is pinned .to take the new file, delete .*stamp"):
        download(f"{server.url}/a.parquet", path)


def test_a_first_download_pins_the_content_and_later_changes_are_noticed(server, get):
    path = get()
    get()
    assert len(server.requests) == 1
    os.utime(path, ns=(1, 1))                      # touched, the bytes are the same
    get()
    path.write_bytes(flaky.flipped(BODY))
    os.utime(path, ns=(1, 1))                      # size and time as before: only reading it all can tell
    get()
    with pytest.raises(UserError, match="a.parquet is not the file that was downloaded .*; delete it"):
        check(path, full=True)
    path.write_bytes(flaky.flipped(BODY))
    with pytest.raises(UserError, match="is not the file that was downloaded"):
        get()
    path.unlink()
    server.files["/a.parquet"] = parquet("another")
    with pytest.raises(UserError, match="what came has SHA-256 .*, not "):
        get()
    assert not path.exists()
    server.files["/a.parquet"] = BODY
    assert get().read_bytes() == BODY


def test_a_full_disk_is_one_line_with_both_figures(get, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 50_000)
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(UserError, match=r"no room for a.parquet in .*: 0.1 MB more are needed, 0.1 MB are free"):
            get()
    with monkeypatch.context() as patch:
        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")
        patch.setattr(module.os, "fsync", full)
        with pytest.raises(UserError, match="no room for a.parquet"):
            get()
    assert get.waits == [] and not get.path.exists() and not leftovers(get.path)
    assert get().read_bytes() == BODY


def test_a_redirect_never_leaves_https():
    def follow(place):
        return module._Redirects().redirect_request(request, None, 302, "", Message(), place)

    request = urllib.request.Request("https://hub/file")
    assert follow("http://hub/file") is None and follow("https://cdn/file").full_url == "https://cdn/file"


def test_a_folder_that_cannot_be_used_is_one_line(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write to .*/file/cache .*; make it writable"):
        download(f"{server.url}/a.parquet", tmp_path / "file" / "cache" / "a.parquet")


def test_many_files_come_together_and_the_first_failure_ends_all(server, tmp_path):
    server.files = {f"/{i}.parquet": parquet(i) for i in range(10)}
    files = [(f"{server.url}/{i}.parquet", tmp_path / f"{i}.parquet") for i in range(10)]
    server.script = {"/3.parquet": [flaky.status(503, Retry_After=0)]}
    assert [path.read_bytes() for path in download_all(files)] == list(server.files.values())
    server.script = {f"/{i}.parquet": [flaky.slow(3)] for i in range(1, 10)}
    files = [(url, tmp_path / "again" / path.name) for url, path in files]
    del server.files["/0.parquet"]
    with pytest.raises(UserError, match="cannot download 0.parquet.*HTTP 404"):
        download_all(files)
    assert not list((tmp_path / "again").glob("[0-9]*"))


# A process without threads makes the others with fork, which spares each the imports.
PROCESSES = """
import os, sys
from nanochat.data.download import download
url, folder, n, files = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].split(",")
for i in range(n):
    if os.fork() == 0:
        for name in files[i % len(files):] + files[:i % len(files)]:
            download(f"{url}/{name}", f"{folder}/{name}", stall=20)
        os._exit(0)
sys.exit(sum(os.waitstatus_to_exitcode(os.wait()[1]) != 0 for _ in range(n)))
"""


def start(server, folder, n, files):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "no_proxy": "*"}
    return subprocess.Popen([sys.executable, "-c", PROCESSES, server.url, str(folder), str(n), ",".join(files)],
                            env=environment, start_new_session=True, stdout=subprocess.PIPE, text=True)


def test_eight_processes_that_want_five_files_fetch_each_once(tmp_path):
    files = {f"{i}.parquet": parquet(i) for i in range(5)}
    with flaky.serve({f"/{name}": body for name, body in files.items()}) as server:
        server.script = {f"/{name}": [flaky.slow(0.2)] for name in files}
        processes = start(server, tmp_path, 8, files)
        processes.communicate(timeout=60)
        assert processes.returncode == 0
        assert sorted(server.requests) == sorted(f"/{name}" for name in files)
    assert {name: (tmp_path / name).read_bytes() for name in files} == files


def test_a_killed_download_frees_its_lock_and_another_process_goes_on_with_it(tmp_path):
    rng = random.Random(3)
    with flaky.serve({}) as server:
        for i in range(20 if SOAK else 3):
            name, body = f"{i}.parquet", parquet(i)
            server.files[f"/{name}"] = body
            server.script[f"/{name}"] = [flaky.stall(rng.randrange(1000, len(body)), seconds=30)]
            victim = start(server, tmp_path, 1, [name])
            while server.sent.get(f"/{name}", 0) < 1000 or not leftovers(tmp_path / name):
                assert victim.poll() is None
                time.sleep(0.01)
            heir = start(server, tmp_path, 1, [name])
            assert heir.stdout.readline() == f"{name}: waiting for another process that has it in hand\n"
            os.killpg(victim.pid, signal.SIGKILL)
            victim.wait()
            heir.communicate(timeout=60)
            assert heir.returncode == 0 and (tmp_path / name).read_bytes() == body
            assert server.sent[f"/{name}"] <= 1.5 * len(body) and not leftovers(tmp_path / name)
