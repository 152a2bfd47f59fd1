"""From ids to what a reader sees: text that grows piece by piece, whole characters only, tool calls set apart.

    reader = Reader(tokenizer, stop=("\\n\\n",))
    for token in ids:
        print(reader.feed(token), end="")
    print(reader.close(), end="")
    reader.parts        # [{"type": "text", "text": …}, {"type": "python", …}, {"type": "python_output", …}, …]

The parts are those of a conversation's assistant message, so an answer can be put back into the next prompt as it was.
"""

import codecs

OPENS = {"<|python_start|>": "python", "<|output_start|>": "python_output"}
CLOSES = ("<|python_end|>", "<|output_end|>")


class Reader:
    """Reads one answer, token by token. `stopped` turns True when a stop string has come; the text ends before it."""

    def __init__(self, tokenizer, stop: tuple[str, ...] = ()):
        self.tokenizer, self.stop, self.stopped = tokenizer, stop, False
        self.parts: list[dict] = []
        self._switch = {tokenizer.special[name]: kind for name, kind in OPENS.items()}
        self._switch |= {tokenizer.special[name]: "text" for name in CLOSES}
        self._specials = set(tokenizer.special.values())
        self._begin("text")

    @property
    def text(self) -> str:
        """What the assistant said: the text parts, without calls and their results."""
        return "".join(part["text"] for part in self.parts if part["type"] == "text")

    def feed(self, token: int) -> str:
        """Read one token; -> the new text, often "" (after a special, half a character, a tool call)."""
        if self.stopped:
            return ""
        if token in self._switch:
            piece = self.close()
            self._begin(self._switch[token])
            return piece
        if token in self._specials:
            return ""
        return self._show(self._decoder.decode(self.tokenizer.id_to_bytes(token)))

    def close(self) -> str:
        """The answer ends here (or a part of it does): give out what was held back."""
        piece = self._show(self._decoder.decode(b"", final=True), last=True)
        self._decoder.reset()
        return piece

    def _begin(self, kind: str) -> None:
        self._kind, self._held = kind, ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        if kind != "text":
            self.parts.append({"type": kind, "text": ""})

    def _show(self, piece: str, last: bool = False) -> str:
        """Add new characters to the current part, except what may be the beginning of a stop string."""
        if self._kind != "text":
            self.parts[-1]["text"] += piece
            return ""
        piece = self._held + piece
        found = [at for at in (piece.find(s) for s in self.stop) if at >= 0]
        if found and not self.stopped:
            self.stopped, keep = True, min(found)
        else:
            keep = len(piece) if last else len(piece) - self._overlap(piece)
        piece, self._held = piece[:keep], "" if self.stopped else piece[keep:]
        if piece:
            if not self.parts or self.parts[-1]["type"] != "text":
                self.parts.append({"type": "text", "text": ""})
            self.parts[-1]["text"] += piece
        return piece

    def _overlap(self, piece: str) -> int:
        """How many of the last characters could be the beginning of a stop string."""
        if not self.stop:
            return 0
        for n in range(min(len(piece), max(map(len, self.stop)) - 1), 0, -1):
            if any(s.startswith(piece[-n:]) for s in self.stop):
                return n
        return 0
