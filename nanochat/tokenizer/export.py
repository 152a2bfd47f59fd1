"""The tokenizer in other people's formats: a `tiktoken.Encoding`, and the two files that Hugging Face reads.

Ids are equal for text and for rendered conversations; the tests hold all three to it. One difference is theirs: both
libraries can turn "<|bos|>" *inside* a text into the special id (tiktoken only when told to, Hugging Face by default;
its `split_special_tokens=True` prevents it). Ours never does.
"""

import json
from pathlib import Path

import tiktoken

from nanochat.runtime import atomic_write

# What chat.py does, for conversations whose content is text or parts, in the template language of transformers.
CHAT_TEMPLATE = """
{%- if messages[0].role == 'system' -%}
    {%- set system = messages[0].content + '\n\n' -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set system = '' -%}
    {%- set turns = messages -%}
{%- endif -%}
{{- bos_token -}}
{%- for turn in turns -%}
    {{- '<|' + turn.role + '_start|>' -}}
    {%- if loop.first -%}{{- system -}}{%- endif -%}
    {%- if turn.content is string -%}
        {{- turn.content -}}
    {%- else -%}
        {%- for part in turn.content -%}
            {%- if part.type == 'python' -%}{{- '<|python_start|>' + part.text + '<|python_end|>' -}}
            {%- elif part.type == 'python_output' -%}{{- '<|output_start|>' + part.text + '<|output_end|>' -}}
            {%- else -%}{{- part.text -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{- '<|' + turn.role + '_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant_start|>' -}}{%- endif -%}
""".strip()


def to_tiktoken(tokenizer) -> tiktoken.Encoding:
    """A `tiktoken.Encoding` with the same ids."""
    return tiktoken.Encoding(
        name="nanochat",
        pat_str=tokenizer.pattern,
        mergeable_ranks=tokenizer.mergeable_ranks,
        special_tokens=tokenizer.special,
        explicit_n_vocab=tokenizer.vocab_size,
    )


def to_hf(tokenizer, folder: str | Path) -> None:
    """Write tokenizer.json and tokenizer_config.json into `folder`: a byte-level BPE with our split pattern."""
    names = byte_names()
    name = {i: "".join(names[byte] for byte in token) for token, i in tokenizer.mergeable_ranks.items()}
    special = tokenizer.special
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": tokenizer.pattern}, "behavior": "Isolated", "invert": False}
    model = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": token, **flags} for token, i in special.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {text: i for i, text in sorted(name.items())} | special,
            "merges": [[name[a], name[b]] for a, b in tokenizer.merges],
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|assistant_end|>",
        "pad_token": "<|bos|>",
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    atomic_write(Path(folder) / "tokenizer.json", json.dumps(model, ensure_ascii=False, indent=1) + "\n")
    atomic_write(Path(folder) / "tokenizer_config.json", json.dumps(config, ensure_ascii=False, indent=2) + "\n")


def byte_names() -> dict[int, str]:
    """The printable character by which byte-level vocabularies (GPT-2's, and so Hugging Face's) write each byte.

    Printable Latin-1 stands for itself; the other 68 bytes take the characters from U+0100 on, in order: blank is "Ġ".
    """
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    names = {byte: chr(byte) for byte in plain}
    others = [byte for byte in range(256) if byte not in names]
    return names | {byte: chr(256 + i) for i, byte in enumerate(others)}
