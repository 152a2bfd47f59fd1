"""The tool loop: when the model closes a call, run it and put words into the model's mouth.

    … 34*57=  <|python_start|> 34*57 <|python_end|>   sampled by the model
              <|output_start|> 1938 <|output_end|>    forced: the model reads them as if it had written them
    1938.                                             sampled again

Each row of a batch has its own `ToolLoop`. A tool is a function from the text of the call to the text of its result, or
None when it has nothing to say: then nothing is forced and the model goes on alone.
"""

import ast
from collections import deque
from collections.abc import Callable

from nanochat.sandbox import calculate, run_code

Tool = Callable[[str], str | None]

MAX_CALLS = 32        # in one answer
MAX_OUTPUT = 1000     # characters of a result


def calculator(call: str) -> str | None:
    """Arithmetic and letter counts; anything else is None."""
    return calculate(call)


def python(call: str) -> str | None:
    """The calculator, and beyond it Python in the sandbox: what the call printed, else the value of its expression,
    else why it failed."""
    result = calculate(call)
    if result is not None:
        return result
    run = run_code(_showing(call))
    return (run.stdout.strip() if run.ok else run.why) or None


def _showing(call: str) -> str:
    """A program that prints the call's value if the call is an expression, as an interactive Python does."""
    try:
        ast.parse(f"(\n{call}\n)", mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return call
    return f"value = (\n{call}\n)\nif value is not None: print(value)"


class ToolLoop:
    """One row's calls. Feed it every token of the answer; `forced` holds the tokens that must come next."""

    def __init__(self, tokenizer, tool: Tool | None):
        self.tokenizer, self.tool = tokenizer, tool
        self.forced: deque[int] = deque()
        self.call: list[int] | None = None       # ids since python_start
        self.calls = 0

    def feed(self, token: int) -> None:
        special = self.tokenizer.special
        if token == special["<|python_start|>"]:
            self.call = []
        elif token == special["<|python_end|>"] and self.call is not None:
            self._run(self.tokenizer.decode(self.call))
            self.call = None
        elif self.call is not None:
            self.call.append(token)

    def _run(self, call: str) -> None:
        self.calls += 1
        result = self.tool(call) if self.tool and self.calls <= MAX_CALLS else None
        if result is not None:
            special = self.tokenizer.special
            self.forced.append(special["<|output_start|>"])
            self.forced.extend(self.tokenizer.encode(result[:MAX_OUTPUT]))
            self.forced.append(special["<|output_end|>"])
