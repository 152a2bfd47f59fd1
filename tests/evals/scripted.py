"""Stand-ins whose every number can be worked out by hand: a byte tokenizer and models that follow a given rule."""

import numpy as np
import torch
import torch.nn.functional as F

from nanochat.model import GPTConfig

NAMES = ["bos", "user_start", "user_end", "assistant_start", "assistant_end", "python_start", "python_end", "output_start", "output_end"]
SPECIALS = {f"<|{name}|>": 256 + i for i, name in enumerate(NAMES)}


class ByteTokenizer:
    """One token a byte; the nine specials follow."""

    special = SPECIALS
    bos, vocab_size = 256, 265
    token_bytes = np.array([1] * 256 + [0] * 9, dtype=np.int32)

    def encode(self, text, bos=False):
        return [self.bos] * bos + list(text.encode())

    def encode_batch(self, texts, threads=1):
        return [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint32) for text in texts]

    def id_to_bytes(self, i):
        return bytes([i])

    def decode(self, ids):
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def render_for_completion(self, conversation):
        """bos, then every message's text with a blank line after it, then assistant_start."""
        text = "".join(message["content"] + "\n\n" for message in conversation["messages"])
        return [*self.encode(text, bos=True), self.special["<|assistant_start|>"]]


class Scripted:
    """A model whose logits after the ids read so far are `rule(ids) -> (V,)`. Reads through a KV cache as a real one does."""

    def __init__(self, rule, sequence_len=1000):
        self.rule = rule
        self.config = GPTConfig(sequence_len, ByteTokenizer.vocab_size, n_layer=1, n_head=1, n_kv_head=1, n_embd=2)
        self.compute_dtype = torch.float32
        self.tokens_read = 0
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def parameters(self):
        return iter([self.weight])

    def inference_copy(self, dtype=None):
        return self

    def to(self, device):
        return self

    def hidden(self, idx, cache=None):
        B, T = idx.shape
        self.tokens_read += B * T
        memory, mask = idx, None
        if cache is not None:
            cache.positions(T)
            keys, _, mask = cache.write(0, idx[:, None, :, None].float().expand(B, 1, T, 2), torch.zeros(B, 1, T, 2))
            memory = keys[:, 0, :, 0]                                                    # (B, S) all ids so far
        if mask is None:
            mask = torch.ones(B, 1, T, T, dtype=torch.bool).tril()
        memory, visible = memory[:, None].expand(B, T, -1), mask[:, 0]                   # (B, T, S) both
        return torch.stack([torch.stack([torch.as_tensor(self.rule([int(i) for i in row[seen]]), dtype=torch.float32)
                                         for row, seen in zip(rows, masks)]) for rows, masks in zip(memory, visible)])

    def head(self, x):
        return x

    def __call__(self, idx, targets=None, reduction="mean", cache=None):
        logits = self.hidden(idx, cache)
        if targets is None:
            return logits
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction=reduction)
        return loss.view(targets.shape) if reduction == "none" else loss


def pseudo_random(ids, vocab_size=ByteTokenizer.vocab_size):
    """Logits in [0, 4) that depend on every id read and on its place."""
    state = sum((place + 1) * (i + 7) for place, i in enumerate(ids))
    return (np.arange(vocab_size) * 7919 + state * 104729) % 1009 / 1009 * 4


def knows(texts, vocab_size=ByteTokenizer.vocab_size):
    """A rule that continues these texts (strings, bos comes before them, or lists of ids) by heart and is uniform elsewhere."""
    following: dict[tuple, set[int]] = {}
    for text in texts:
        ids = (ByteTokenizer.bos, *text.encode()) if isinstance(text, str) else tuple(text)
        for t in range(1, len(ids)):
            following.setdefault(ids[:t], set()).add(ids[t])

    def rule(ids):
        logits = np.zeros(vocab_size)
        logits[list(following.get(tuple(ids), ()))] = 30.0
        return logits

    return rule


class FakeWorld:
    """One rank of several, without its peers: what it gathers is its own share."""

    def __init__(self, rank, size):
        self.rank, self.size, self.device, self.main = rank, size, torch.device("cpu"), rank == 0

    def gather(self, value):
        return [value]

    def barrier(self):
        pass
