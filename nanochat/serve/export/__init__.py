"""Take a trained model elsewhere.

    export(run, "hf", "out/")         # a folder that transformers' AutoModelForCausalLM and AutoTokenizer open
    export(run, "tiktoken", "out/")   # the tokenizer alone, for OpenAI's tiktoken
    export(run, "c", "out/")          # two files: the parameters, and one C program that runs them

Each exporter writes into a folder that appears whole or not at all.
"""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

from nanochat.runtime import Run, UserError, say

FORMATS = ("hf", "tiktoken", "c")

__all__ = ["FORMATS", "export", "new_folder", "seed_only"]


def export(run: Run, to: str, folder: str | Path, stage: str | None = None) -> Path:
    """Write the newest model of `run` (or the one of `stage`) in the format `to`; the folder must be new or empty."""
    if to not in FORMATS:
        raise UserError(f"unknown export format {to!r}; choose one of {', '.join(FORMATS)}")
    if to == "tiktoken":  # needs no model, and no torch
        from nanochat.serve.export.tiktoken import to_tiktoken
        from nanochat.tokenizer import Tokenizer

        path = to_tiktoken(Tokenizer.from_dir(run / "tokenizer"), folder)
    else:
        from nanochat.serve.export.c import to_c
        from nanochat.serve.export.hf import to_hf
        from nanochat.train.checkpoint import load_model

        model, tokenizer, _ = load_model(run, stage)
        path = {"hf": to_hf, "c": to_c}[to](model, tokenizer, folder)
    say(f"exported {run.name} to {path} ({', '.join(sorted(p.name for p in path.iterdir()))})")
    return path


def seed_only(config, program: str) -> None:
    """Raise UserError for a model with a switch on that `program`, which knows the seed architecture, would ignore."""
    on = {
        "windows": any(config.window(i) is not None for i in range(config.n_layer)),
        "value embeddings": config.value_embeddings,
        "layer scalars": config.layer_scalars,
        "smear": config.smear,
        "backout": config.backout,
        "qk_scale": config.qk_scale != 1,
        "padded vocabulary": config.vocab_rows != config.vocab_size,
        "document_start": config.document_start is not None,
    }
    if any(on.values()):
        names = ", ".join(name for name, is_on in on.items() if is_on)
        raise UserError(f"{program} knows the seed architecture only, and this model has {names}; "
                        "export a model of a scale with arch: seed")  # fmt: skip


@contextmanager
def new_folder(folder: str | Path):
    """Yield a temporary folder that becomes `folder` when the block ends well, and vanishes when it does not."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; name a new folder to export to")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, folder)  # a rename onto an empty folder replaces it
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}; nothing was left there") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
