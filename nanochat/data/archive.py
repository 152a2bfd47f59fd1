"""Zip archives from the network, unpacked with suspicion.

    unpack("cache/eval_bundle.zip", "cache/eval_bundle")

The folder appears complete or not at all. An archive is refused whole when one of its names leads out of the folder, is a
link, or when it would grow beyond reason.
"""

import os
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from nanochat.runtime import UserError

GROWTH = 50  # times the archive's own size that its files may have together; text shrinks to a tenth at best


def unpack(archive: str | Path, folder: str | Path) -> Path:
    """The files of a zip archive in `folder`, which must not exist; returns it.

    Where everything in the archive is in one folder, that folder becomes `folder`. Raises UserError for an archive that
    is damaged, encrypted, unsafe or too large.
    """
    archive, folder = Path(archive), Path(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.filename.startswith("__MACOSX/")]
            _refuse(archive, members)
            for member in members:
                opened.extract(member, temporary)       # reads no more than the stated size, and checks the CRC
        tops = list(temporary.iterdir())
        os.rename(tops[0] if len(tops) == 1 and tops[0].is_dir() else temporary, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{archive} cannot be unpacked ({error}); delete it and fetch it again") from None
    except OSError as error:
        raise UserError(f"cannot unpack {archive} to {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _refuse(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    """Raise UserError unless all names stay inside, all are files or folders, and together they fit."""
    for member in members:
        name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0] or "\0" in name:
            raise UserError(f"{archive} is refused: its file {name!r} would be written outside the folder")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{archive} is refused: {name!r} is a link or a device, not a file")
    size, limit = sum(member.file_size for member in members), GROWTH * max(archive.stat().st_size, 1 << 16)
    if not members or size > limit:
        raise UserError(f"{archive} is refused: its {len(members)} files have {size:,} bytes, more than {GROWTH} times its own size"
                        if members else f"{archive} is empty")
    folder = archive.parent
    if size > (free := shutil.disk_usage(folder).free):
        raise UserError(f"no room to unpack {archive}: {size / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free")
