"""To tiktoken: the tokenizer as OpenAI's library reads it.

    to_tiktoken(tokenizer, "out/")
    encoding = load("out/")           # a tiktoken.Encoding; load() is short enough to copy into any program

    nanochat.tiktoken    one line per token: its bytes in base64, a space, its rank
    encoding.json        the split pattern and the ids of the special tokens

Both files are plain text, and nothing in them can run.
"""

import base64
from pathlib import Path

from nanochat.runtime import atomic_write, read_json, write_json
from nanochat.serve.export import new_folder


def to_tiktoken(tokenizer, folder: str | Path) -> Path:
    """Write the two files. Returns the folder."""
    ranks = sorted(tokenizer.mergeable_ranks.items(), key=lambda item: item[1])
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks]
    about = {"name": "nanochat", "pat_str": tokenizer.pattern, "special_tokens": tokenizer.special}
    with new_folder(folder) as out:
        atomic_write(out / "nanochat.tiktoken", "".join(lines))
        write_json(out / "encoding.json", about)
    return Path(folder)


def load(folder: str | Path):
    """The tiktoken.Encoding in a folder that to_tiktoken wrote."""
    import tiktoken

    folder = Path(folder)
    about = read_json(folder / "encoding.json")
    pairs = (line.split() for line in (folder / "nanochat.tiktoken").read_text().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
    return tiktoken.Encoding(
        about["name"], pat_str=about["pat_str"], mergeable_ranks=ranks, special_tokens=about["special_tokens"]
    )
