"""One answer, piece by piece: what the web server, the terminal and the notebook's chat box have in common.

    engine = open_engine(run)
    for piece in Reply(engine, prompt_ids, temperature=0.6):
        print(piece, end="")      # piece.kind is "text", "python" (a tool call) or "python_output" (its result)

    answer = reply_with(engine, temperature=0)
    for piece in answer([{"role": "user", "content": "hello"}]): ...

The engine streams what the assistant says. Its tool is handed in here wrapped, so that a call and its result are
seen in their place among the words."""

import secrets
import sys
from collections.abc import Callable, Iterator

from nanochat.runtime import Run, UserError
from nanochat.sandbox import calculate

CHAT_STAGES = ("mid", "sft", "rl")


class Piece(str):
    """A piece of an answer: text, and what kind of text it is."""

    kind = "text"

    def __new__(cls, text: str, kind: str = "text"):
        piece = super().__new__(cls, text)
        piece.kind = kind
        return piece


class Reply:
    """The answer to one prompt; iterate over it once. While it runs and after, `parts` is what came so far, in the
    form a conversation's assistant message has; at the end `finish_reason` and `completion_tokens` are set."""

    def __init__(self, engine, prompt: list[int], *, tool: Callable[[str], str | None] | None = None, **settings):
        self.engine, self.prompt, self.tool, self.settings = engine, prompt, tool, settings
        self.parts: list[dict] = []
        self.finish_reason: str | None = None
        self.completion_tokens = 0

    @property
    def text(self) -> str:
        """What the assistant said, without its tool calls."""
        return "".join(part["text"] for part in self.parts if part["type"] == "text")

    def __iter__(self) -> Iterator[Piece]:
        calls: list[Piece] = []

        def tool(call: str) -> str | None:
            result = self.tool(call)
            calls.append(Piece(call, "python"))
            if result is not None:
                calls.append(Piece(result, "python_output"))
            return result

        stream = self.engine.stream(self.prompt, tools=tool if self.tool else False, **self.settings)
        try:
            while True:
                try:
                    text = next(stream)
                except StopIteration as end:  # its value is the engine's Completion
                    self.finish_reason, self.completion_tokens, text = end.value.finish_reason, len(end.value.ids), ""
                for piece in [*calls, Piece(text)]:
                    if piece or piece.kind != "text":
                        add(self.parts, piece)
                        yield piece
                calls.clear()
                if self.finish_reason:
                    return
        finally:
            stream.close()


def add(parts: list[dict], piece: Piece) -> None:
    """Put a piece at the end of a message's parts; text grows, every call and result is a part of its own."""
    if parts and parts[-1]["type"] == "text" == piece.kind:
        parts[-1]["text"] += piece
    else:
        parts.append({"type": piece.kind, "text": str(piece)})


def content(parts: list[dict]) -> str | list[dict]:
    """The parts as the content of a message: plain text where there is nothing else."""
    return parts if any(part["type"] != "text" for part in parts) else "".join(part["text"] for part in parts)


def fit(tokenizer, messages: list[dict], context: int) -> tuple[list[int], int]:
    """The prompt for a conversation, without its oldest turns if they leave less than a quarter of the context for the
    answer. -> (ids, how many messages were left out). Raises UserError when the last message alone is too long."""
    room = context // 4
    for start in range(0, len(messages), 2):
        ids = tokenizer.render_for_completion({"messages": messages[start:]})
        if len(ids) <= context - room:
            return ids, start
    raise UserError(
        f"the message has {len(ids)} tokens with its markers, the context window {context}; say it in fewer words"
    )


def reply_with(
    engine,
    *,
    max_tokens: int = 256,
    temperature: float = 0.6,
    top_k: int | None = 50,
    seed: int | None = None,
    tools: bool = True,
) -> Callable[[list[dict]], Iterator[Piece]]:
    """A function from a conversation (user and assistant messages in turn, a user's last) to the pieces of an answer.

    Without a seed every answer is drawn anew."""

    def reply(messages: list[dict]) -> Iterator[Piece]:
        ids, _ = fit(engine.tokenizer, messages, engine.config.sequence_len)
        drawn = secrets.randbelow(2**31) if seed is None else seed
        tool = calculate if tools else None
        yield from Reply(
            engine, ids, tool=tool, max_tokens=max_tokens, temperature=temperature, top_k=top_k, seed=drawn
        )

    return reply


def open_engine(run: Run, stage: str | None = None):
    """The engine for the newest model of a run, or the one of `stage`, on the best device there is."""
    from nanochat.engine import Engine
    from nanochat.runtime import pick_device, pick_dtype
    from nanochat.train.checkpoint import load_model

    model, tokenizer, meta = load_model(run, stage)
    if meta["stage"] not in CHAT_STAGES:
        print(f"note: {run.name} has only a {meta['stage']} model so far; it cannot chat yet", file=sys.stderr)
    device = pick_device("auto")
    return Engine(model, tokenizer, device=device, dtype=pick_dtype(device))
