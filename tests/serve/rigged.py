"""A real GPT that says what we want: its blocks add nothing, so the next token depends on the current one alone, and
its head holds the table of who follows whom. After assistant_start it says `SAID`, with a tool call and bytes that
make one emoji."""

from itertools import pairwise

import torch

from nanochat.model import GPT, GPTConfig

SAID = "ab" + "ok \N{WINKING FACE}"
CALL, RESULT = "12+3", "15"


def rigged_model(tokenizer, sequence_len: int = 128) -> GPT:
    special = tokenizer.special
    chain = [
        special["<|assistant_start|>"],
        *b"ab",
        special["<|python_start|>"],
        *CALL.encode(),
        special["<|python_end|>"],
    ]
    after = [special["<|output_end|>"], *SAID[2:].encode(), special["<|assistant_end|>"]]
    pairs = [*pairwise(chain), *pairwise(after)]
    model = GPT(
        GPTConfig(sequence_len, tokenizer.vocab_size, n_layer=1, n_head=2, n_kv_head=1, n_embd=32)
    ).init_weights(0)
    assert len({current for current, _ in pairs}) == len(pairs) <= 32, (
        "each token has one follower, and a direction of its own"
    )
    with torch.no_grad():
        for direction, (current, follower) in enumerate(pairs):
            model.wte.weight[current] = torch.eye(32)[direction]
            model.lm_head.weight[follower] += torch.eye(32)[direction]
    return model
