"""
The baseline: a recurrent network over bytes, as language models were before the Transformer.

    model = CharRNN(n_embd=224, n_layer=2, kind="lstm").init_weights(seed=0)
    logits, state = model(idx)            # idx (B, T), ids below 257 -> (B, T, 257) and the state after the last byte
    logits, state = model(more, state)    # goes on where it stopped: the state is all it remembers
    model.generate(b"Once", 80, temperature=0)

It reads one byte after the other and keeps what it knows in a vector of fixed size, so time cannot be run in parallel,
and everything distant must pass through every step between. `nanochat.train.char_rnn` trains it.
"""

import math

import torch
from torch import Tensor, nn

from nanochat.runtime import UserError

BOS = 256  # after the 256 bytes: a document begins
KINDS = {"lstm": nn.LSTM, "gru": nn.GRU}  # Hochreiter & Schmidhuber 1997; Cho et al. 2014


class CharRNN(nn.Module):
    """Embedding, `n_layer` recurrent layers, and a head that is the embedding again (tied) where the widths allow."""

    def __init__(self, vocab: int = BOS + 1, n_embd: int = 224, n_layer: int = 2, kind: str = "lstm",
                 n_hidden: int | None = None):  # fmt: skip
        super().__init__()
        if kind not in KINDS:
            raise UserError(f"CharRNN: unknown kind {kind!r}; choose {' or '.join(KINDS)}")
        n_hidden = n_hidden or n_embd
        self.embedding = nn.Embedding(vocab, n_embd)
        self.rnn = KINDS[kind](n_embd, n_hidden, n_layer, batch_first=True)
        self.head = nn.Linear(n_hidden, vocab, bias=False)
        if n_hidden == n_embd:
            self.head.weight = self.embedding.weight

    @torch.no_grad()
    def init_weights(self, seed: int = 0) -> "CharRNN":
        """
        Embedding N(0, 1), as the Transformer's; the rest uniform in +-1/sqrt(n_hidden), recurrent layers' custom. With
        a small embedding the first steps learn little more than which bytes are frequent. Depends on the seed alone.
        """
        generator, bound = torch.Generator().manual_seed(seed), 1 / math.sqrt(self.rnn.hidden_size)
        for name, weight in self.named_parameters():
            draw = torch.empty(weight.shape).uniform_(-bound, bound, generator=generator)
            if name == "embedding.weight":
                draw.normal_(generator=generator)
            weight.copy_(draw)
        return self

    def forward(self, idx: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """idx (B, T) -> logits (B, T, V) and the state to go on from, (h, c) or (h,), (L, B, H) each."""
        gru = isinstance(self.rnn, nn.GRU)
        x, state = self.rnn(self.embedding(idx), state[0] if gru and state else state)  # x (B, T, H)
        return self.head(x), (state,) if gru else state

    def num_params(self) -> int:
        return sum(p.numel() for p in self.parameters())

    @torch.no_grad()
    def generate(self, prompt: bytes, length: int, temperature: float = 1.0, seed: int = 0) -> bytes:
        """
        At most `length` bytes that follow `prompt` at the start of a document; fewer where the model ends the document.

        temperature 0 takes the likeliest byte each time, 1 draws from the model's own distribution, more flattens it.
        """
        device = self.embedding.weight.device
        generator = torch.Generator().manual_seed(seed)
        new, state, idx = bytearray(), None, torch.tensor([[BOS, *prompt]], device=device)
        while len(new) < length:
            logits, state = self(idx, state)
            last = logits[0, -1].float().cpu()
            if temperature == 0:
                byte = int(last.argmax())
            else:
                byte = int(torch.multinomial((last / temperature).softmax(-1), 1, generator=generator))
            if byte == BOS:
                break
            new.append(byte)
            idx = torch.tensor([[byte]], device=device)
        return bytes(new)
