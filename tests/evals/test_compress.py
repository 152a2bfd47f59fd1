"""The compressor: every text comes back byte for byte, at the price of the model's own surprise, or not at all."""

import math
import random
import zlib

import pytest
import torch

from nanochat.evals import compress as packing
from nanochat.evals.coder import MOST, Decoder, Encoder
from nanochat.evals.compress import HEADER, compress, decompress, rival_sizes, token_rows
from nanochat.model import GPT, GPTConfig
from nanochat.runtime import UserError
from nanochat.tokenizer import Tokenizer

STORY = "".join(f"Ida has {n} pears and gives {n % 7} of them away; {n - n % 7} are left. " for n in range(10, 99))


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([STORY], vocab_size=280, digits=1)


def make_model(tokenizer, seed=0, dtype=torch.float32):
    config = GPTConfig(sequence_len=16, vocab_size=tokenizer.vocab_size, n_layer=2, n_head=2, n_kv_head=1, n_embd=32)
    model = GPT(config).init_weights(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # a head that has opinions: at the beginning it is zero
        model.lm_head.weight.normal_(0, 0.5, generator=generator)
    model.compute_dtype = dtype
    return model


@pytest.fixture(scope="module")
def model(tokenizer):
    return make_model(tokenizer)


def random_text(seed: int) -> str:
    r = random.Random(seed)
    alphabets = (
        "ab \n",
        "pears 0123456789",
        "äßñ漢字한글🙂👩‍🚀\u200b\x00\ufeff",
        "".join(map(chr, range(0x20000, 0x20100))),
    )
    return "".join(r.choice(r.choice(alphabets)) for _ in range(r.randrange(120)))


ODD = {"empty": b"", "one byte": b"\xff", "all bytes": bytes(range(256)), "surrogates": "\ud800".encode("utf-8", "surrogatepass"),
       "zeros": b"\0\0 pears \0", "documents": b"\0".join(bytes([n]) * n for n in range(1, 40)),
       "specials": b"<|bos|><|assistant_end|>", "cut characters": "漢字🙂".encode()[1:-1] + b"abc\x80"}  # fmt: skip
TEXTS = ODD | {f"random {seed}": random_text(seed).encode() for seed in range(12)}


@pytest.mark.parametrize("data", TEXTS.values(), ids=TEXTS)
def test_what_was_packed_comes_back(model, tokenizer, data):
    assert decompress(model, tokenizer, compress(model, tokenizer, data)) == data


@pytest.mark.parametrize("tokens", [0, 1, 14, 15, 16, 31, 32, 100])
def test_at_the_edges_of_rows_and_batches(model, tokenizer, monkeypatch, tokens):
    monkeypatch.setattr(packing, "ROWS", 2)
    data = tokenizer.decode_bytes(tokenizer.encode(STORY)[:tokens])
    assert sum(map(len, token_rows(tokenizer, data, 16))) == tokens + 1
    for documents in (1, 2, 3):
        texts = b"\0".join([data] * documents)
        assert decompress(model, tokenizer, compress(model, tokenizer, texts)) == texts


def test_in_bf16_too(tokenizer):
    model, data = make_model(tokenizer, dtype=torch.bfloat16), STORY[:300].encode()
    assert decompress(model, tokenizer, compress(model, tokenizer, data)) == data


@pytest.mark.parametrize("data", [STORY.encode(), STORY.replace(". ", ".\0").encode()], ids=["one text", "documents"])
def test_the_size_is_the_models_own_cross_entropy(model, tokenizer, data):
    bits, tokens = 0.0, 0
    for row in token_rows(tokenizer, data, model.config.sequence_len):  # each in one forward pass without a cache
        row = torch.tensor([tokenizer.bos, *row])
        bits += float(model(row[None, :-1], row[None, 1:], reduction="sum").detach()) / math.log(2)
        tokens += len(row) - 1
    size = 8 * (len(compress(model, tokenizer, data)) - HEADER.size)
    assert tokens > 1000 and size == pytest.approx(bits, rel=0.01, abs=64)


def test_a_better_model_makes_a_smaller_file(model, tokenizer):
    before = len(compress(model, tokenizer, STORY.encode()))
    ids = torch.tensor(tokenizer.encode(STORY))
    rows = ids[: len(ids) // 16 * 16].view(-1, 16)
    inputs = torch.cat((torch.full((len(rows), 1), tokenizer.bos), rows[:, :-1]), dim=1)
    learner = make_model(tokenizer)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        learner(inputs, rows).backward()
        optimizer.step()
    blob = compress(learner, tokenizer, STORY.encode())
    assert len(blob) < before / 2 and decompress(learner, tokenizer, blob) == STORY.encode()


def test_every_change_to_the_file_is_refused(model, tokenizer):
    blob = compress(model, tokenizer, STORY[:200].encode())
    for at in range(len(blob)):
        broken = bytearray(blob)
        broken[at] ^= 1 << at % 8
        with pytest.raises(UserError, match=r"decompress: (this is not|the file is damaged)"):
            decompress(model, tokenizer, bytes(broken))
    for broken in (blob[:-1], blob[:10], blob + b"\0", b"", STORY.encode()):
        with pytest.raises(UserError, match=r"decompress: (this is not|the file is damaged)"):
            decompress(model, tokenizer, broken)


def test_another_model_dtype_or_tokenizer_is_refused(model, tokenizer):
    blob = compress(model, tokenizer, b"pears")
    other = make_model(tokenizer)
    other.blocks[1].mlp.c_fc.weight.data[0, 0] += 1e-6
    letters = Tokenizer.train([STORY[::-1]], vocab_size=280, digits=1)
    for wrong in ((other, tokenizer), (make_model(tokenizer, dtype=torch.bfloat16), tokenizer), (model, letters)):
        with pytest.raises(UserError, match=f"packed with model {packing.digest(model, tokenizer).hex()}, this one is"):
            decompress(*wrong, blob)


def test_where_the_numbers_come_out_differently_nothing_wrong_is_returned(model, tokenizer, monkeypatch):
    blob, exact = compress(model, tokenizer, STORY[:200].encode()), packing.shares
    monkeypatch.setattr(packing, "shares", lambda logits: exact(1.02 * logits))
    with pytest.raises(UserError, match="predicts other numbers here"):
        decompress(model, tokenizer, blob)


def test_a_file_cut_and_sealed_again_is_refused(model, tokenizer):
    blob = compress(model, tokenizer, STORY[:200].encode())
    *head, _ = HEADER.unpack_from(blob)
    body = blob[HEADER.size : -20]
    forged = HEADER.pack(*head, zlib.crc32(HEADER.pack(*head, 0) + body)) + body
    with pytest.raises(UserError, match="predicts other numbers here"):
        decompress(model, tokenizer, forged)


@pytest.mark.parametrize("seed", range(8))
def test_the_coder_alone_reaches_the_entropy(seed):
    r = random.Random(seed)
    symbols = []
    for _ in range(r.choice((0, 1, 7, 2000))):
        total = r.choice((1, 2, 3, 1000, 1 << 24, MOST, r.randrange(1, MOST)))
        low = r.randrange(total)
        symbols.append((low, r.choice((low + 1, total, r.randrange(low + 1, total + 1))), total))
    symbols += [(1, 1 << 24, 1 << 24)] * 5000  # next to certain: thousands in a few bits
    encoder = Encoder()
    for symbol in symbols:
        encoder.encode(*symbol)
    data = encoder.finish()
    bits = sum(math.log2(total / (high - low)) for low, high, total in symbols)
    assert 8 * len(data) <= 1.01 * bits + 64
    decoder = Decoder(data)
    for low, high, total in symbols:
        assert low <= decoder.number(total) < high
        decoder.decode(low, high, total)


@pytest.mark.parametrize("share", [(3, 3, 8), (5, 4, 8), (-1, 2, 8), (0, 9, 8), (0, 1, MOST + 1)])
def test_an_impossible_share_is_an_error(share):
    with pytest.raises(ValueError, match="no share of the interval"):
        Encoder().encode(*share)


def test_the_rivals():
    sizes = rival_sizes(STORY.encode() * 20)
    assert list(sizes) == ["gzip", "xz", "zstd"] and all(0 < size < len(STORY) for size in sizes.values())
