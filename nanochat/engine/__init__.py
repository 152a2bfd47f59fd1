"""The engine room: from a trained model to answers (`engine`); its parts: `cache`, `sampling`, `tools`, `text`."""

from nanochat.engine.cache import KVCache
from nanochat.engine.engine import Completion, Engine
from nanochat.engine.sampling import row_keys, sample, uniforms
from nanochat.engine.text import Reader
from nanochat.engine.tools import ToolLoop, calculator, python

__all__ = ["Completion", "Engine", "KVCache", "Reader", "ToolLoop", "calculator", "python", "row_keys", "sample",
           "uniforms"]
