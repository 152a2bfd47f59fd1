"""A tiny model with random weights and a tokenizer whose ids 0 … 255 are bytes: enough to state what an engine does."""

import pytest
import torch

from nanochat.model import GPT, GPTConfig

NAMES = ("bos", "user_start", "user_end", "assistant_start", "assistant_end", "python_start", "python_end",
         "output_start", "output_end")


class ByteTokenizer:
    bos = 256
    vocab_size = 256 + len(NAMES)

    def __init__(self):
        self.special = {f"<|{name}|>": 256 + i for i, name in enumerate(NAMES)}

    def encode(self, text):
        return list(text.encode())

    def id_to_bytes(self, i):
        return bytes([i])

    def decode(self, ids):
        return b"".join(self.id_to_bytes(i) for i in ids).decode("utf-8", "replace")


@pytest.fixture(scope="session")
def tokenizer():
    return ByteTokenizer()


def build_model(n_kv_head=2, sequence_len=64, seed=0):
    """Random weights everywhere, so that the answers wander (a fresh model's head is zero)."""
    config = GPTConfig(sequence_len, ByteTokenizer.vocab_size, n_layer=2, n_head=2, n_kv_head=n_kv_head, n_embd=32)
    model = GPT(config).init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if name.endswith("c_proj.weight") or name == "lm_head.weight":
            p.data.normal_(0, 0.4, generator=generator)
    return model


@pytest.fixture
def make_model():
    return build_model


class ScriptedModel:
    """Stands where the engine's model stands, and says what its script says: script(ids so far) -> next id.

    It looks at nothing but the ids it was fed through the cache, so it also proves that tokens are fed once, in order.
    """

    def __init__(self, script, vocab_size, sequence_len=64):
        self.config = GPTConfig(sequence_len, vocab_size, n_layer=1, n_head=1, n_kv_head=1, n_embd=2)
        self.script, self.compute_dtype = script, torch.float32
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def inference_copy(self, dtype=None):
        return self

    def to(self, device):
        return self

    def parameters(self):
        return iter([self.weight])

    def hidden(self, idx, cache):
        cache.positions(idx.size(1))
        ids = idx[:, None, :, None].float().expand(-1, 1, -1, 2)                  # ids ride in the cache as keys
        keys, _, _ = cache.write(0, ids, ids)
        seen = keys[:, 0, :, 0].long()                                            # (B, S)
        out = torch.zeros(*idx.shape, self.config.vocab_size)
        for b, length in enumerate(cache.lengths.tolist()):
            for t in range(idx.size(1)):
                out[b, t, self.script(seen[b, : length + t + 1].tolist())] = 1.0
        return out

    def head(self, hidden):
        return hidden * 100


@pytest.fixture
def scripted(tokenizer):
    """scripted(answer) -> a model that says `answer` after assistant_start, over and over, whatever a tool forces."""

    def make(answer, sequence_len=64):
        names = ("assistant_start", "output_start", "output_end")
        start, opened, closed = (tokenizer.special[f"<|{name}|>"] for name in names)

        def script(ids):
            said, forced = 0, False                                               # tokens of the answer the model chose
            for token in ids[ids.index(start) + 1:] if start in ids else []:
                forced = forced or token == opened
                said += not forced
                forced = forced and token != closed
            return answer[said % len(answer)]

        return ScriptedModel(script, tokenizer.vocab_size, sequence_len)

    return make
