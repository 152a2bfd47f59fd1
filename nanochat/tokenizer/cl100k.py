"""GPT-4's vocabulary, cl100k_base, as tiktoken publishes it: to compare with, and to rebuild GPT-4's tokenizer from.

tiktoken downloads the ranks once (1.6 MB) and keeps them in the folder that TIKTOKEN_CACHE_DIR names. With NANOCHAT_HUB
set, the mirror's own copy in $NANOCHAT_HUB/tiktoken is used instead, without a network.
"""

import os
from pathlib import Path

import tiktoken

from nanochat.runtime import UserError


def cl100k() -> tiktoken.Encoding:
    """tiktoken's cl100k_base. UserError when its ranks are neither cached nor to be had."""
    hub = os.environ.get("NANOCHAT_HUB")
    borrow = bool(hub) and "TIKTOKEN_CACHE_DIR" not in os.environ and (Path(hub) / "tiktoken").is_dir()
    if borrow:
        os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(hub) / "tiktoken")
    try:
        return tiktoken.get_encoding("cl100k_base")
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; ValueError: what came is not what was asked
        raise UserError(
            f"tiktoken cannot get the ranks of cl100k_base ({type(error).__name__}): connect to the network once, or "
            "set TIKTOKEN_CACHE_DIR to a folder that holds them, or NANOCHAT_HUB to a mirror with a tiktoken/ folder"
        ) from None
    finally:
        if borrow:
            del os.environ["TIKTOKEN_CACHE_DIR"]
