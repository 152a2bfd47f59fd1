"""Data sets and files of the Hugging Face hub: from a local mirror, the cache, or the network.

    load("openai/gsm8k", "main", split="test")                       → datasets.Dataset
    file("karpathy/climbmix-400b-shuffle", "shard_00000.parquet")     → Path; `files` for many at once
    extra("words_alpha.zip")                                          → Path, of a few files that live elsewhere
    eval_bundle()                                                     → Path of the folder with CORE's tasks
    read_parquet("runs/toy/data/chat/qa.train.parquet")               → datasets.Dataset, in memory

The environment variable NANOCHAT_HUB names a mirror: a folder with the hub's layout (<owner>/<name>/<files>, extras/,
eval_bundle/). With a mirror set nothing is downloaded, and what the mirror lacks is an error. Data sets of the tasks come
through `datasets` and its cache (imported on first use: it takes a second or two); everything larger comes through
`nanochat.data.download`, which checks more, to ~/.cache/nanochat.
"""

import os
import socket
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from nanochat.data.archive import unpack
from nanochat.data.download import download, download_all, locked
from nanochat.runtime import UserError
from nanochat.runtime.files import cache

if TYPE_CHECKING:
    from datasets import Dataset

# Files that live elsewhere: where, and their SHA-256 where it is known (else the first download's is pinned).
EXTRAS = {
    "words_alpha.zip": ("https://github.com/dwyl/english-words/raw/20f5cc9b3f0ccc8ce45d814c532b7c2031bba31c/words_alpha.zip",
                        "84e2f80ebb4ef498dac7e0940893efc4d14ca90262370656b6155fb065839b5f"),
    "tinyshakespeare.txt": ("https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
                            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"),
    "eval_bundle.zip": ("https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip", None),
}


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
    """One file of a data set repository."""
    return files(repo, [name])[0]


def files(repo: str, names: list[str]) -> list[Path]:
    """Files of a data set repository: in the mirror, else downloaded once to the user's cache, a few at a time.

    The hub tells the length and SHA-256 of every large file, which are checked.
    """
    if root := mirror():
        for name in names:
            if not (root / repo / name).is_file():
                raise UserError(f"{name} of {repo} is not in the mirror {root}; add it there, or unset NANOCHAT_HUB")
        return [root / repo / name for name in names]
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    wanted = [(f"{endpoint}/datasets/{repo}/resolve/main/{name}", cache() / "hub" / repo / name) for name in names]
    if missing := [(url, f"{path.name} of {repo}") for url, path in wanted if not path.exists()]:
        _need_network(*missing[0])
    return download_all(wanted)


def extra(name: str) -> Path:
    """A file that does not live on the hub: in the mirror under extras/, else downloaded once to the user's cache."""
    if root := mirror():
        path = root / "extras" / name
        if not path.is_file():
            raise UserError(f"extras/{name} is not in the mirror {root}; add it there, or unset NANOCHAT_HUB")
        return path
    url, sha256 = EXTRAS[name]
    if not (cache() / name).exists():
        _need_network(url, name)
    return download(url, cache() / name, sha256=sha256)


def eval_bundle() -> Path:
    """The folder of CORE's tasks: in the mirror, else unpacked once in the user's cache (nanochat's eval_bundle.zip, 162 MB)."""
    if root := mirror():
        if not (root / "eval_bundle" / "core.yaml").is_file():
            raise UserError(f"eval_bundle/ is not in the mirror {root}; add it there, or unset NANOCHAT_HUB")
        return root / "eval_bundle"
    folder = cache() / "eval_bundle"
    if not folder.is_dir():
        archive = extra("eval_bundle.zip")
        with locked(folder):
            if not folder.is_dir():
                unpack(archive, folder)
    return folder


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
    """Where the hub cannot be reached, tell its client, which else retries for a minute. Its cache is still used then."""
    if "HF_HUB_OFFLINE" not in os.environ and _unreachable(os.environ.get("HF_ENDPOINT", "https://huggingface.co")):
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when the client is imported


def _need_network(url: str, what: str) -> None:
    """Raise UserError at once where trying for minutes would be in vain."""
    error = OSError("HF_HUB_OFFLINE is set") if os.environ.get("HF_HUB_OFFLINE") == "1" else _unreachable(url)
    if error:
        raise UserError(_how_to_get(what, error))


def _unreachable(url: str) -> OSError | None:
    """Why the host of a URL has no address here. Behind a proxy names need not resolve, so nothing is concluded."""
    if urllib.request.getproxies():
        return None
    try:
        socket.getaddrinfo(urlsplit(url).hostname, 443)
    except OSError as error:
        return error
    return None


def _how_to_get(what: str, error: Exception) -> str:
    return (f"cannot get {what} from the network ({_first_line(error)}); connect to it, "
            "or set NANOCHAT_HUB to a folder that mirrors the hub")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
