"""To C: a language model in two files, `model.bin` (parameters and vocabulary) and `run.c` (the program that runs
them).

    to_c(model, tokenizer, "out/")
    cc -O3 -o run out/run.c -lm && ./run out/model.bin -p "hello"

The program needs a C compiler and nothing else. It decodes greedily, with the tokens that the engine yields at
temperature 0."""

import re
import struct
from pathlib import Path

import numpy as np
import regex

from nanochat.runtime import UserError, atomic_write
from nanochat.serve.export import new_folder, seed_only
from nanochat.serve.export.hf import NORM_EPS
from nanochat.tokenizer import SPECIAL_TOKENS, SPLIT_PATTERN

MAGIC, VERSION = b"NANOCHAT", 1
BLOCK_ORDER = ("attn.c_q", "attn.c_k", "attn.c_v", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
UNICODE_CLASSES = (r"\p{L}", r"\p{N}", r"\p{White_Space}")  # 1, 2, 3 in run.c; all else is 0


def to_c(model, tokenizer, folder: str | Path) -> Path:
    """Write model.bin and run.c. Returns the folder."""
    seed_only(model.config, "the C program")
    blocks = [f"blocks.{i}.{part}" for i in range(model.config.n_layer) for part in BLOCK_ORDER]
    with new_folder(folder) as out:
        with open(out / "model.bin", "wb") as f:
            f.write(header(model.config, tokenizer))
            for name in ["wte", *blocks, "lm_head"]:
                weight = model.state_dict()[f"{name}.weight"]
                f.write(weight.detach().float().cpu().numpy().astype("<f4").tobytes())  # (out, in), row by row
        atomic_write(out / "run.c", Path(__file__).with_name("run.c").read_bytes())
    return Path(folder)


def header(config, tokenizer) -> bytes:
    """All of model.bin before the weights: sizes, special ids, Unicode classes, the bytes of every token."""
    ranges = unicode_ranges()
    special = [tokenizer.special[name] for name in SPECIAL_TOKENS]
    sizes = (config.vocab_size, config.n_layer, config.n_head, config.n_kv_head, config.n_embd, config.sequence_len)
    numbers = struct.pack("<9i", VERSION, *sizes, digits(tokenizer.pattern), len(ranges)) + struct.pack("<9i", *special)
    tokens = [b"" if i in special else tokenizer.id_to_bytes(i) for i in range(config.vocab_size)]
    reals = struct.pack("<3f", config.softcap, config.rope_base, NORM_EPS)
    lengths = np.array([len(token) for token in tokens], dtype="<u2").tobytes()
    return b"".join([MAGIC, numbers, reals, ranges.astype("<u4").tobytes(), lengths, *tokens])


def digits(pattern: str) -> int:
    """How many digits the split pattern keeps together; run.c knows the rest of that pattern by heart, and no other.

    Raises UserError for a pattern of another family."""
    found = re.search(r"\\p\{N\}\{1,(\d+)\}", pattern)
    if not found or SPLIT_PATTERN(int(found[1])) != pattern:
        raise UserError(f"the split pattern {pattern!r} is not nanochat's; run.c cannot split text with it")
    return int(found[1])


def unicode_ranges() -> np.ndarray:
    """(n, 3) rows low, high, class: the characters that are letters (1), numbers (2) or white space (3), in order."""
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    rows = [
        (ord(found[0][0]), ord(found[0][-1]), kind)
        for kind, name in enumerate(UNICODE_CLASSES, start=1)
        for found in regex.finditer(f"{name}+", everything)
    ]
    return np.array(sorted(rows), dtype=np.uint32)
