"""The tokenizer in other people's formats: a `tiktoken.Encoding`, and the two files that Hugging Face reads.

Ids are equal for text and for conversations; the tests hold all three to it. Can what a user types become a special id?
In ours never, in tiktoken only when told to (`allowed_special`). In Hugging Face's chat template never: it puts a mark
before each "|" of a content, which the normalizer takes away again after special tokens have been looked for. But a
bare `encode(text)` of theirs reads "<|bos|>" as the id, and must, for `apply_chat_template` goes through that call: so
**text from outside goes through the template, or is encoded with `split_special_tokens=True`**.
"""

import json
from pathlib import Path

import tiktoken

from nanochat.runtime import atomic_write

MARK = "\ufdd0"  # Unicode keeps this code point out of text for ever; "\ufdd0|" alone does not come back unchanged

# What chat.py does, for conversations whose content is text or parts, in the template language of transformers.
CHAT_TEMPLATE = """
{%- if messages[0].role == 'system' -%}
    {%- set system = (messages[0].content + '\n\n') | replace('|', 'MARK|') -%}
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
        {{- turn.content | replace('|', 'MARK|') -}}
    {%- else -%}
        {%- for part in turn.content -%}
            {%- set text = part.text | replace('|', 'MARK|') -%}
            {%- if part.type == 'python' -%}{{- '<|python_start|>' + text + '<|python_end|>' -}}
            {%- elif part.type == 'python_output' -%}{{- '<|output_start|>' + text + '<|output_end|>' -}}
            {%- else -%}{{- text -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{- '<|' + turn.role + '_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant_start|>' -}}{%- endif -%}
""".strip().replace("MARK", MARK)


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
        "normalizer": {"type": "Replace", "pattern": {"String": f"{MARK}|"}, "content": "|"},
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
