"""The notebook's chat box, without a browser."""

import threading

import pytest
from serve_fakes import FakeEngine, wait_until

from nanochat.runtime import UserError
from nanochat.serve import widget
from nanochat.serve.reply import reply_with
from nanochat.serve.widget import ChatBox


def box(**options):
    engine = FakeEngine(**options)
    return ChatBox(reply_with(engine, max_tokens=4000)), engine


def press(button):
    button.click()


def test_say_blocks_and_returns_the_answer():
    chat, _ = box()
    assert chat.say("hello there") == "You said: hello there"
    assert chat.history == [
        {"role": "user", "content": "hello there"},
        {"role": "assistant", "content": "You said: hello there"},
    ]
    assert "You said: hello there" in chat.view.value
    assert chat.say("sum 12+30") == "The sum is 42."
    assert [part["type"] for part in chat.history[-1]["content"]] == ["text", "python", "python_output", "text"]


def test_send_answers_in_a_thread_and_stop_ends_it():
    chat, engine = box(context=8192, delay=0.005)
    chat.box.value = "count 2000"
    press(chat.send)
    assert chat.box.value == ""
    sizes = []
    wait_until(lambda: sizes.append(len(chat.view.value)) or len(set(sizes)) > 3)
    assert sizes == sorted(sizes) and chat.send.disabled and not chat.stop.disabled
    press(chat.stop)
    wait_until(lambda: not chat.send.disabled)
    assert engine.running == 0 and chat.stop.disabled
    assert chat.history[-1]["content"].startswith("0 1 2") and "1999" not in chat.history[-1]["content"]
    assert chat.say("go on") == "You said: go on"


def test_it_takes_one_message_at_a_time():
    chat, _ = box(context=8192, delay=0.005)
    thread = threading.Thread(target=chat.say, args=("count 200",))
    thread.start()
    wait_until(lambda: chat.history)
    assert chat.say("me too") is None
    press(chat.stop)
    thread.join()
    assert len(chat.history) == 2


def test_the_enter_key_sends():
    chat, _ = box()
    chat.box.value = "hello"
    chat.box._handle_custom_msg({"event": "submit"}, [])
    wait_until(lambda: len(chat.history) == 2 and not chat.send.disabled)
    assert chat.history[-1]["content"] == "You said: hello"


@pytest.mark.parametrize(("seconds", "pictures"), [(0.0, 30), (1e9, 2)])
def test_the_picture_is_redrawn_when_it_is_due_and_at_the_end(monkeypatch, seconds, pictures):
    monkeypatch.setattr(widget, "REDRAW", seconds)
    chat, _ = box()
    drawn = []
    chat.view.observe(lambda change: drawn.append(change.new), "value")
    chat.say("count 29")
    assert len(drawn) == pictures
    assert "0 1 2" in drawn[-1] and "28" in drawn[-1]


def test_everything_said_is_escaped():
    chat, _ = box()
    evil = "<img src=x onerror=alert(1)> & <script>"
    chat.say(evil)
    chat.say(f"sum '{evil}'")
    assert "<img" not in chat.view.value and "<script" not in chat.view.value
    assert "&lt;img src=x onerror=alert(1)&gt; &amp;" in chat.view.value


def test_problems_are_said_in_the_box():
    chat, _ = box(context=64)
    assert chat.say("x" * 500) is None
    assert "context window 64" in chat.view.value and chat.history == []
    assert chat.say("hi") == "You said: hi"

    def broken(history):
        yield "so far"
        raise RuntimeError("it <broke>")

    chat = ChatBox(broken)
    with pytest.raises(RuntimeError):
        chat.say("hi")
    assert "it &lt;broke&gt;" in chat.view.value and chat.history == [] and not chat.send.disabled


def test_any_function_that_yields_text_will_do():
    chat = ChatBox(lambda history: [f"{len(history)} ", history[-1]["content"].upper()])
    assert chat.say("hello") == "1 HELLO"
    assert chat.say("more") == "3 MORE"
    chat.clear()
    assert chat.say("hello") == "1 HELLO"

    def refuses(history):
        raise UserError("not today")

    assert ChatBox(refuses).say("hi") is None


def test_its_parts_can_be_found_by_class():
    chat, _ = box()
    for part, name in (
        (chat.view, "chat-view"),
        (chat.box, "chat-input"),
        (chat.send, "chat-send"),
        (chat.stop, "chat-stop"),
    ):
        assert name in part._dom_classes
    assert "application/vnd.jupyter.widget-view+json" in chat._repr_mimebundle_()
