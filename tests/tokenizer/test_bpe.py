"""The teaching ladder: worked examples, special tokens, files, and GPT-4's merges out of ranks."""

import doctest
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from odd_text import SCRIPTS, texts

from nanochat.runtime import UserError
from nanochat.tokenizer import bpe, cl100k
from nanochat.tokenizer.bpe import GPT4_SPECIAL_TOKENS, BasicTokenizer, GPT4Tokenizer, RegexTokenizer
from nanochat.tokenizer.train import train_file

SPECIAL = {"<|endoftext|>": 1000, "<|end|>": 1001, "<|end|>ing": 1002}


@pytest.fixture(scope="module")
def trained(corpus) -> RegexTokenizer:
    tokenizer = RegexTokenizer()
    tokenizer.train(corpus, 300)
    tokenizer.register_special_tokens(SPECIAL)
    return tokenizer


def test_worked_examples_in_the_docstrings_are_true():
    examples = [t for t in doctest.DocTestFinder().find(bpe, "bpe", globs=vars(bpe)) if t.name != "bpe.GPT4Tokenizer"]
    results = [doctest.DocTestRunner().run(example) for example in examples]
    assert sum(r.attempted for r in results) >= 15
    assert sum(r.failed for r in results) == 0


@pytest.mark.parametrize("kind", [BasicTokenizer, RegexTokenizer])
def test_the_wikipedia_example(kind):
    tokenizer = kind()
    tokenizer.train("aaabdaaabac", 256 + 3)
    assert tokenizer.encode("aaabdaaabac") == [258, 100, 258, 97, 99]
    assert tokenizer.decode([258, 100, 258, 97, 99]) == "aaabdaaabac"


@given(st.lists(st.integers(0, 2), max_size=30))
def test_merge_leaves_its_input_alone_and_no_overlap(ids):
    before = list(ids)
    merged = bpe.merge(ids, (1, 1), 9)
    assert ids == before
    assert [i for new in merged for i in ((1, 1) if new == 9 else (new,))] == ids
    assert (1, 1) not in list(pairwise(merged))


@given(st.lists(st.integers(0, 3), max_size=30))
def test_pair_counts_counts_overlapping_neighbours(ids):
    assert bpe.pair_counts(ids) == Counter((ids[i], ids[i + 1]) for i in range(len(ids) - 1))


@given(texts)
def test_encoding_and_decoding_is_the_identity(trained, text):
    assert trained.decode(trained.encode_ordinary(text)) == text


def test_training_on_too_little_text_is_refused():
    with pytest.raises(ValueError, match="no more than 258 tokens, 300 were asked for"):
        BasicTokenizer().train("abc", 300)
    with pytest.raises(ValueError, match="need 256"):
        RegexTokenizer().train("abc", 255)


def test_an_unknown_id_is_refused(trained):
    with pytest.raises(ValueError, match="id 999 is not"):
        trained.decode([97, 999])


# --- special tokens


def test_special_tokens_in_text_raise_unless_the_caller_says_what_they_mean(trained):
    text = "a<|endoftext|>b"
    with pytest.raises(ValueError, match="special token"):
        trained.encode(text)
    assert trained.encode(text, allowed_special="all") == [97, 1000, 98]
    assert trained.encode(text, allowed_special={"<|endoftext|>"}) == [97, 1000, 98]
    assert trained.encode(text, allowed_special="none") == trained.encode_ordinary(text)
    assert trained.encode(text, allowed_special={"<|end|>"}) == trained.encode_ordinary(text)
    assert max(trained.encode_ordinary(text)) < 1000
    with pytest.raises(ValueError, match="allowed_special is 'some'"):
        trained.encode(text, allowed_special="some")


def test_the_longest_special_token_wins(trained):
    assert trained.encode("<|end|>ing<|end|>", allowed_special="all") == [1002, 1001]


def test_special_tokens_decode_to_their_names(trained):
    assert trained.decode([97, 1000, 1002]) == "a<|endoftext|><|end|>ing"


# --- files


@pytest.mark.parametrize("kind", [BasicTokenizer, RegexTokenizer])
def test_a_saved_model_loads_to_the_same_tokenizer(kind, corpus, tmp_path):
    tokenizer = kind()
    tokenizer.train(corpus[:2000], 280)
    if kind is RegexTokenizer:
        tokenizer.register_special_tokens({"<|end of text|>": 280})
    tokenizer.save(str(tmp_path / "town"))
    loaded = kind()
    loaded.load(str(tmp_path / "town.model"))
    assert vars(loaded) == vars(tokenizer)
    assert loaded.encode(SCRIPTS) == tokenizer.encode(SCRIPTS)


def test_the_files_look_as_documented(tmp_path):
    tokenizer = RegexTokenizer(r"(?s).+")
    tokenizer.train("\n\na\n\na", 256 + 2)
    tokenizer.register_special_tokens({"<|end|>": 258})
    tokenizer.save(str(tmp_path / "t"))
    assert (tmp_path / "t.model").read_text() == "minbpe v1\n(?s).+\n1\n<|end|> 258\n10 10\n256 97\n"
    vocab = (tmp_path / "t.vocab").read_text(encoding="utf-8").splitlines()
    assert len(vocab) == 259
    assert vocab[97] == "[a] 97"
    assert vocab[0x80] == "[\ufffd] 128"
    assert vocab[256:] == [
        r"[\u000a][\u000a] -> [\u000a\u000a] 256",
        r"[\u000a\u000a][a] -> [\u000a\u000aa] 257",
        "[<|end|>] 258",
    ]


@pytest.mark.parametrize(
    "content",
    ["", "minbpe v2\n\n0\n", "minbpe v1\n(\n0\n", "minbpe v1\n\n0\n97 999\n", "minbpe v1\n\nx\n"],
    ids=["empty", "version", "pattern", "later token", "count"],
)
def test_what_is_not_a_model_is_refused_in_one_line(content, tmp_path):
    path = tmp_path / "bad.model"
    path.write_text(content)
    with pytest.raises(UserError, match="bad.model") as error:
        RegexTokenizer().load(str(path))
    assert "\n" not in str(error.value)


def test_only_model_files_are_loaded(tmp_path):
    with pytest.raises(UserError, match="for reading only"):
        RegexTokenizer().load(str(tmp_path / "t.vocab"))
    with pytest.raises(UserError, match="does not exist"):
        RegexTokenizer().load(str(tmp_path / "t.model"))


def test_a_pattern_that_does_not_fit_the_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="line break"):
        RegexTokenizer("a\nb").save(str(tmp_path / "t"))
    assert list(tmp_path.iterdir()) == []


def test_the_command_trains_both_and_writes_four_files(tmp_path, corpus):
    (tmp_path / "text.txt").write_text(corpus[:5000], encoding="utf-8")
    command = [sys.executable, "-m", "nanochat.cli", "tokenizer", "train", "text.txt", "--vocab", "300"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.count("44/44: ") == 2
    assert "regex.model and .vocab" in done.stdout and " core seconds" in done.stdout
    names = sorted(path.name for path in (tmp_path / "models").iterdir())
    assert names == ["basic.model", "basic.vocab", "regex.model", "regex.vocab"]
    for kind, name in ((BasicTokenizer, "basic"), (RegexTokenizer, "regex")):
        saved, trained = kind(), kind()
        saved.load(str(tmp_path / "models" / f"{name}.model"))
        trained.train(corpus[:5000], 300)
        assert saved.merges == trained.merges and len(saved.vocab) == 300


@pytest.mark.parametrize(
    ("content", "vocab_size", "complaint"),
    [
        (None, 300, "cannot read .*text.txt: No such file"),
        (b"caf\xe9", 300, "not UTF-8 text .byte 3."),
        (b"too short", 300, "text.txt, basic tokenizer: the text yields no more than 264 tokens"),
        (b"ab", 257, None),
        (b"a b", 258, "text.txt, regex tokenizer: the text yields no more than 257 tokens"),
        (b"long enough", 255, "need 256"),
    ],
    ids=["missing", "Latin-1", "short", "just enough", "short for one of them", "no merges"],
)
def test_a_file_that_cannot_be_trained_on_is_one_line_and_leaves_nothing(tmp_path, content, vocab_size, complaint):
    source, folder = tmp_path / "text.txt", tmp_path / "models"
    if content is not None:
        source.write_bytes(content)
    if complaint is None:
        train_file(source, folder, vocab_size)
        assert len(list(folder.iterdir())) == 4
        return
    with pytest.raises(UserError, match=complaint) as error:
        train_file(source, folder, vocab_size)
    assert "\n" not in str(error.value) and not folder.exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    source = tmp_path / "text.txt"
    source.write_text("aaab")
    with pytest.raises(UserError, match="cannot write to .*text.txt: .*; choose another --out"):
        train_file(source, source, 257)


# --- GPT-4


def permuted(tokenizer: RegexTokenizer) -> tuple[dict[bytes, int], list[int]]:
    """The ranks of `tokenizer` with the ids of its 256 bytes reversed, as cl100k shuffles them; new ids by old."""
    new = [255 - i if i < 256 else i for i in range(256 + len(tokenizer.merges))]
    return {token: new[i] for i, token in tokenizer.vocab.items()}, new


@given(texts)
def test_gpt4_tokenizer_undoes_the_byte_permutation(trained, text):
    ranks, new = permuted(trained)
    gpt4 = GPT4Tokenizer(ranks, {"<|endoftext|>": 5000})
    ids = gpt4.encode_ordinary(text)
    assert ids == [new[i] for i in trained.encode_ordinary(text)]
    assert gpt4.decode(ids) == text
    assert gpt4.decode([5000]) == "<|endoftext|>"


def test_merges_are_recovered_from_ranks(trained):
    assert bpe.recover_merges({token: i for i, token in trained.vocab.items()}) == trained.merges


def test_gpt4_tokenizer_is_not_trained_nor_saved(trained, tmp_path):
    gpt4 = GPT4Tokenizer(permuted(trained)[0])
    for refused in (lambda: gpt4.train("text", 300), lambda: gpt4.save("x"), lambda: gpt4.load("x.model")):
        with pytest.raises(NotImplementedError, match="GPT4Tokenizer is"):
            refused()
    gpt4.save_vocab(str(tmp_path / "gpt4.vocab"))
    assert "[a] 158" in (tmp_path / "gpt4.vocab").read_text(encoding="utf-8")  # 255 - 97


def test_missing_ranks_are_one_clear_line(monkeypatch):
    def offline(name):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(cl100k.tiktoken, "get_encoding", offline)
    with pytest.raises(UserError, match="TIKTOKEN_CACHE_DIR") as error:
        GPT4Tokenizer()
    assert "\n" not in str(error.value)


def test_the_mirror_serves_as_tiktokens_cache(monkeypatch, tmp_path):
    (tmp_path / "tiktoken").mkdir()
    monkeypatch.setenv("NANOCHAT_HUB", str(tmp_path))
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.setattr(cl100k.tiktoken, "get_encoding", lambda name: os.environ["TIKTOKEN_CACHE_DIR"])
    assert cl100k.cl100k() == str(tmp_path / "tiktoken")
    assert "TIKTOKEN_CACHE_DIR" not in os.environ


AT_HAND = ["cl100k_base"] if {"NANOCHAT_HUB", "TIKTOKEN_CACHE_DIR"} & set(os.environ) else []


@pytest.fixture(params=["made-up ranks", *AT_HAND])
def published(request, trained) -> tiktoken.Encoding:
    """What tiktoken publishes: cl100k_base where its ranks are at hand, and always a small one of the same make."""
    if request.param == "cl100k_base":
        return cl100k.cl100k()
    return tiktoken.Encoding(
        name=request.param,
        pat_str=bpe.GPT4_SPLIT_PATTERN,
        mergeable_ranks=permuted(trained)[0],
        special_tokens=GPT4_SPECIAL_TOKENS,
    )


def test_gpt4_tokenizer_equals_tiktoken(published, monkeypatch, corpus):
    monkeypatch.setattr(bpe, "cl100k", lambda: published)
    gpt4, example = GPT4Tokenizer(), "hello123!!!? (안녕하세요!) 😉"
    assert gpt4.encode(example) == published.encode(example)
    assert gpt4.encode_ordinary(corpus) == published.encode_ordinary(corpus)
    text = "<|endoftext|>a<|fim_prefix|>b<|fim_middle|>c<|fim_suffix|>d<|endofprompt|>"
    ids = gpt4.encode(text, allowed_special="all")
    assert ids == published.encode(text, allowed_special="all")
    assert gpt4.decode(ids) == published.decode(ids) == text
    if published.name == "cl100k_base":
        expected = [15339, 4513, 12340, 30, 320, 31495, 230, 75265, 243, 92245, 16715, 57037]
        assert gpt4.encode(example) == expected
