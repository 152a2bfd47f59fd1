"""Code written against minbpe runs on ours: its names, arguments, attributes and files, in the ways it documents."""

import pytest
from odd_text import SCRIPTS

from nanochat.tokenizer import bpe
from nanochat.tokenizer.bpe import (
    GPT4_SPLIT_PATTERN,
    BasicTokenizer,
    GPT4Tokenizer,
    RegexTokenizer,
    get_stats,
    merge,
)


def test_the_helpers():
    stats = get_stats([1, 2, 3, 1, 2])
    assert stats == {(1, 2): 2, (2, 3): 1, (3, 1): 1}
    assert max(stats, key=stats.get) == (1, 2)
    into = {(9, 9): 5}
    assert get_stats([9, 9, 9], counts=into) is into and into == {(9, 9): 7}
    assert merge([1, 2, 3, 1, 2], (1, 2), 4) == [4, 3, 4]


@pytest.mark.parametrize("kind", [BasicTokenizer, RegexTokenizer])
def test_train_encode_decode_save_and_load(kind, tmp_path, capsys):
    tokenizer = kind()
    text = "aaabdaaabac"
    tokenizer.train(text, vocab_size=256 + 3, verbose=True)
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert tokenizer.encode(text) == [258, 100, 258, 97, 99]
    assert tokenizer.decode(ids=[258, 100, 258, 97, 99]) == text
    assert tokenizer.merges == {(97, 97): 256, (97, 98): 257, (256, 257): 258}
    assert tokenizer.vocab[258] == b"aaab" and len(tokenizer.vocab) == 259
    tokenizer.save(file_prefix=str(tmp_path / "toy"))
    again = kind()
    again.load(model_file=str(tmp_path / "toy.model"))
    assert (again.merges, again.vocab, again.pattern, again.special_tokens) == (
        tokenizer.merges, tokenizer.vocab, tokenizer.pattern, tokenizer.special_tokens
    )  # fmt: skip
    assert again.decode(again.encode(SCRIPTS)) == SCRIPTS


def test_patterns_and_special_tokens():
    tokenizer = RegexTokenizer()
    assert tokenizer.pattern == tokenizer.compiled_pattern.pattern == GPT4_SPLIT_PATTERN
    assert tokenizer.compiled_pattern.findall("I'm 1") == ["I", "'m", " ", "1"]
    assert RegexTokenizer(pattern=r"\w+|\W+").pattern == r"\w+|\W+"

    tokenizer.train("low lower lowest " * 3, 256 + 2)
    assert tokenizer.special_tokens == {}
    tokenizer.register_special_tokens({"<|endoftext|>": 32768, "<|end|>": 32769})
    assert tokenizer.special_tokens == {"<|endoftext|>": 32768, "<|end|>": 32769}
    assert tokenizer.inverse_special_tokens == {32768: "<|endoftext|>", 32769: "<|end|>"}
    text = "<|endoftext|>low<|end|>"
    assert tokenizer.encode(text, allowed_special="all") == [32768, 257, 32769]
    only = tokenizer.encode(text, allowed_special={"<|end|>"})
    assert only[-2:] == [257, 32769] and 32768 not in only
    assert tokenizer.encode(text, allowed_special="none") == tokenizer.encode_ordinary(text)
    assert tokenizer.decode([32768, 257, 32769]) == text
    assert tokenizer.encode("low") == tokenizer.encode("low", allowed_special="none_raise") == [257]
    with pytest.raises(ValueError):
        tokenizer.encode(text)


def test_a_file_that_minbpe_wrote_is_read(tmp_path):
    path = tmp_path / "theirs.model"
    path.write_text(f"minbpe v1\n{GPT4_SPLIT_PATTERN}\n1\n<|endoftext|> 258\n108 111\n256 119\n", encoding="utf-8")
    tokenizer = RegexTokenizer()
    tokenizer.load(str(path))
    assert tokenizer.encode("low<|endoftext|>", allowed_special="all") == [257, 258]


def test_gpt4_tokenizer_takes_no_arguments_and_saves_only_its_vocabulary(monkeypatch, tmp_path):
    ranks = {bytes([i]): 255 - i for i in range(256)} | {b"lo": 256, b"low": 257}
    monkeypatch.setattr(bpe, "cl100k", lambda: type("Published", (), {"_mergeable_ranks": ranks}))
    tokenizer = GPT4Tokenizer()
    assert tokenizer.encode("low<|endoftext|>", allowed_special="all") == [257, 100257]
    assert tokenizer.decode([257, 100257]) == "low<|endoftext|>"
    assert tokenizer.special_tokens["<|endofprompt|>"] == 100276
    assert tokenizer.merges == {(255 - ord("l"), 255 - ord("o")): 256, (256, 255 - ord("w")): 257}
    tokenizer.save_vocab(vocab_file=str(tmp_path / "gpt4.vocab"))
    assert "[lo][w] -> [low] 257" in (tmp_path / "gpt4.vocab").read_text(encoding="utf-8")
    for refused in (lambda: tokenizer.train(SCRIPTS, 300), lambda: tokenizer.save("x"), lambda: tokenizer.load("x")):
        with pytest.raises(NotImplementedError):
            refused()
