"""Data sets and files of the Hugging Face hub: from a local mirror, the cache, or the network.

    load("openai/gsm8k", "main", split="test")                       → datasets.Dataset
    file("karpathy/climbmix-400b-shuffle", "shard_00000.parquet")     → Path
    extra("words_alpha.zip")                                          → Path, of a few files that live elsewhere
    read_parquet("runs/toy/data/chat/qa.train.parquet")               → datasets.Dataset, in memory

The environment variable NANOCHAT_HUB names a mirror: a folder with the hub's layout (<owner>/<name>/<files>). With a
mirror set nothing is downloaded, and what the mirror lacks is an error. `datasets` is imported on first use: it takes a
second or two.
"""

import os
import shutil
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from nanochat.runtime import UserError

if TYPE_CHECKING:
    from datasets import Dataset

EXTRAS = {"words_alpha.zip": "https://github.com/dwyl/english-words/raw/master/words_alpha.zip"}
TIMEOUT = 30.0  # seconds without an answer


def mirror() -> Path | None:
    """The mirror folder that NANOCHAT_HUB names, None when the variable is not set."""
    name = os.environ.get("NANOCHAT_HUB", "")
    if name and not Path(name).is_dir():
        raise UserError(f"NANOCHAT_HUB names {name}, which is not a folder; set it to a mirror of the hub or unset it")
    return Path(name).resolve() if name else None


def load(repo: str, config: str | None = None, split: str = "train") -> "Dataset":
    """One split of a data set. `config` None means the only or first one.

    Raises UserError when the mirror lacks it or, without a mirror, neither the cache nor the network has it.
    """
    what = f"{repo}{f' ({config})' if config else ''}, split {split},"
    if (root := mirror()) is None:
        _go_offline_if_unreachable()
        import datasets

        try:
            return datasets.load_dataset(repo, config, split=split)
        except ValueError as error:  # an unknown config or split; the message lists the known ones
            raise UserError(f"{what} is not on the hub: {_first_line(error)}") from None
        except (OSError, datasets.exceptions.DatasetsError) as error:
            raise UserError(_how_to_get(what, error)) from None
    paths = _mirror_files(root / repo, config, split)
    if not paths:
        raise UserError(f"{what} is not in the mirror {root}; add its parquet files there, "
                        "or unset NANOCHAT_HUB to download")
    import datasets

    try:
        # Not load_dataset(<folder>): its cache is keyed on the folder's base name only, so that two mirrors, or one
        # whose files were replaced, would share an entry. data_files are keyed on path and time.
        return datasets.load_dataset("parquet", data_files=[str(path) for path in paths], split="train")
    except (datasets.exceptions.DatasetsError, pa.ArrowException, OSError, ValueError) as error:
        for path in paths:
            _table(path)  # raises for the file it was
        raise UserError(f"{what} in the mirror {root} cannot be read: {_first_line(error)}") from None


def file(repo: str, name: str) -> Path:
    """One file of a data set repository; a download appears under its name only when it is complete."""
    if root := mirror():
        path = root / repo / name
        if not path.is_file():
            raise UserError(f"{name} of {repo} is not in the mirror {root}; add it there, or unset NANOCHAT_HUB")
        return path
    _go_offline_if_unreachable()
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(repo, name, repo_type="dataset"))
    except (OSError, HfHubHTTPError) as error:
        raise UserError(_how_to_get(f"{name} of {repo}", error)) from None


def extra(name: str) -> Path:
    """A file that does not live on the hub: in the mirror under extras/, else downloaded once to the user's cache."""
    if root := mirror():
        path = root / "extras" / name
        if not path.is_file():
            raise UserError(f"extras/{name} is not in the mirror {root}; add it there, or unset NANOCHAT_HUB")
        return path
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nanochat" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{name}.{os.getpid()}.tmp")
        try:
            with urllib.request.urlopen(EXTRAS[name], timeout=TIMEOUT) as answer, open(temporary, "wb") as f:
                shutil.copyfileobj(answer, f)
            os.replace(temporary, path)
        except (OSError, urllib.error.URLError) as error:
            raise UserError(_how_to_get(name, error)) from None
        finally:
            temporary.unlink(missing_ok=True)
    return path


def read_parquet(path: str | Path) -> "Dataset":
    """A small parquet file as a Dataset in memory: what `load` gives, without a cache that could go stale."""
    from datasets import Dataset

    return Dataset(_table(Path(path)))


def _table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; fetch or generate it again") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is damaged ({_first_line(error)}); delete it and fetch or generate it again") from None


def _mirror_files(folder: Path, config: str | None, split: str) -> list[Path]:
    """The parquet files of a split: as the repository's card says, else by the hub's usual names."""
    card = folder / "README.md"
    if card.is_file() and (text := card.read_text(errors="replace")).startswith("---"):
        for entry in (yaml.safe_load(text.split("---")[1]) or {}).get("configs", []):
            if config in (None, entry.get("config_name")):
                for files in entry.get("data_files", []):
                    if files["split"] == split:
                        patterns = [files["path"]] if isinstance(files["path"], str) else files["path"]
                        return sorted(path for pattern in patterns for path in folder.glob(pattern))
                if config:
                    return []
    for place in ([config] if config else []) + ["data", "."]:
        if found := sorted((folder / place).glob(f"{split}*.parquet")):
            return found
    return []


def _go_offline_if_unreachable() -> None:
    """Ask whether the hub's name resolves; where it does not, tell the hub's client, which else retries for a minute.

    Its cache is still used then. Behind a proxy names need not resolve here, so nothing is concluded.
    """
    proxies = ("http_proxy", "https_proxy", "all_proxy")
    if "HF_HUB_OFFLINE" not in os.environ and not any(os.environ.get(p) or os.environ.get(p.upper()) for p in proxies):
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        try:
            socket.getaddrinfo(endpoint.split("//")[-1].split("/")[0].split(":")[0], 443)
        except OSError:
            os.environ["HF_HUB_OFFLINE"] = "1"  # read when the client is imported


def _how_to_get(what: str, error: Exception) -> str:
    return (f"cannot get {what} from the network ({_first_line(error)}); connect to it, "
            "or set NANOCHAT_HUB to a folder that mirrors the hub")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
