"""
The model room: the Transformer (`config`, `gpt` and its parts `block`, `attention`, `sight`, `smear`, `init`,
`precision`, `fp8`, `loss`) and the recurrent baseline (`char_rnn`).
"""

from nanochat.model.config import GPTConfig
from nanochat.model.gpt import GPT

__all__ = ["GPT", "GPTConfig"]
