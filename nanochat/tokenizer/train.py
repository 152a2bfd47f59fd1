"""Train the two teaching tokenizers on a text file, and save both files of each.

nanochat tokenizer train book.txt --vocab 512      # models/basic.model, .vocab, models/regex.model, .vocab
"""

from pathlib import Path

from nanochat.runtime import UserError, core_seconds, say
from nanochat.tokenizer.bpe import BasicTokenizer, RegexTokenizer


def train_file(source: str | Path, folder: str | Path, vocab_size: int = 512) -> None:
    """Train Basic and Regex to `vocab_size` tokens on `source`, show each merge, and save them into `folder`.

    UserError if the file is missing, not UTF-8 or too short, or the folder cannot be written. Files are written when
    both are trained, so a text that is too short for one leaves nothing behind.
    """
    text = read_text(Path(source))
    trained = {"basic": BasicTokenizer(), "regex": RegexTokenizer()}
    seconds = {}
    for name, tokenizer in trained.items():
        say(f"{name}: {vocab_size} tokens from {len(text.encode()):,} bytes")
        start = core_seconds()
        try:
            tokenizer.train(text, vocab_size, verbose=True)
        except ValueError as error:
            raise UserError(f"{source}, {name} tokenizer: {error}") from None
        seconds[name] = core_seconds() - start
    for name, tokenizer in trained.items():
        try:
            tokenizer.save(f"{folder}/{name}")
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
        say(f"{name}: {seconds[name]:.1f} core seconds, saved as {folder}/{name}.model and .vocab")


def read_text(source: Path) -> str:
    """The text of a file, line ends as they are. UserError if there is none or it is not UTF-8."""
    try:
        return source.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"cannot read {source}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is not UTF-8 text (byte {error.start:,}); convert it first") from None
