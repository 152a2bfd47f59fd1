"""The chat format: how a conversation becomes ids, and which of them the model is trained on.

    <|bos|><|user_start|>Hi<|user_end|><|assistant_start|>Hello.<|assistant_end|>
       0          0       0      0              0           1           1           the mask

The mask is 1 on what the assistant must learn to write: its text, its calls of Python, the end of its turn. It is 0 on
what others write: the user, the tool's output, and the openings that the engine supplies. There is no other separator.

A conversation is {"messages": [{"role": "user" | "assistant" | "system", "content": ...}, ...]}. Content is a string;
an assistant's may also be a list of parts {"type": "text" | "python" | "python_output", "text": ...}. Text is always
encoded as ordinary text, so nothing that a user types can open a turn or close one.
"""

from nanochat.runtime import UserError

SPECIAL_TOKENS = (  # the one table: always the last nine ids, in this order
    "<|bos|>",  # begins every document and every conversation
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",  # the assistant calls the tool ...
    "<|python_end|>",
    "<|output_start|>",  # ... and reads what it answered
    "<|output_end|>",
)

PARTS = {  # type of a part: the tokens around it, and whether the model is trained to write it
    "text": (None, None, 1),
    "python": ("<|python_start|>", "<|python_end|>", 1),
    "python_output": ("<|output_start|>", "<|output_end|>", 0),
}


def render_conversation(tokenizer, conversation: dict, max_tokens: int | None = None) -> tuple[list[int], list[int]]:
    """(ids, mask) of a whole conversation, both cut to `max_tokens`. UserError if the conversation is malformed."""
    ids, mask = _render(tokenizer, _messages(conversation))
    return ids[:max_tokens], mask[:max_tokens]


def render_for_completion(tokenizer, conversation: dict) -> list[int]:
    """The ids that ask for the next answer: a last assistant message is dropped, and the assistant's turn opened."""
    messages = _messages(conversation)
    if messages[-1][0] == "assistant":
        messages = messages[:-1]
    ids, _ = _render(tokenizer, messages)
    return ids + [tokenizer.special["<|assistant_start|>"]]


def render_document(tokenizer, text: str, max_tokens: int | None = None) -> tuple[list[int], list[int]]:
    """(ids, mask) of plain text: every token but the bos that opens it is trained on."""
    ids = tokenizer.encode(text, bos=True)[:max_tokens]
    return ids, [0, *[1] * (len(ids) - 1)][: len(ids)]


def _render(tokenizer, messages) -> tuple[list[int], list[int]]:
    special = tokenizer.special
    ids, mask = [special["<|bos|>"]], [0]

    def add(tokens: list[int], trained: int) -> None:
        ids.extend(tokens)
        mask.extend([trained] * len(tokens))

    for role, parts in messages:
        learn = int(role == "assistant")
        add([special[f"<|{role}_start|>"]], 0)
        for kind, text in parts:
            opening, closing, trained = PARTS[kind]
            tokens = tokenizer.encode(text)
            if opening:
                tokens = [special[opening], *tokens, special[closing]]
            add(tokens, trained * learn)
        add([special[f"<|{role}_end|>"]], learn)
    return ids, mask


def _messages(conversation: dict) -> list[tuple[str, list[tuple[str, str]]]]:
    """The messages, checked, as (role, [(type, text), ...]); a leading system message joins the first user message."""
    messages = conversation.get("messages") if isinstance(conversation, dict) else None
    if not isinstance(messages, (list, tuple)) or not messages:
        raise UserError('a conversation needs {"messages": [...]} with at least one message')
    if not all(isinstance(message, dict) for message in messages):
        raise UserError('each message must be {"role": ..., "content": ...}')
    if messages[0].get("role") == "system":
        messages = _merge_system(messages)
    checked = []
    for i, message in enumerate(messages):
        expected = ("user", "assistant")[i % 2]
        if message.get("role") != expected:
            raise UserError(
                f"message {i} has role {message.get('role')!r} where {expected!r} is due: user and assistant "
                "alternate, user first, with at most one system message before them"
            )
        checked.append((expected, _parts(i, expected, message.get("content"))))
    return checked


def _merge_system(messages):
    if len(messages) < 2 or messages[1].get("role") != "user":
        raise UserError("a system message must be followed by a user message")
    both = [message.get("content") for message in messages[:2]]
    if not all(isinstance(content, str) for content in both):
        raise UserError("the content of system and user messages must be a string")
    return [{"role": "user", "content": "\n\n".join(both)}, *messages[2:]]


def _parts(i: int, role: str, content) -> list[tuple[str, str]]:
    if isinstance(content, str):
        return [("text", content)]
    if role == "user" or not isinstance(content, (list, tuple)):
        kind = "a string" if role == "user" else "a string or a list of parts"
        raise UserError(f"the content of message {i} ({role}) must be {kind}, not {type(content).__name__}")
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in PARTS or not isinstance(part.get("text"), str):
            kinds = " | ".join(PARTS)
            raise UserError(f'message {i}: a part must be {{"type": {kinds}, "text": string}}, not {part!r:.80}')
    return [(part["type"], part["text"]) for part in content]
