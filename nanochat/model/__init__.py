"""The model room: the Transformer (`gpt`, `attention`, `precision`) and the recurrent baseline (`char_rnn`)."""

from nanochat.model.gpt import GPT, GPTConfig

__all__ = ["GPT", "GPTConfig"]
