"""rustbpe's encoder gives tiktoken's ids whatever its cache holds, however long a chunk is, and on any number of threads."""

import os
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_text import CHARACTERS, SCRIPTS, WORDS, texts

import rustbpe
from nanochat.data import World
from nanochat.runtime import UserError
from nanochat.tokenizer.bpe import GPT4_SPLIT_PATTERN
from nanochat.tokenizer.cl100k import cl100k

Pair = tuple[rustbpe.Tokenizer, tiktoken.Encoding]


def twins(ranks: dict[bytes, int], pattern: str) -> Pair:
    """Our encoder and tiktoken's with the same ranks."""
    theirs = tiktoken.Encoding("oracle", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return rustbpe.Tokenizer(ranks, pattern), theirs


@pytest.fixture(scope="module")
def own(corpus) -> Pair:
    return twins(rustbpe.Tokenizer.train_from_iterator([corpus], 2000, threads=1).mergeable_ranks(), rustbpe.PATTERN)


@pytest.fixture(scope="module")
def gpt4(corpus) -> Pair:
    """cl100k; where its ranks cannot be had, ranks of the same make: its pattern, its three digits, bytes permuted."""
    try:
        theirs = cl100k()
    except UserError:
        learned = rustbpe.Tokenizer.train_from_iterator([corpus], 2000, GPT4_SPLIT_PATTERN, threads=1).mergeable_ranks()
        ranks = {token: 255 - i if i < 256 else i for token, i in learned.items()}
        return twins(ranks, GPT4_SPLIT_PATTERN)
    return twins(theirs._mergeable_ranks, theirs._pat_str)


@pytest.fixture(scope="module", params=["own", "gpt4"])
def pair(request) -> Pair:
    return request.getfixturevalue(request.param)


def real_documents(megabytes: float) -> list[str]:
    """Documents of every parquet file of the mirror with a column `text`, in turn; without a mirror the toy world's."""
    hub = os.environ.get("NANOCHAT_HUB")
    files = sorted(Path(hub).rglob("*.parquet")) if hub else []
    files = [path for path in files if "text" in pq.read_schema(path).names]
    if not files:
        return list(islice(World(0).facts_documents("encoder"), 2000))
    share, documents = megabytes * 1e6 / len(files), []
    for path in files:
        size = 0
        for document in pq.read_table(path, columns=["text"]).column("text").to_pylist():
            documents.append(document)
            size += len(document)
            if size >= share:
                break
    return documents


def test_ids_of_real_documents_equal_tiktokens(pair):
    ours, theirs = pair
    documents = real_documents(2)
    expected = [theirs.encode_ordinary(document) for document in documents]
    for _ in ("cold", "warm"):
        assert [ours.encode(document) for document in documents] == expected
    for threads in (1, 2, 3):
        ids, offsets = ours.encode_batch(documents, threads)
        assert [ids[a:b].tolist() for a, b in pairwise(offsets.tolist())] == expected


@settings(max_examples=500, deadline=None)
@given(text=texts)
def test_ids_of_fuzz_equal_tiktokens(pair, text):
    ours, theirs = pair
    assert ours.encode(text) == ours.encode_to_numpy(text).tolist() == theirs.encode_ordinary(text)


def test_ids_of_long_fuzz_equal_tiktokens(pair):
    ours, theirs = pair
    dice = random.Random(0)
    for _ in range(200):  # past the 64 chunks that are looked up at once, past every length that the cache keeps
        pieces = [*WORDS, *CHARACTERS, *SCRIPTS.split(), "x" * dice.randint(1, 90), "é" * dice.randint(1, 40)]
        text = "".join(dice.choices(pieces, k=400))
        assert ours.encode(text) == theirs.encode_ordinary(text)


def test_chunks_of_every_length_are_encoded_the_same_the_second_time(pair):
    ours, theirs = pair
    dice = random.Random(0)
    words = ["".join(dice.choices("abcdeé", k=n)) for n in range(1, 140) for _ in range(5)]
    for _ in range(2):
        for word in words:
            assert ours.encode(word) == theirs.encode_ordinary(word)


def test_more_distinct_chunks_than_the_cache_holds(own):
    ours, theirs = own
    dice = random.Random(0)
    words = [f"{dice.getrandbits(40):x}".translate(str.maketrans("0123456789", "ghijklmnop")) for _ in range(200_000)]
    text = " ".join(words + words[:1000])
    assert ours.encode(text) == ours.encode(text) == theirs.encode_ordinary(text)


def test_a_chunk_and_the_same_with_zeros_behind_it_are_told_apart(own):
    ours, theirs = own
    for text in ("!", "!\0", "!\0\0", "!\0\0\0\0\0\0\0", "\0", "\0\0"):
        assert ours.encode(text) == theirs.encode_ordinary(text)


@settings(max_examples=200, deadline=None)
@given(
    st.text("abc", min_size=65, max_size=300),
    st.lists(st.text("abc", min_size=2, max_size=6), max_size=12),
    st.randoms(use_true_random=False),
)
def test_long_chunks_are_cut_only_where_no_token_can_be(text, tokens, dice):
    # made-up ranks in any order, bytes included: many pairs of letters stand in no token at all
    tokens = sorted({*(bytes([i]) for i in range(256)), *(token.encode() for token in tokens)})
    dice.shuffle(tokens)
    ours, theirs = twins({token: rank for rank, token in enumerate(tokens)}, rustbpe.PATTERN)
    assert ours.encode(text) == theirs.encode_ordinary(text)


@pytest.mark.parametrize(
    "letters", ["a", " ", "\n", "=", "7", "ab", "abcdefgh", "的一是不了", "가나다라", "😉👩\u200d"]
)
def test_runs_without_a_place_to_split_equal_tiktokens(pair, letters):
    ours, theirs = pair
    dice = random.Random(0)
    for n in (63, 64, 65, 1000, 5000):
        text = "".join(dice.choices(letters, k=n))
        assert ours.encode(text) == theirs.encode_ordinary(text)


def test_a_batch_of_many_blocks_is_its_texts_one_by_one(own, corpus):
    ours, _ = own
    batch = [corpus, "", *corpus.splitlines(), ""] * 20  # some MB: each thread takes several blocks
    ids, offsets = ours.encode_batch(batch, 1)
    assert ids[: offsets[1]].tolist() == ours.encode(corpus)
    assert offsets[-1] == len(ids)
    for threads in (2, 4, 64):
        again, ends = ours.encode_batch(batch, threads)
        assert (again == ids).all() and (ends == offsets).all()
    assert [part.tolist() for part in ours.encode_batch(["", "a", ""], 8)] == [[97], [0, 0, 1, 1]]


def test_pythons_threads_may_share_one_tokenizer(own, corpus):
    ours, theirs = own
    lines = corpus.splitlines(keepends=True) + [corpus] * 5
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ours.encode, lines)) == [theirs.encode_ordinary(line) for line in lines]


def test_a_list_holds_plain_ints(own):
    ours, _ = own
    ids = ours.encode("hello world")
    assert type(ids) is list and {type(i) for i in ids} == {int}
