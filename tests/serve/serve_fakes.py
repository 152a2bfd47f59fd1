"""A stand-in for the engine, and a live server around it. The tokenizer is a real one, trained on a few lines.

What the fake says depends on the user's last message alone: "count 50" counts, "sum 12+30" calls the tool, "dice"
depends on the seed, "break" fails in the middle; anything else is echoed."""

import random
import re
import socket
import threading
import time
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace

import uvicorn

from nanochat.serve.api import create_app, server_config
from nanochat.tokenizer import Tokenizer

NAME = "nanochat-test"
EMOJI = "ok 👩‍👩‍👧 né 안녕 e\u0301 😉 done"


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.train(
        ["hello there, how are you? the sum of 12 and 30 is 42. you said: one two three four"] * 3, 300
    )


def prompt_ids(text: str) -> list[int]:
    return tokenizer().render_for_completion({"messages": [{"role": "user", "content": text}]})


class FakeEngine:
    """Engine's `stream`, `tokenizer` and `config`; `delay` seconds a token."""

    def __init__(self, context: int = 512, delay: float = 0.0):
        self.tokenizer, self.delay = tokenizer(), delay
        self.config = SimpleNamespace(sequence_len=context)
        self.model = SimpleNamespace(num_params=lambda: 1234)
        self.prompts: list[list[int]] = []
        self.asked: list[dict] = []
        self.running = 0  # answers being made this moment
        self.tokens_made = 0

    def stream(self, prompt, *, max_tokens=256, temperature=1.0, top_k=None, top_p=None, seed=0, stop=(), tools=True):
        self.prompts.append(prompt)
        self.asked.append(
            {
                "max_tokens": max_tokens,
                "temperature": temperature,
                "top_k": top_k,
                "top_p": top_p,
                "seed": seed,
                "stop": stop,
            }
        )
        return self._stream(prompt, max_tokens, temperature, seed, stop, tools)

    def _stream(self, prompt, max_tokens, temperature, seed, stop, tools):
        said = self._last_message(prompt)
        self.running += 1
        ids, shown, finish = [], "", "length"
        try:
            for word in self._words(said, temperature, seed, tools):
                ids += self.tokenizer.encode(word)
                self.tokens_made += 1
                time.sleep(self.delay)
                if len(ids) > max_tokens:
                    break
                before, shown = shown, shown + word
                cut = min((at for at in (shown.find(s) for s in stop) if at >= 0), default=None)
                if cut is not None:
                    finish = "stop"
                    yield shown[len(before) : cut]
                    break
                yield word
            else:
                finish = "stop"
            return SimpleNamespace(ids=ids[:max_tokens], finish_reason=finish)
        finally:
            self.running -= 1

    def _last_message(self, prompt: list[int]) -> str:
        special = self.tokenizer.special
        start = len(prompt) - 1 - prompt[::-1].index(special["<|user_start|>"])
        return self.tokenizer.decode(prompt[start + 1 : prompt.index(special["<|user_end|>"], start)])

    def _words(self, said: str, temperature: float, seed: int, tools):
        if count := re.fullmatch(r"count (\d+)", said):
            yield from (f"{i} " for i in range(int(count[1])))
        elif call := re.fullmatch(r"sum (.*)", said):
            yield "The sum is "
            result = tools(call[1]) if tools else None
            yield f"{result}."
        elif said == "dice":
            draw = random.Random(f"{seed} {temperature > 0}")
            yield from (f"{draw.randint(1, 6)} " for _ in range(8))
        elif said == "emoji":
            yield from EMOJI
        elif said == "break":
            yield "so far"
            raise RuntimeError("the engine broke")
        else:
            yield from re.findall(r"\s*\S+", f"You said: {said}")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def live(engine):
    """A real server on a free port of this machine, in a thread; yields its address."""
    config = server_config(create_app(engine, NAME))
    config.port = free_port()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{config.port}"
    finally:
        server.should_exit = True
        thread.join(10)


def wait_until(fact, seconds: float = 20.0) -> None:
    """Return as soon as `fact()` holds; fail when it does not in time."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)
