"""rustbpe's splitter against the `regex` package on many short made-up texts: the chunks must be the same.

    python benchmarks/fuzz_splitter.py                                  a million texts for each pattern
    python benchmarks/fuzz_splitter.py --cases 10_000_000 --processes 2
    python benchmarks/fuzz_splitter.py --seconds 600 --seed 7           as many as ten minutes allow

A text is a few pieces that split patterns treat differently (letters, numbers and blanks of many scripts, contractions, marks,
line ends, runs longer than the 64 bytes read at once). Every text is cut by each pattern: nanochat's with numbers of up to 2 digits and of 1, and
cl100k's. One block of texts hangs on --seed and its own number alone. A difference is printed and makes the exit status 1.
"""

import argparse
import json
import multiprocessing
import random
import sys
import time
from importlib.metadata import version
from pathlib import Path

import regex

import rustbpe

NANOCHAT = rustbpe.PATTERN
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|"
    r"\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
PATTERNS = {"nanochat": NANOCHAT, "digit by digit": NANOCHAT.replace("{1,2}", "{1,1}"), "cl100k": CL100K}

PIECES = [
    "'s",
    "'LL",
    "'ſ",
    "'re",
    "'Ve",
    "'x",
    "''",
    "don't",
    "<|bos|>",
    "word",
    "12",
    "1234567",
    "....",
    "\r\n",
    "\n\n",
    "    ",
]
PIECES += list("aZzſßǅé中한अก0709½٣Ⅻ² \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2003\u2028\u3000")
PIECES += list("\u180e\u200b\u200d\ufeff\x00\x7f'\"._-=!<|>{}@/«😉\u0301\u0900\U000e0001")
COMMON = list("ab1 \n.'") + [" a", "\n ", "it's "]  # what most of any text is made of
BLOCK = 10_000  # texts in a job


def texts(dice: random.Random, count: int) -> list[str]:
    """Most are up to ten pieces; every eighth has runs, which cross the 64 bytes that the splitter reads at once."""
    made = []
    for i in range(count):
        pieces = dice.choices(PIECES if i % 2 else COMMON, k=1 + i % 10)
        if i % 8 == 0:
            pieces = [piece * dice.choice((1, 2, 7, 31, 62, 63, 64, 65)) for piece in pieces] + dice.choices(
                PIECES, k=3
            )
        made.append("".join(pieces))
    return made


def compare(job: tuple[int, int]) -> list[tuple[str, str]]:
    """(seed, number of the block) to the (pattern's name, text) of each text that is cut in two ways."""
    made, wrong = texts(random.Random("{} {}".format(*job)), BLOCK), []
    for name, pattern in PATTERNS.items():
        findall = regex.compile(pattern).findall
        wrong += [(name, text) for text in made if rustbpe.split(text, pattern) != findall(text)]
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000_000, help="texts; rounded up to whole blocks of 10,000")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--first", type=int, default=0, metavar="BLOCK", help="go on where an earlier run of this seed ended"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the result there, as JSON")
    options = parser.parse_args()
    begin, done, wrong = time.monotonic(), 0, []
    jobs = [(options.seed, options.first + i) for i in range(-(-options.cases // BLOCK))]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for found in pool.imap(compare, jobs):
            done += 1
            wrong += found
            for name, text in found:
                print(
                    f"{name}: {text!r}\n  ours  {rustbpe.split(text, PATTERNS[name])}\n  regex {regex.findall(PATTERNS[name], text)}"
                )
            if done % 25 == 0 or done == len(jobs):
                print(f"{done * BLOCK:,} texts, {len(wrong)} differences, {time.monotonic() - begin:.0f} s", flush=True)
            if time.monotonic() - begin > options.seconds:
                break
    result = {"texts": done * BLOCK, "patterns": list(PATTERNS), "seed": options.seed, "first_block": options.first,
              "next_block": options.first + done, "differences": wrong, "versions": {"regex": version("regex")}}  # fmt: skip
    print(json.dumps(result, ensure_ascii=True))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
