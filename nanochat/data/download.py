"""Files from the network: each arrives whole, or not at all.

    download("https://…/shard_00000.parquet", "cache/shard_00000.parquet")
    download(url, path, sha256="84e2f8…")                 refuses any other content

The bytes go to a hidden partial file beside the final name, named after the server's ETag; a cut connection, or a killed
process, goes on from there with an HTTP range request. Length, SHA-256 and the first and last bytes are checked, then the
file is renamed. Its SHA-256 is recorded in `.<name>.stamp` and from then on pinned: the caller's, else the one the hub
names while redirecting (X-Linked-Etag), else that of the first download.

Any number of processes may ask for the same file: a lock (flock, freed when its holder dies) lets one of them fetch it.
"""

import errno
import fcntl
import http.client
import os
import random
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from nanochat.data.stamps import make_stamp, still
from nanochat.runtime import UserError, read_json, sha256_file, write_json
from nanochat.runtime.files import fsync_folder

RETRIES = 5                # after the first try
STALL = 30.0               # seconds without a byte that end a try
DEADLINE = 3600.0          # seconds for a file, tries and pauses together; the next call goes on from there
WAIT = (1.0, 30.0)         # seconds between tries: at random, up to twice as long each time
BLOCK = 1 << 18            # bytes read at most at a time
TOGETHER = 4               # files fetched at a time by `download_all`
PASSING = {408, 425, 429}  # HTTP errors that pass, as those from 500 do; every other one is final
MAGIC = {".parquet": (b"PAR1", b"PAR1"), ".zip": (b"PK", b"")}  # how such a file begins and ends


class _TryAgain(Exception):
    """This try failed, the next may not. `wait`: the seconds that the server asked for."""

    def __init__(self, why: str, wait: float | None = None):
        super().__init__(why)
        self.wait = wait


def download(url: str, path: str | Path, *, size: int | None = None, sha256: str | None = None, stall: float = STALL,
             deadline: float = DEADLINE, sleep=None, stop: threading.Event | None = None) -> Path:
    """The file at `url` under the name `path`: there already, or fetched; returns `path`.

    Raises UserError when it cannot be had whole (server, network, disk), or is there but not what it was.
    """
    path = Path(path)
    if not _have(path, sha256):
        with locked(path):
            if not _have(path, sha256):  # another process may have fetched it while this one waited
                _Transfer(url, path, size, sha256, stall, deadline, sleep, stop or threading.Event()).run()
    return path


def download_all(files: list[tuple[str, Path]], **options) -> list[Path]:
    """`download` for many (url, path) pairs, a few at a time. The first failure, or Ctrl-C, ends them all."""
    stop, told = threading.Event(), time.monotonic()
    with ThreadPoolExecutor(TOGETHER) as pool:
        futures = [pool.submit(download, url, path, stop=stop, **options) for url, path in files]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                if time.monotonic() - told > 10:
                    told = time.monotonic()
                    print(f"{done} of {len(files)} files are here", flush=True)
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [path for _, path in files]


@contextmanager
def locked(path: Path):
    """Hold the lock of `path` among all processes of this machine; wait for it if need be. Makes the folder.

    Raises UserError where the folder cannot be written to, or its file system has no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"cannot write to {path.parent} ({error.strerror}); make it writable, or choose another place") from None
    try:
        for patience in range(10, -1, -1):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if patience else 0))
                break
            except BlockingIOError:
                time.sleep(0.1)
                if patience == 1:
                    print(f"{path.name}: waiting for another process that has it in hand", flush=True)
            except OSError as error:
                raise UserError(f"cannot lock a file in {path.parent} ({error.strerror}); choose a place on another disk") from None
        yield
    finally:
        os.close(lock)  # gives the lock back


def stamp_of(path: Path) -> Path:
    """Where the stamp of a downloaded file is kept."""
    return path.with_name(f".{path.name}.stamp")


def check(path: Path, sha256: str | None = None, full: bool = False) -> None:
    """Raise UserError unless the file is what its stamp says; one without a stamp is given one. full=True reads it all."""
    record = stamp_of(path)
    old = read_json(record) if record.exists() else make_stamp(path)
    now = still(path, old, full=full and record.exists())
    if now is None or sha256 not in (None, now["sha256"]):
        raise UserError(f"{path} is not the file that was downloaded (its size or SHA-256 differs); "
                        "delete it and it is fetched again")
    if now != old or not record.exists():
        write_json(record, now)


def _have(path: Path, sha256: str | None) -> bool:
    if path.is_file():
        check(path, sha256)
        return True
    return False


class _Transfer:
    """One file on its way. Its lock is held."""

    def __init__(self, url, path, size, sha256, stall, deadline, sleep, stop):
        self.url, self.path, self.size = url, path, size
        self.stall, self.sleep, self.stop = stall, sleep or stop.wait, stop
        self.part, self.need = None, 0                                   # for the message, should the disk be full
        self.started = time.monotonic()
        self.end, self.told = self.started + deadline, self.started - 4   # the first line of progress after a second
        self.pinned = sha256 or (read_json(stamp_of(path))["sha256"] if stamp_of(path).exists() else None)

    def run(self) -> None:
        try:
            for tries in range(1, RETRIES + 2):
                try:
                    return self._finish(*self._fetch())
                except _TryAgain as error:
                    problem = error
                wait = problem.wait if problem.wait is not None else random.uniform(WAIT[0], min(WAIT[1], 2 ** tries))
                if tries > RETRIES or self.stop.is_set() or time.monotonic() + wait > self.end:
                    break
                self.sleep(wait)
        except OSError as error:  # what the network does is a _TryAgain: this was the disk
            raise self._disk_error(error) from None
        asked = f", and asks to wait {problem.wait:.0f} s" if problem.wait else ""
        raise self._error(f"{problem}{asked} (tried {tries} times)")

    def _fetch(self) -> tuple[Path, str | None]:
        """One try. Returns the partial file, complete by its length, and the SHA-256 that it should have."""
        part, have, headers = self._partial()
        redirects = _Redirects()
        opener = urllib.request.build_opener(redirects)
        timeout = max(0.01, min(self.stall, self.end - time.monotonic()))
        try:
            answer = opener.open(urllib.request.Request(self.url, headers=headers), timeout=timeout)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # nothing is left after what is here: it may be complete, or too much
                part.unlink(missing_ok=True)
                raise _TryAgain("the partial file did not fit") from None
            if error.code in PASSING or error.code >= 500:
                raise _TryAgain(f"HTTP {error.code}", _retry_after(error.headers.get("Retry-After"))) from None
            what = f"HTTP {error.code}" if error.code >= 400 else "it redirects without end, or to a place without https"
            raise self._error(what) from None
        except (OSError, http.client.HTTPException) as error:
            raise _broken(error) from None
        with answer:
            return self._receive(answer, part, have, redirects.linked)

    def _partial(self) -> tuple[Path, int, dict]:
        """The partial file to go on with, how many bytes it has, and the headers that ask for the rest."""
        headers = {"User-Agent": "nanochat", "Accept-Encoding": "identity"}
        prefix = f".{self.path.name}.part-"
        for part in sorted(p for p in self.path.parent.iterdir() if p.name.startswith(prefix)):
            if (etag := unquote(part.name[len(prefix):])) and (have := part.stat().st_size):
                # If-Range: should the file have changed meanwhile, the server sends all of the new one.
                return part, have, {**headers, "Range": f"bytes={have}-", "If-Range": etag}
            part.unlink()
        return self.path.with_name(prefix), 0, headers

    def _receive(self, answer, part: Path, have: int, linked: dict) -> tuple[Path, str | None]:
        headers, total = answer.headers, None
        if answer.status == 206:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
            same = headers.get("ETag", "") in ("", unquote(part.name.rpartition(".part-")[2]))
            if not found or int(found[1]) != have or not same:
                part.unlink(missing_ok=True)
                raise _TryAgain("the server sent another part of the file than was asked for")
            total = int(found[2])
        elif headers.get("Content-Length", "").isdigit():
            total = int(headers["Content-Length"])
        expected, digest = self.size or linked.get("size"), linked.get("sha256")
        if self.pinned and digest and digest != self.pinned:
            raise self._error(f"it offers SHA-256 {digest[:16]}…, and {self.pinned[:16]}… is pinned "
                              f"(to take the new file, delete {stamp_of(self.path)})")
        if "html" in headers.get("Content-Type", ""):
            raise _TryAgain("a web page came instead of the file")
        if expected and total not in (None, expected):
            raise _TryAgain(f"the server offers {total:,} bytes, the file has {expected:,}")
        total = total or expected
        if total is None and headers.get("Transfer-Encoding", "").lower() != "chunked":
            raise _TryAgain("the server does not say how long the file is")

        block = _read(answer)
        if answer.status != 206:  # the whole file: what is here is of another version, or was never begun
            begins = MAGIC.get(self.path.suffix, (b"", b""))[0]
            if not block.startswith(begins[:len(block)]):
                raise _TryAgain(f"what came is not a {self.path.suffix} file")
            part.unlink(missing_ok=True)
            etag = headers.get("ETag", "")
            resumable = etag.startswith('"') and len(etag) < 100     # a weak one (W/"…") does not promise equal bytes
            part, have = self.path.with_name(f".{self.path.name}.part-{quote(etag, safe='') if resumable else ''}"), 0
        self.part, self.need = part, (total or have) - have
        if self.need > shutil.disk_usage(part.parent).free:
            raise OSError(errno.ENOSPC, "no room")
        with open(part, "ab") as f:
            while block:
                f.write(block)
                have += len(block)
                self._progress(have, total)
                if time.monotonic() > self.end:
                    raise _TryAgain("its time is up")
                block = _read(answer)
            f.flush()
            os.fsync(f.fileno())
        if total is not None and have != total:
            if have > total:
                part.unlink()
            raise _TryAgain(f"{have:,} of {total:,} bytes came")
        return part, self.pinned or digest

    def _finish(self, part: Path, expected: str | None) -> None:
        """Check the complete partial file, write its stamp, give it its name."""
        begins, ends = MAGIC.get(self.path.suffix, (b"", b""))
        with open(part, "rb") as f:
            head = f.read(len(begins))
            f.seek(-min(len(ends), part.stat().st_size), os.SEEK_END)
            tail = f.read() if ends else b""
        if (head, tail) != (begins, ends) or (self.path.suffix == ".zip" and not zipfile.is_zipfile(part)):
            part.unlink()
            raise _TryAgain(f"what came is not a whole {self.path.suffix} file")
        digest = sha256_file(part)
        if expected and digest != expected:
            part.unlink()
            raise _TryAgain(f"what came has SHA-256 {digest[:16]}…, not {expected[:16]}…")
        write_json(stamp_of(self.path), {"url": self.url, **make_stamp(part, digest)})
        os.replace(part, self.path)
        fsync_folder(self.path.parent)

    def _disk_error(self, error: OSError) -> UserError:
        """A full disk loses the partial file: it is part of what fills it."""
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return UserError(f"cannot write {self.path.name} to {self.path.parent}: {error.strerror or error}")
        if self.part:
            self.part.unlink(missing_ok=True)
        free = shutil.disk_usage(self.path.parent).free
        return UserError(f"no room for {self.path.name} in {self.path.parent}: {self.need / 1e6:,.1f} MB more are needed, "
                         f"{free / 1e6:,.1f} MB are free; make room and start again")

    def _progress(self, have: int, total: int | None) -> None:
        if self.stop.is_set():
            raise UserError(f"the download of {self.path.name} was stopped; it goes on from {have:,} bytes next time")
        if (now := time.monotonic()) - self.told > 5:
            self.told = now
            of = f" of {total / 1e6:,.1f}" if total else ""
            print(f"{self.path.name}: {have / 1e6:,.1f}{of} MB after {now - self.started:.0f} s", flush=True)

    def _error(self, why: str) -> UserError:
        return UserError(f"cannot download {self.path.name} from {urlsplit(self.url).netloc}: {why}; "
                         "start again later, or set NANOCHAT_HUB to a folder that mirrors the hub")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, never from https to less, and keeps what the hub says on the way about the file."""

    def __init__(self):
        self.linked: dict = {}

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if req.type == "https" and not newurl.startswith("https:"):
            return None
        if headers.get("X-Linked-Size", "").isdigit():
            self.linked["size"] = int(headers["X-Linked-Size"])
        if found := re.fullmatch(r'"?([0-9a-f]{64})"?', headers.get("X-Linked-Etag", "")):
            self.linked["sha256"] = found[1]
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _read(answer) -> bytes:
    """The next bytes as they come, b"" at the end. (`read` would wait for a full block, however slowly it fills.)"""
    try:
        return answer.read1(BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _broken(error) from None


def _broken(error: Exception) -> _TryAgain:
    """What the network did, in a phrase."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return _TryAgain("it stalled")
    return _TryAgain((str(reason).splitlines() or [type(reason).__name__])[0][:120])


def _retry_after(value: str | None) -> float | None:
    """The seconds of a Retry-After header, given as such or as a date."""
    try:
        if value and value.strip().isdigit():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time()) if value else None
    except (ValueError, TypeError):
        return None
