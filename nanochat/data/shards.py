"""Parquet shards of text: one column `text`, one document a row, in row groups.

    write_shard("text/shard_00000.parquet", texts, row_group=1024)
    *train, val = list_shards("text")            # the last shard in sorted order is the validation shard
    shards = TextShards(train)                    # reads the footers only
    shards.read(7)                                # the documents of row group 7, counted over all files

A row group is the unit of reading: it costs one seek, and a loader deals whole row groups to its streams.

A file that cannot be opened, has no column `text`, or changes while it is read is a UserError that names it. A row group
that is damaged (or has an empty cell, or a document of more than MAX_DOCUMENT bytes) is named once and skipped: it has no
documents, for every reader and at every reading. More than MAX_BAD of all row groups, and more than one, is too much.
"""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice, zip_longest
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nanochat.runtime import UserError

OPEN_FILES = 8             # how many parquet files one reader keeps open
MAX_DOCUMENT = 1_000_000   # bytes of a document; real text has next to none longer, a million blanks are an accident
MAX_GROUP = 1 << 29        # bytes of a row group in memory, as the file states it
MAX_BAD = 0.001            # share of the row groups that may be bad; one always may


def write_shard(path: str | Path, texts: Iterable[str], row_group: int = 1024) -> int:
    """Write documents to one parquet file, atomically. Returns how many. Memory holds one row group at a time."""
    return write_table(path, ({"text": text} for text in texts), pa.schema([("text", pa.string())]), row_group)


def write_table(path: str | Path, rows: Iterable[dict], schema: pa.Schema, row_group: int = 1024) -> int:
    """Write rows (dicts) of any schema to one parquet file, atomically. Returns how many."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    rows, written = iter(rows), 0
    try:
        # Checksums turn a flipped bit into an error; statistics and dictionaries would only cost space on free text.
        with pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=False, write_statistics=False,
                              write_page_checksum=True) as writer:
            while group := list(islice(rows, row_group)):
                writer.write_table(pa.Table.from_pylist(group, schema=schema), row_group_size=row_group)
                written += len(group)
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return written


def list_shards(folder: str | Path) -> list[Path]:
    """The parquet files of a folder in sorted order; by convention the last one is for validation."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no folder of text shards at {folder}; make it with `nanochat data`")
    shards = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    if len(shards) < 2:
        raise UserError(f"{folder} holds {len(shards)} parquet shard(s), need two: text to train on and the last for "
                        "validation; fetch more with `nanochat data`")
    return shards


class TextShards:
    """Row groups of a list of shards, numbered through: group 0 is the first of the first file.

    paths: parquet files with a string column `text`. Only footers are read here; `read` fetches documents.
    bad: {row group: what is wrong with it}, as far as they have been read.
    """

    def __init__(self, paths: Iterable[str | Path]):
        self.paths = [Path(path) for path in paths]
        self.groups: list[tuple[int, int, int]] = []  # (file, row group in the file, documents)
        self.bad: dict[int, str] = {}
        self.listing: list[str] = []                  # a line for each file: equal lines, equal row groups
        self._open: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._found: dict[int, tuple[int, int]] = {}  # file → its size and time of change at the first opening
        for number, path in enumerate(self.paths):
            meta = self._file(number).metadata
            schema = self._file(number).schema_arrow
            kind = schema.field("text").type if "text" in schema.names else None
            if kind is None or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                found = ", ".join(f"{field.name}: {field.type}" for field in schema)
                raise UserError(f"shard {path} has no string column `text` (it has {found}); replace it")
            groups = [meta.row_group(g) for g in range(meta.num_row_groups)]
            sizes = hashlib.sha256(str([(g.num_rows, g.total_byte_size) for g in groups]).encode()).hexdigest()[:16]
            self.listing.append(f"{path.name}: {self._found[number][0]} bytes, {len(groups)} row groups, {sizes}")
            self.groups += [(number, g, group.num_rows) for g, group in enumerate(groups) if group.num_rows]
        if not self.groups:
            raise UserError(f"no documents in {', '.join(map(str, self.paths)) or 'an empty list of shards'}; "
                            "fetch the data again with `nanochat data`")

    def __len__(self) -> int:
        """How many row groups there are."""
        return len(self.groups)

    @property
    def documents(self) -> int:
        """How many documents the files state."""
        return sum(rows for _, _, rows in self.groups)

    @property
    def digest(self) -> str:
        """A fingerprint of the files in their order (names, sizes, row groups): with equal digests, group 7 is the same."""
        return hashlib.sha256("\n".join(self.listing).encode()).hexdigest()[:16]

    def read(self, number: int) -> list[str]:
        """The documents of row group `number`; none of a bad one. Raises UserError when there are too many of these."""
        if number in self.bad:
            return []
        file, group, rows = self.groups[number]
        where = f"shard {self.paths[file]}, row group {group}"
        try:
            return self._read(file, group, rows)
        except (pa.ArrowException, OSError, UnicodeDecodeError, _Bad) as error:
            if isinstance(error, OSError) and error.errno:        # the disk's fault; arrow's own errors have no number
                raise UserError(f"{where}: cannot be read ({_first_line(error)})") from None
            what = str(error) if isinstance(error, _Bad) else f"damaged ({_first_line(error)})"
        self.skip({number: what})
        print(f"{where}: {what}; it is skipped ({len(self.bad)} of {len(self)} so far)", flush=True)
        return []

    def skip(self, bad: dict[int, str]) -> None:
        """Count these row groups as bad. Raises UserError when that makes too many."""
        self.bad |= bad
        if len(self.bad) > max(1, int(MAX_BAD * len(self))) or len(self.bad) == len(self):
            names = ", ".join(f"row group {g} of {self.paths[f].name}" for f, g, _ in map(self.groups.__getitem__, sorted(self.bad)[:3]))
            raise UserError(f"{len(self.bad)} of {len(self)} row groups of text are bad ({names}{', …' * (len(self.bad) > 3)}; the last: "
                            f"{list(self.bad.values())[-1]}), more than {MAX_BAD:.1%}; delete these files and fetch them again with `nanochat data`")

    def _read(self, file: int, group: int, rows: int) -> list[str]:
        opened = self._file(file)
        meta = opened.metadata.row_group(group)
        if meta.total_byte_size > MAX_GROUP:
            raise _Bad(f"too large ({meta.total_byte_size:,} bytes)")
        column = opened.read_row_group(group, columns=["text"])["text"]
        if len(column) != rows:
            raise _Bad("rows are missing")
        if column.null_count:
            raise _Bad("an empty cell")
        if (longest := pc.max(pc.binary_length(column)).as_py()) > MAX_DOCUMENT:
            raise _Bad(f"a document of {longest:,} bytes")
        return column.to_pylist()

    def _file(self, number: int) -> pq.ParquetFile:
        path = self.paths[number]
        if not path.is_file():
            raise UserError(f"shard {path} is missing; fetch it again with `nanochat data`")
        stat = path.stat()
        if self._found.setdefault(number, (stat.st_size, stat.st_mtime_ns)) != (stat.st_size, stat.st_mtime_ns):
            raise UserError(f"shard {path} was changed while it is being read; `nanochat data verify` tells if it is still the same")
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        try:
            self._open[number] = pq.ParquetFile(path, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"shard {path}: not a whole parquet file ({_first_line(error)}); "
                            "delete it and fetch it again") from None
        if len(self._open) > OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return self._open[number]


class _Bad(Exception):
    """What is wrong with a row group."""


def agree(listings: list[list[str]]) -> None:
    """Raise UserError, naming the first difference, unless all ranks have the same `TextShards.listing`."""
    for rank, theirs in enumerate(listings):
        for i, (ours, other) in enumerate(zip_longest(listings[0], theirs)):
            if ours != other:
                raise UserError(f"the ranks have different text: file {i} is [{ours or 'none'}] on rank 0 and [{other or 'none'}] on "
                                f"rank {rank}; give every machine the same files")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
