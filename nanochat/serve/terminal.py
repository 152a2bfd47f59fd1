"""Talk to a model in the terminal.

    nanochat chat --run toy                       a conversation; /help lists the commands
    nanochat chat --run toy -p "Who are you?"     one answer, nothing else on stdout
    echo "Who are you?" | nanochat chat --run toy     every line of a pipe is a message

Ctrl-C stops the answer, not the program. When the conversation outgrows the context window its oldest turns are
dropped."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console

from nanochat.runtime import Run, UserError
from nanochat.serve.reply import Piece, add, content, open_engine, reply_with

HELP = "/clear starts anew · /help shows this · /quit leaves (so does Ctrl-D) · Ctrl-C stops an answer"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def chat(
    run: Run,
    prompt: str | None = None,
    *,
    temperature: float = 0.6,
    top_k: int | None = 50,
    max_tokens: int = 256,
    seed: int | None = None,
    stage: str | None = None,
) -> None:
    """Chat with the newest model of a run (or the one of `stage`); with a `prompt`, print its answer and return."""
    engine = open_engine(run, stage)
    reply = reply_with(engine, temperature=temperature, top_k=top_k, max_tokens=max_tokens, seed=seed)
    if prompt is not None:
        print_answer(reply, prompt)
    else:
        converse(reply, f"{run.name} · {engine.model.num_params():,} parameters · temperature {temperature}")


def print_answer(reply: Callable[[list[dict]], Iterable[str]], prompt: str) -> None:
    """The answer alone, on stdout, as it comes."""
    for piece in reply([{"role": "user", "content": prompt}]):
        if getattr(piece, "kind", "text") == "text":
            print(printable(piece), end="", flush=True)
    print(flush=True)


def converse(
    reply: Callable[[list[dict]], Iterable[str]],
    title: str = "",
    console: Console | None = None,
    lines: Iterable[str] | None = None,
) -> list[dict]:
    """The chat loop, until /quit or the end of the input; `reply` maps a conversation to the pieces of an answer.

    Returns the conversation. Lines are read from the keyboard with a prompt, or from a pipe without one."""
    console = console or Console()
    at_keyboard = lines is None and sys.stdin.isatty()
    messages: list[dict] = []
    if at_keyboard:
        console.print(f"[bold]nanochat[/] [dim]{title}\n{HELP}[/]", highlight=False)
    for line in typed(console) if at_keyboard else (sys.stdin if lines is None else lines):
        line = line.strip()
        if line in ("/quit", "/exit"):
            break
        if line == "/clear":
            messages.clear()
            console.print("[dim]a new conversation[/]")
        elif line == "/help" or re.fullmatch(r"/\w*", line):
            console.print("" if line == "/help" else f"there is no command {line}", HELP, style="dim", markup=False)
        elif line:
            answer(reply, messages, line, console)
    return messages


def typed(console: Console) -> Iterator[str]:
    """Lines from the keyboard, with editing and history where the platform has them, until Ctrl-D or Ctrl-C."""
    prompt = "you › "
    try:
        import readline  # noqa: F401  (its import is what gives input() editing and history)

        prompt = "\x01\x1b[1;36m\x02you ›\x01\x1b[0m\x02 "  # \x01 and \x02 tell it what takes no room on the line
    except ImportError:
        pass
    while True:
        console.print()
        try:
            yield input(prompt)
        except (EOFError, KeyboardInterrupt):
            console.print()
            return


def answer(reply, messages: list[dict], line: str, console: Console) -> None:
    """Ask with one more user message; the answer is printed as it comes and joins the conversation, stopped or not."""
    messages.append({"role": "user", "content": line})
    parts: list[dict] = []
    try:
        for piece in reply(messages):
            piece = piece if isinstance(piece, Piece) else Piece(piece)
            add(parts, piece)
            if piece.kind == "text":
                console.out(printable(piece), end="", highlight=False)
            else:
                sign = "‹python› " if piece.kind == "python" else " = "
                console.print(
                    sign + printable(piece),
                    end="" if piece.kind == "python" else "\n",
                    style="yellow",
                    markup=False,
                    highlight=False,
                    emoji=False,
                    soft_wrap=True,
                )
            console.file.flush()
    except KeyboardInterrupt:
        console.print(" [dim](stopped)[/]", end="")
    except UserError as error:
        messages.pop()
        console.print(str(error), style="red", markup=False)
        return
    console.print()
    messages.append({"role": "assistant", "content": content(parts)})


def printable(text: str) -> str:
    """`text` without the control characters that a terminal would obey: a model, or what it read, may write any
    byte."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
