"""The chat in the terminal: at a keyboard, in a pipe, one-shot."""

import io
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from serve_fakes import FakeEngine, prompt_ids

from nanochat.serve.reply import Piece, fit, reply_with
from nanochat.serve.terminal import converse, print_answer, printable

HERE = Path(__file__).parent


def talk(engine, *lines, **settings):
    """(what was printed, the conversation)"""
    out = io.StringIO()
    messages = converse(reply_with(engine, **settings), console=Console(file=out, width=80), lines=lines)
    return out.getvalue(), messages


def test_each_line_is_answered_and_remembered():
    engine = FakeEngine()
    printed, messages = talk(engine, "hello", "", "one two\n")
    assert printed == "You said: hello\nYou said: one two\n"
    assert [m["content"] for m in messages] == ["hello", "You said: hello", "one two", "You said: one two"]
    assert engine.tokenizer.decode(engine.prompts[-1]).count("<|user_start|>") == 2


def test_commands():
    engine = FakeEngine()
    printed, messages = talk(engine, "hello", "/clear", "again", "/help", "/what", "/quit", "never")
    assert "a new conversation" in printed and "/quit leaves" in printed and "no command /what" in printed
    assert [m["content"] for m in messages] == ["again", "You said: again"]


def test_a_tool_call_is_shown_and_stays_in_the_conversation():
    printed, messages = talk(FakeEngine(), "sum 12+30")
    assert printed == "The sum is ‹python› 12+30 = 42\n42.\n"
    assert [part["type"] for part in messages[-1]["content"]] == ["text", "python", "python_output", "text"]


def test_settings_reach_the_engine():
    engine = FakeEngine()
    talk(engine, "hi", temperature=0, top_k=3, max_tokens=7, seed=9)
    assert engine.asked[-1] == {"max_tokens": 7, "temperature": 0, "top_k": 3, "top_p": None, "seed": 9, "stop": ()}
    assert len({talk(FakeEngine(), "dice")[0] for _ in range(5)}) > 1, "without a seed every answer is drawn anew"


def test_the_oldest_turns_make_room_for_the_answer():
    engine = FakeEngine(context=120)
    printed, _ = talk(engine, *[f"message {i}" for i in range(12)])
    assert printed.splitlines() == [f"You said: message {i}" for i in range(12)]
    assert all(len(prompt) <= 90 for prompt in engine.prompts)
    ids, left_out = fit(engine.tokenizer, [{"role": "user", "content": "hi"}], 120)
    assert (ids, left_out) == (prompt_ids("hi"), 0)


def test_a_message_that_cannot_fit_is_refused_in_one_line():
    printed, messages = talk(FakeEngine(context=64), "x" * 500, "hi")
    assert "context window 64" in printed and printed.endswith("You said: hi\n")
    assert len(messages) == 2


def test_control_characters_of_a_model_do_not_reach_the_terminal(capsys):
    evil = "\x1b[2J\x1b]0;title\x07 a\rb\x08 \x9b31m"
    assert not set(printable(evil)) & set("\x1b\x07\r\x08\x9b")
    assert printable("né\n\t안녕 😉") == "né\n\t안녕 😉"
    print_answer(lambda messages: [Piece(evil)], "hi")
    assert "\x1b" not in capsys.readouterr().out
    out = io.StringIO()
    converse(lambda messages: ["[bold]x[/] :smile:", evil], console=Console(file=out, width=80), lines=["hi"])
    assert out.getvalue().startswith("[bold]x[/] :smile:") and "\x1b" not in out.getvalue()


def test_one_shot_prints_just_the_answer(capsys):
    print_answer(reply_with(FakeEngine()), "sum 12+30")
    assert capsys.readouterr().out == "The sum is 42.\n"


PROGRAM = """
import sys
sys.path.insert(0, {here!r})
from serve_fakes import FakeEngine
from nanochat.serve.reply import reply_with
from nanochat.serve.terminal import converse
converse(reply_with(FakeEngine(context=8192, delay=0.01), max_tokens=8000), "test")
"""


def test_lines_of_a_pipe_are_answered_without_a_prompt():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(here=str(HERE))],
        input="hello\nné 😉\n",
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "You said: hello\nYou said: né 😉\n", "")


def test_at_a_keyboard_there_is_a_prompt_and_ctrl_d_leaves():
    keyboard, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(here=str(HERE))],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        close_fds=True,
    )
    os.close(theirs)
    seen = b""

    def read_until(text, after=""):
        nonlocal seen
        while text.encode() not in (seen.partition(after.encode())[2] if after else seen):
            seen += os.read(keyboard, 4096)

    try:
        read_until("you ›")
        os.write(keyboard, b"hello\n")
        read_until("you ›", after="You said: hello")
        os.write(keyboard, b"\x04")
        assert process.wait(20) == 0
    finally:
        process.kill()
        os.close(keyboard)


def test_ctrl_c_stops_the_answer_and_not_the_chat():
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(here=str(HERE))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdin.write("count 3000\n")
    process.stdin.flush()
    assert process.stdout.read(6) == "0 1 2 "
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate("hello\n", timeout=30)
    assert process.returncode == 0
    assert "(stopped)" in rest and rest.endswith("You said: hello\n") and "2999" not in rest
