"""Talk to a model: a web page with an OpenAI-style API (`api`), a terminal (`terminal`), a notebook cell (`widget`);
and take it elsewhere (the subpackage `export`). Names are imported on first use: a notebook's chat box needs no web
server."""

from importlib import import_module

HOME = {
    "ChatBox": "widget",
    "Piece": "reply",
    "Reply": "reply",
    "chat": "terminal",
    "create_app": "api",
    "open_engine": "reply",
    "reply_with": "reply",
    "serve": "api",
}

__all__ = ["ChatBox", "Piece", "Reply", "chat", "create_app", "open_engine", "reply_with", "serve"]


def __getattr__(name: str):
    if name not in HOME:
        raise AttributeError(f"module 'nanochat.serve' has no attribute {name!r}")
    return getattr(import_module(f"nanochat.serve.{HOME[name]}"), name)
