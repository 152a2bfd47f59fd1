"""Text to ids and back: the readable ladder (`bpe`), the fast tokenizer on Rust, the chat format and its loss mask."""

from nanochat.tokenizer.chat import SPECIAL_TOKENS
from nanochat.tokenizer.tokenizer import SPLIT_PATTERN, Tokenizer

__all__ = ["SPECIAL_TOKENS", "SPLIT_PATTERN", "Tokenizer"]
