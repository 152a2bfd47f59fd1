"""Train the two teaching tokenizers on a text file and save both files of each.

    python -m nanochat.tokenizer book.txt models      # models/{basic,regex}.{model,vocab}, 512 tokens
"""

import sys
import time
from pathlib import Path

from nanochat.tokenizer.bpe import BasicTokenizer, RegexTokenizer


def main(arguments: list[str]) -> int:
    """Exit code 0, or 2 with one line on a mistake."""
    if len(arguments) != 2:
        print("usage: python -m nanochat.tokenizer TEXT_FILE OUTPUT_FOLDER", file=sys.stderr)
        return 2
    source, folder = map(Path, arguments)
    try:
        text = source.read_text(encoding="utf-8")
        for name, tokenizer in (("basic", BasicTokenizer()), ("regex", RegexTokenizer())):
            start = time.perf_counter()
            tokenizer.train(text, 512, verbose=True)
            tokenizer.save(str(folder / name))
            print(f"{name}: {time.perf_counter() - start:.1f} s, saved to {folder / name}.model and .vocab")
    except (OSError, ValueError) as error:
        print(f"{source}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
