"""The fast Tokenizer: its ids, its special tokens, its files, its exports."""

import json

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_text import SCRIPTS, texts

import rustbpe
from nanochat.runtime import UserError
from nanochat.tokenizer import SPECIAL_TOKENS, SPLIT_PATTERN, Tokenizer

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2+3?"},
    {"role": "assistant", "content": [
        {"type": "text", "text": "Let me see: "},
        {"type": "python", "text": "2+3"},
        {"type": "python_output", "text": "5"},
        {"type": "text", "text": " so it is 5.\n"},
    ]},
    {"role": "user", "content": "  Thanks! 😉\n"},
    {"role": "assistant", "content": "You're welcome."},
]  # fmt: skip


def test_special_tokens_are_the_last_nine_ids(tokenizer):
    assert tokenizer.vocab_size == 1024
    assert tokenizer.special == {name: 1015 + i for i, name in enumerate(SPECIAL_TOKENS)}
    assert tokenizer.bos == 1015


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(texts, st.sampled_from(SPECIAL_TOKENS))).map("".join))
def test_no_text_makes_a_special_id(tokenizer, text):
    ids = tokenizer.encode(text)
    assert max(ids, default=0) < tokenizer.bos
    assert tokenizer.decode(ids) == text


def test_bos_is_put_in_front_when_asked_for(tokenizer):
    assert tokenizer.encode("ab", bos=True) == [tokenizer.bos, *tokenizer.encode("ab")]


def test_all_ways_to_encode_give_the_same_ids(tokenizer, corpus):
    lines = corpus.splitlines()
    expected = [tokenizer.encode(line) for line in lines]
    assert [tokenizer.encode_numpy(line).tolist() for line in lines] == expected
    assert [ids.tolist() for ids in tokenizer.encode_batch(lines, threads=2)] == expected
    assert tokenizer.encode_numpy("a").dtype == np.uint32


def test_decoding_knows_special_tokens_arrays_and_broken_characters(tokenizer):
    assert tokenizer.decode([tokenizer.bos, 97]) == "<|bos|>a"
    assert tokenizer.decode(np.array([97, 98], dtype=np.uint16)) == "ab"
    assert tokenizer.decode([0xE2, 97]) == "\ufffda"
    assert tokenizer.decode_bytes([0xE2, 97]) == b"\xe2a"
    assert tokenizer.id_to_bytes(np.int64(97)) == b"a"


@pytest.mark.parametrize("unknown", [-1, 1024])
def test_an_unknown_id_is_refused(tokenizer, unknown):
    with pytest.raises(ValueError, match=f"id {unknown} is not in the vocabulary of 1024"):
        tokenizer.decode([97, unknown])


def test_token_bytes_add_up_to_the_bytes_of_the_text(tokenizer):
    lengths = tokenizer.token_bytes
    assert (lengths.dtype, lengths.shape) == (np.int32, (1024,))
    assert lengths[tokenizer.encode(SCRIPTS)].sum() == len(SCRIPTS.encode())
    assert lengths[tokenizer.bos :].tolist() == [0] * 9
    assert lengths[:256].tolist() == [1] * 256  # also those that are no character of their own


def test_number_width_is_a_choice_of_training():
    tokenizer = Tokenizer.train(["12 12 ab ab"], 266, digits=1)
    assert [tokenizer.decode([i]) for i in tokenizer.encode("1234")] == ["1", "2", "3", "4"]
    assert tokenizer.pattern == SPLIT_PATTERN(1)


def test_training_that_cannot_be_is_refused_in_one_line():
    with pytest.raises(UserError, match="need 265"):
        Tokenizer.train(["text"], 264)
    with pytest.raises(UserError, match="yield no more than 268 tokens, 1000 were asked for"):
        Tokenizer.train(["text"], 1000)
    with pytest.raises(UserError, match="digits is 0"):
        Tokenizer.train(["text"], 266, digits=0)


# --- files


def test_a_saved_tokenizer_is_the_same_tokenizer(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    loaded = Tokenizer.from_dir(tmp_path / "tokenizer")
    assert loaded.digest == tokenizer.digest
    assert loaded.special == tokenizer.special
    assert loaded.encode(SCRIPTS) == tokenizer.encode(SCRIPTS)
    assert loaded.token_bytes.tolist() == tokenizer.token_bytes.tolist()
    assert [path.name for path in (tmp_path / "tokenizer").iterdir()] == ["model.json"]


def test_the_digest_tells_tokenizers_apart(tokenizer, corpus):
    assert Tokenizer.train([corpus], 1024, threads=2).digest == tokenizer.digest
    assert Tokenizer.train([corpus], 1023).digest != tokenizer.digest
    assert Tokenizer.train([corpus], 1024, digits=1).digest != tokenizer.digest


DOUBLING = [[97, 97], *[[i, i] for i in range(256, 320)]]


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 99}, {"merges": [[97, 9999]]}, {"merges": [[1]]}, {"merges": DOUBLING}, {"pattern": "("},
        {"special_tokens": []}, None,
    ],
    ids=["version", "later token", "no pair", "2^65 bytes", "pattern", "special tokens", "not JSON"],
)
def test_a_damaged_file_is_refused_in_one_line(tokenizer, tmp_path, change):
    tokenizer.save(tmp_path)
    path = tmp_path / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change) if change else path.read_text()[:-10])
    with pytest.raises(UserError, match="model.json") as error:
        Tokenizer.from_dir(tmp_path)
    assert "\n" not in str(error.value)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="lesson 02 trains one"):
        Tokenizer.from_dir(tmp_path)


# --- exports


@pytest.fixture(scope="module")
def hf(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf")
    tokenizer.to_hf(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def tik(tokenizer):
    return tokenizer.to_tiktoken()


@settings(max_examples=300, deadline=None)
@given(texts)
def test_exports_have_the_same_ids(tokenizer, hf, tik, text):
    ids = tokenizer.encode(text)
    assert tik.encode_ordinary(text) == ids
    assert hf.encode(text, split_special_tokens=True) == ids
    assert hf.decode(ids) == tik.decode(ids) == text


def test_exports_have_the_same_ids_on_real_text(tokenizer, hf, tik, corpus):
    ids = tokenizer.encode(corpus)
    assert tik.encode_ordinary(corpus) == ids
    assert hf.encode(corpus, split_special_tokens=True) == ids


def test_exports_know_the_special_tokens(tokenizer, hf, tik):
    assert tik.encode("<|bos|>a<|output_end|>", allowed_special="all") == [tokenizer.bos, 97, tokenizer.vocab_size - 1]
    assert (tik.n_vocab, len(hf)) == (1024, 1024)
    assert {name: hf.convert_tokens_to_ids(name) for name in SPECIAL_TOKENS} == tokenizer.special
    assert (hf.bos_token_id, hf.eos_token_id) == (tokenizer.bos, tokenizer.special["<|assistant_end|>"])


@pytest.mark.parametrize("messages", [CHAT, CHAT[1:], CHAT[1:3]], ids=["system", "two turns", "one turn"])
def test_the_chat_template_renders_as_we_do(tokenizer, hf, messages):
    ids, _ = tokenizer.render_conversation({"messages": messages})
    assert hf.apply_chat_template(messages)["input_ids"] == ids
    prompt = tokenizer.render_for_completion({"messages": messages})
    assert hf.apply_chat_template(messages[:-1], add_generation_prompt=True)["input_ids"] == prompt


NAMES_AND_ODDITIES = st.lists(
    st.one_of(st.sampled_from(SPECIAL_TOKENS), st.sampled_from(["<", "|", "|bos|>", "a"]), texts)
)


@settings(max_examples=200, deadline=None)
@given(st.lists(NAMES_AND_ODDITIES.map("".join), min_size=6, max_size=6))
def test_no_text_in_a_conversation_makes_a_special_id_in_the_export(tokenizer, hf, contents):
    parts = [{"type": kind, "text": text} for kind, text in zip(("text", "python", "python_output"), contents)]
    messages = [
        {"role": "system", "content": contents[3]},
        {"role": "user", "content": contents[4]},
        {"role": "assistant", "content": parts},
        {"role": "user", "content": contents[5]},
    ]
    ids = tokenizer.render_for_completion({"messages": messages})
    assert hf.apply_chat_template(messages, add_generation_prompt=True)["input_ids"] == ids


def test_no_name_is_put_together_from_two_parts(tokenizer, hf):
    parts = [{"type": "text", "text": "<"}, {"type": "text", "text": "|bos|>"}]
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": parts}]
    assert hf.apply_chat_template(messages)["input_ids"].count(tokenizer.bos) == 1


def test_bare_text_needs_the_switch_that_the_docstring_names(tokenizer, hf):
    assert hf.encode("<|bos|>") == [tokenizer.bos]
    assert hf.encode("<|bos|>", split_special_tokens=True) == tokenizer.encode("<|bos|>")


def test_rust_and_python_agree_on_the_pattern():
    assert SPLIT_PATTERN(2) == rustbpe.PATTERN
