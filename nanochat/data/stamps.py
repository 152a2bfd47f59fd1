"""Stamps: what a file was when it was last known to be whole, so that a later change is noticed without reading it again.

    stamp = make_stamp(path)               {"bytes": …, "mtime_ns": …, "sha256": …}, reads the file once
    still(path, stamp)                     the stamp while the file is what it was, None when it is not

Size and time of change are compared first: equal means unchanged, at the price of one `stat`. A file that was only copied
or touched has the old bytes under a new time: it is read once more and gets a fresh stamp.
"""

from pathlib import Path

from nanochat.runtime import sha256_file

Stamp = dict


def make_stamp(path: Path, sha256: str | None = None) -> Stamp:
    """The stamp of a file; `sha256` when it is known already."""
    stat = path.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256 or sha256_file(path)}


def still(path: Path, stamp: Stamp, full: bool = False) -> Stamp | None:
    """A stamp of the file if its bytes are those of `stamp`, else None; full=True reads them in any case."""
    stat = path.stat()
    if stat.st_size != stamp["bytes"]:
        return None
    if stat.st_mtime_ns == stamp["mtime_ns"] and not full:
        return stamp
    now = make_stamp(path)
    return now if now["sha256"] == stamp["sha256"] else None
