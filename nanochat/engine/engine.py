"""The inference engine: prompts in, completions out, many at once.

    engine = Engine(model, tokenizer)
    ids = tokenizer.render_for_completion(conversation)
    [[completion]] = engine.generate([ids], max_tokens=100, temperature=0)
    for piece in engine.stream(ids, max_tokens=100):
        print(piece, end="", flush=True)

Prefill reads each prompt once; its cache is then copied for every sample wanted. Decode moves all rows on by one token
a step; rows that have ended leave the batch. What a row says depends on (seed, prompt, number of the sample) and on
nothing else: neither on the batch it is in nor on when its neighbours end.
"""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from nanochat.engine.cache import KVCache
from nanochat.engine.sampling import row_keys, sample, uniforms
from nanochat.engine.text import Reader
from nanochat.engine.tools import Tool, ToolLoop, calculator
from nanochat.runtime import UserError, say

ALIVE = 0.75      # share of rows still at work below which the batch is packed anew: copying the cache is not free


@dataclass(frozen=True)
class Completion:
    """One answer. `ids` are its tokens, the final assistant_end (or bos) included; `mask` is 1 for those the model
    chose and 0 for those a tool forced; `finish_reason` is "stop" (it ended itself, or a stop string came) or "length".
    """

    ids: list[int]
    mask: list[int]
    parts: list[dict]
    finish_reason: str

    @property
    def text(self) -> str:
        """What the assistant said, without specials, calls and their results."""
        return "".join(part["text"] for part in self.parts if part["type"] == "text")


@dataclass(frozen=True)
class Settings:
    """How to choose tokens. None switches a limit off; `tools` is True (the calculator), False, or a function."""

    max_tokens: int = 256
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    stop: tuple[str, ...] = ()
    tools: bool | Tool = True

    def __post_init__(self):
        if isinstance(self.stop, str) or not all(self.stop):
            raise UserError(f"stop is {self.stop!r}; give a tuple of non-empty strings")
        if self.max_tokens < 1:
            raise UserError(f"max_tokens is {self.max_tokens}; it must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature}; it must be 0 (greedy) or larger")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k is {self.top_k}; it must be at least 1, or None for all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}; it must be above 0 and at most 1, or None")

    @property
    def tool(self) -> Tool | None:
        return self.tools if callable(self.tools) else calculator if self.tools else None


class Row:
    """One answer in the making."""

    def __init__(self, prompt: list[int], key: np.uint64, limit: int, tokenizer, settings: Settings):
        self.prompt, self.key, self.limit = prompt, key, limit
        self.ids: list[int] = []
        self.mask: list[int] = []
        self.loop = ToolLoop(tokenizer, settings.tool)
        self.reader = Reader(tokenizer, settings.stop)
        self.ends = (tokenizer.special["<|assistant_end|>"], tokenizer.bos)
        self.reason = "" if limit > 0 else "length"

    def take(self, sampled: int) -> str:
        """Take the next token, the sampled one unless a tool forces its own; -> new text for the reader."""
        forced = bool(self.loop.forced)
        token = self.loop.forced.popleft() if forced else sampled
        self.ids.append(token)
        self.mask.append(0 if forced else 1)
        piece = self.reader.feed(token)
        if not forced:
            self.loop.feed(token)
        if token in self.ends or self.reader.stopped:
            self.reason = "stop"
        elif len(self.ids) >= self.limit:
            self.reason = "length"
        return piece + self.reader.close() if self.reason else piece

    def completion(self) -> Completion:
        return Completion(self.ids, self.mask, self.reader.parts, self.reason)


class Engine:
    """Generates with a copy of the model whose weights are stored in the inference dtype (default: the model's compute
    dtype), on `device` (default: the model's). `refresh` takes new weights over, in place."""

    def __init__(self, model, tokenizer, device=None, dtype: torch.dtype | None = None, max_rows: int = 256):
        self.tokenizer, self.max_rows = tokenizer, max_rows
        self.model = model.inference_copy(dtype).to(device or next(model.parameters()).device)
        self.config = model.config
        self.device = next(self.model.parameters()).device

    @torch.no_grad()
    def refresh(self, model) -> None:
        """Copy the weights of `model` (the same shape, any dtype) into this engine's."""
        torch._foreach_copy_(list(self.model.parameters()), [p.detach() for p in model.parameters()])

    def generate(self, prompts: list[list[int]], *, num_samples: int = 1, progress: bool = False,
                 **settings) -> list[list[Completion]]:
        """Answers for each prompt (token ids, usually ending with assistant_start): `num_samples` a prompt.

        Settings: max_tokens=256, temperature=1.0, top_k=None, top_p=None, seed=0, stop=(), tools=True. An answer ends
        at assistant_end or bos, at a stop string, after max_tokens, or where the context (config.sequence_len) is full.
        Equal prompts get equal answers; ask for more samples, or another seed, to get others. With progress=True a line
        is printed every few seconds. Raises UserError for an empty or too long prompt and for settings out of range.
        """
        settings = Settings(**settings)
        if num_samples < 1:
            raise UserError(f"num_samples is {num_samples}; it must be at least 1")
        rows = [self._row(prompt, number, settings) for prompt in prompts for number in range(num_samples)]
        waiting = sorted((row for row in rows if not row.reason), key=lambda row: (len(row.prompt), row.prompt))
        done, told = 0, time.monotonic()
        while waiting:
            size = self._batch_size(waiting)
            batch, waiting = waiting[:size], waiting[size:]
            for _ in self._decode(batch, settings):
                pass
            done += size
            if progress and time.monotonic() - told > 2:
                say(f"  generated {done} of {len(rows)} answers")
                told = time.monotonic()
        answers = [row.completion() for row in rows]
        return [answers[i : i + num_samples] for i in range(0, len(answers), num_samples)]

    def stream(self, prompt: list[int], **settings) -> Generator[str, None, Completion]:
        """The text of one answer in pieces of whole characters, as they come; joined they are its `text`.

        Settings as for `generate`; the generator's return value is the Completion. The answer can be dropped at any
        time: closing the generator frees its memory. Raises UserError at the call, not at the first piece.
        """
        settings = Settings(**settings)
        return self._stream(self._row(prompt, 0, settings), settings)

    def _stream(self, row: Row, settings: Settings) -> Generator[str, None, Completion]:
        for pieces in [] if row.reason else self._decode([row], settings):
            if pieces[0]:
                yield pieces[0]
        return row.completion()

    def _row(self, prompt: list[int], number: int, settings: Settings) -> Row:
        """A row ready to start. Raises UserError when the prompt cannot be read by this model."""
        size, vocab = self.config.sequence_len, self.config.vocab_size
        if not prompt:
            raise UserError("the prompt is empty; it needs at least one token, such as bos")
        if len(prompt) > size:
            raise UserError(f"the prompt has {len(prompt)} tokens, the model's context {size}; shorten it")
        if not 0 <= min(prompt) <= max(prompt) < vocab:
            raise UserError(f"the prompt holds a token outside 0 … {vocab - 1}; was it made with another tokenizer?")
        key = row_keys(settings.seed, [prompt], [number])[0]
        return Row(prompt, key, min(settings.max_tokens, size - len(prompt)), self.tokenizer, settings)

    def _batch_size(self, rows: list[Row]) -> int:
        """How many of these rows, the shortest first, to take at once: as many as the memory for caches holds."""
        c, free = self.config, 2 << 30                                        # bytes
        if self.device.type == "cuda":
            unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            free = (torch.cuda.mem_get_info(self.device)[0] + unused) // 3    # packing a cache anew needs a second one
        token = 2 * c.n_layer * c.n_kv_head * c.head_dim * self.model.compute_dtype.itemsize
        size, most = 1, min(len(rows), self.max_rows)
        while size < most and (size + 1) * (len(rows[size].prompt) + rows[size].limit) * token <= free:
            size += 1
        return size

    def _decode(self, rows: list[Row], settings: Settings) -> Iterator[list[str]]:
        """Move `rows` on, one token a step, until all have ended; yields the new text of each after every step."""
        logits, cache = self._prefill(rows)                                   # (B, V)
        position = 0
        while True:
            u = uniforms(np.array([row.key for row in rows]), position)       # (B,)
            tokens = sample(logits, settings.temperature, settings.top_k, settings.top_p, u).tolist()
            yield ["" if row.reason else row.take(token) for row, token in zip(rows, tokens)]
            position += 1
            alive = [i for i, row in enumerate(rows) if not row.reason]
            if not alive:
                return
            if len(alive) <= ALIVE * len(rows):
                cache, rows = cache.take(alive), [rows[i] for i in alive]
            logits = self._step(rows, cache)

    @torch.inference_mode()
    def _prefill(self, rows: list[Row]) -> tuple[torch.Tensor, KVCache]:
        """Read each different prompt once. -> (logits after it, for every row (B, V), a cache with a row for each)."""
        order: dict[tuple, int] = {}
        index = [order.setdefault(tuple(row.prompt), len(order)) for row in rows]
        lengths = torch.tensor([len(prompt) for prompt in order])
        idx = torch.zeros(len(order), int(lengths.max()), dtype=torch.long)   # (P, T), padded on the right
        for i, prompt in enumerate(order):
            idx[i, : len(prompt)] = torch.tensor(prompt)
        cache = KVCache(self.config, len(order), idx.size(1), self.device, self.model.compute_dtype)
        hidden = self.model.hidden(idx.to(self.device), cache)                # (P, T, C)
        cache.advance(lengths)
        last = hidden[torch.arange(len(order)), lengths - 1]                  # (P, C): only the ends need logits
        logits = self.model.head(last)[torch.tensor(index)]
        return logits, cache.take(index, max_len=max(len(row.prompt) + row.limit for row in rows))

    @torch.inference_mode()
    def _step(self, rows: list[Row], cache: KVCache) -> torch.Tensor:
        """Read each row's last token; -> logits for its next (B, V). Rows that have ended stay where they are."""
        idx = torch.tensor([row.ids[-1:] for row in rows], device=self.device)      # (B, 1)
        hidden = self.model.hidden(idx, cache)
        cache.advance(torch.tensor([0 if row.reason else 1 for row in rows]))
        return self.model.head(hidden[:, -1])
