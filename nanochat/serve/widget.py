"""A chat box for a notebook cell.

    chat = ChatBox(reply_with(engine))       # or any function from a conversation to pieces of text
    chat.say("Where does Mira live?")        # the headless way: blocks, returns the answer, needs no browser
    chat                                     # the last expression of a cell: the box itself

`say` and the Send button run the same code. Send runs it in a thread, so that neither the kernel nor the Stop button
waits for the model; the view is one HTML widget, redrawn at most 20 times a second. Everything said is escaped
before it is shown."""

import html
import threading
import time
from collections.abc import Callable, Iterable

import ipywidgets as W

from nanochat.runtime import UserError
from nanochat.serve.reply import Piece, add, content

REDRAW = 0.05  # seconds between two pictures of a growing answer

# Turned upside down (column-reverse), a scrolled box stays at its newest line, without a script.
STYLE = """<style>
.chat-view .scroll { display: flex; flex-direction: column-reverse; overflow-y: auto; padding: 0 14px; }
.chat-view .turns { margin-bottom: auto; }
.chat-view .turn { margin: 8px 0; padding: 7px 14px; width: fit-content; max-width: 85%; border-radius: 14px;
  white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.5; color: var(--jp-ui-font-color1, #222); }
.chat-view .user { margin-left: auto; background: var(--jp-layout-color2, #eee); border-bottom-right-radius: 4px; }
.chat-view .assistant { padding-left: 0; max-width: 100%; }
.chat-view .tool { display: block; width: fit-content; margin: 4px 0; padding: 3px 10px; border-radius: 8px;
font-size: .9em;
  font-family: var(--jp-code-font-family, monospace); background: var(--jp-layout-color2, #eee); }
.chat-view .empty { color: var(--jp-ui-font-color2, #777); padding: 20px; text-align: center; }
</style>"""


class ChatBox:
    """A conversation with `reply`, a function from a list of messages to pieces of the answer (str, or Piece for
    tool calls).

    `history` is the conversation so far, `ui` the widget."""

    def __init__(self, reply: Callable[[list[dict]], Iterable[str]], height: str = "320px"):
        self.reply, self.history = reply, []
        self._busy, self._cancel = threading.Lock(), threading.Event()
        self._drawn, self._problem = 0.0, ""
        self.view = W.HTML(layout=W.Layout(border="1px solid var(--jp-border-color2, #ccc)"))
        self._height = height
        self.box = W.Text(placeholder="Say something", layout=W.Layout(flex="1", width="auto"))
        self.send = W.Button(description="Send", button_style="primary", layout=W.Layout(width="72px"))
        self.stop = W.Button(description="Stop", disabled=True, layout=W.Layout(width="72px"))
        for name, part in {"view": self.view, "input": self.box, "send": self.send, "stop": self.stop}.items():
            part.add_class(f"chat-{name}")
        self.send.on_click(self._on_send)
        self.box.on_msg(lambda _, message, __: message.get("event") == "submit" and self._on_send())  # the Enter key
        self.stop.on_click(lambda _: self._cancel.set())
        self.ui = W.VBox([self.view, W.HBox([self.box, self.send, self.stop])], layout=W.Layout(max_width="760px"))
        self._draw()

    def say(self, text: str) -> str | None:
        """Send `text`, wait, and return what the assistant said. None when it is still busy with the message before."""
        if not self._busy.acquire(blocking=False):
            return None
        parts: list[dict] = []
        answer = {"role": "assistant", "content": ""}
        try:
            self._cancel.clear()
            self._problem = ""
            self.history += [{"role": "user", "content": text}, answer]
            self._show(busy=True)
            pieces = iter(self.reply(self.history[:-1]))
            try:
                for piece in pieces:
                    if self._cancel.is_set():
                        break
                    add(parts, piece if isinstance(piece, Piece) else Piece(piece))
                    answer["content"] = content(parts)
                    self._draw_if_due()
            finally:
                getattr(pieces, "close", lambda: None)()  # frees the engine when the answer was stopped
            return "".join(part["text"] for part in parts if part["type"] == "text")
        except Exception as error:  # said in the box; a failed question leaves no trace in the history
            self.history = self.history[:-2]
            self._problem = str(error)
            if not isinstance(error, UserError):
                raise
            return None
        finally:
            self._show(busy=False)
            self._busy.release()

    def clear(self) -> None:
        """Start a new conversation."""
        self._cancel.set()
        with self._busy:
            self.history = []
            self._draw()

    def _on_send(self, _=None) -> None:
        text = self.box.value.strip()
        if text and not self._busy.locked():
            self.box.value = ""
            threading.Thread(target=self.say, args=(text,), daemon=True).start()

    def _show(self, busy: bool) -> None:
        self.send.disabled, self.stop.disabled = busy, not busy
        self._draw()

    def _draw_if_due(self) -> None:
        if time.monotonic() - self._drawn >= REDRAW:
            self._draw()

    def _draw(self) -> None:
        turns = "".join(f'<div class="turn {m["role"]}">{_as_html(m["content"])}</div>' for m in self.history)
        if self._problem:
            turns += f'<div class="empty">{html.escape(self._problem)}</div>'
        turns = turns or '<div class="empty">Nothing has been said yet.</div>'
        self.view.value = (
            f'{STYLE}<div class="scroll" style="height: {self._height}"><div class="turns">{turns}</div></div>'
        )
        self._drawn = time.monotonic()

    def _repr_mimebundle_(self, **options):
        return self.ui._repr_mimebundle_(**options)


def _as_html(said: str | list[dict]) -> str:
    """A message's content as HTML, every character of it escaped."""
    if isinstance(said, str):
        return html.escape(said)
    shown = ""
    for part in said:
        text = html.escape(part["text"])
        shown += (
            text
            if part["type"] == "text"
            else f'<span class="tool">{"= " if part["type"] == "python_output" else ""}{text}</span>'
        )
    return shown
