"""Parquet shards of text: one column `text`, one document a row, in row groups.

    write_shard("text/shard_00000.parquet", texts, row_group=1024)
    *train, val = list_shards("text")            # the last shard in sorted order is the validation shard
    shards = TextShards(train)                    # reads the footers only
    shards.read(7)                                # the documents of row group 7, counted over all files

A row group is the unit of reading: it costs one seek, and a loader deals whole row groups to its streams. Whatever is
wrong with a file is one UserError that names the file, and the row group where there is one.
"""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.runtime import UserError

OPEN_FILES = 8  # how many parquet files one reader keeps open


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
    """

    def __init__(self, paths: Iterable[str | Path]):
        self.paths = [Path(path) for path in paths]
        self.groups: list[tuple[int, int, int]] = []  # (file, row group in the file, documents)
        self._open: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        for number, path in enumerate(self.paths):
            meta = self._file(number).metadata
            schema = self._file(number).schema_arrow
            kind = schema.field("text").type if "text" in schema.names else None
            if kind is None or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                found = ", ".join(f"{field.name}: {field.type}" for field in schema)
                raise UserError(f"shard {path} has no string column `text` (it has {found}); replace it")
            self.groups += [(number, g, meta.row_group(g).num_rows) for g in range(meta.num_row_groups)]
        if not any(rows for _, _, rows in self.groups):
            raise UserError(f"no documents in {', '.join(map(str, self.paths)) or 'an empty list of shards'}; "
                            "fetch the data again with `nanochat data`")
        self.groups = [group for group in self.groups if group[2]]

    def __len__(self) -> int:
        """How many row groups there are."""
        return len(self.groups)

    @property
    def documents(self) -> int:
        return sum(rows for _, _, rows in self.groups)

    @property
    def digest(self) -> str:
        """A fingerprint of file names and row counts: with equal digests, group 7 is the same documents."""
        lines = [f"{self.paths[number].name}/{group}:{rows}" for number, group, rows in self.groups]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def read(self, number: int) -> list[str]:
        """The documents of row group `number`."""
        file, group, rows = self.groups[number]
        where = f"shard {self.paths[file]}, row group {group}"
        try:
            texts = self._file(file).read_row_group(group, columns=["text"])["text"].to_pylist()
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise UserError(f"{where}: damaged ({_first_line(error)}); delete the file and fetch it again") from None
        if len(texts) != rows or None in texts:
            raise UserError(f"{where}: {'an empty cell' if None in texts else 'rows are missing'}; "
                            "delete the file and fetch it again")
        return texts

    def _file(self, number: int) -> pq.ParquetFile:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        path = self.paths[number]
        if not path.is_file():
            raise UserError(f"shard {path} is missing; fetch it again with `nanochat data`")
        try:
            self._open[number] = pq.ParquetFile(path, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"shard {path}: not a whole parquet file ({_first_line(error)}); "
                            "delete it and fetch it again") from None
        if len(self._open) > OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return self._open[number]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
