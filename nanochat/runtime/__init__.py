"""The ground floor: console, files, run directories, devices and ranks.

The names that need torch (`pick_device`, `pick_dtype`, `world`, `World`) are imported on first use, so that lessons 01
and 02, which need no torch, start at once.
"""

from nanochat.runtime.console import UserError, core_seconds, say
from nanochat.runtime.files import atomic_write, read_json, sha256_file, write_json
from nanochat.runtime.run import Run, open_run

__all__ = [
    "Run", "UserError", "World", "atomic_write", "core_seconds", "open_run", "pick_device", "pick_dtype",
    "read_json", "say", "sha256_file", "world", "write_json",
]


def __getattr__(name: str):
    if name in ("pick_device", "pick_dtype"):
        from nanochat.runtime import device

        return getattr(device, name)
    if name in ("World", "world"):
        from nanochat.runtime import distributed

        return getattr(distributed, name)
    raise AttributeError(f"module 'nanochat.runtime' has no attribute {name!r}")
