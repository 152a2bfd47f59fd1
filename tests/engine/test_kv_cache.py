"""The cache holds what attention would compute again: logits with it equal logits without it, row by row."""

import torch

from nanochat.engine import KVCache


def test_ragged_rows_see_what_they_would_see_alone(make_model):
    model = make_model(n_kv_head=1)
    texts = [torch.randint(0, 256, (n,), generator=torch.Generator().manual_seed(n)) for n in (3, 9, 1, 6)]
    cache = KVCache(model.config, rows=4, max_len=20)
    idx = torch.zeros(4, 9, dtype=torch.long)
    for row, text in zip(idx, texts):
        row[: len(text)] = text
    first = model(idx, cache=cache)                                   # prefill: (4, 9, V)
    cache.advance(torch.tensor([3, 9, 1, 6]))
    more = torch.randint(0, 256, (4, 5), generator=torch.Generator().manual_seed(0))
    steps = []
    for t in range(3):                                                # three single tokens, then two at once
        steps.append(model(more[:, t : t + 1], cache=cache))
        cache.advance(1)
    steps.append(model(more[:, 3:], cache=cache))
    later = torch.cat(steps, dim=1)                                   # (4, 5, V)
    for i, text in enumerate(texts):
        alone = model(torch.cat((text, more[i]))[None])[0]
        torch.testing.assert_close(first[i, : len(text)], alone[: len(text)], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(later[i], alone[len(text):], atol=1e-5, rtol=1e-5)


def test_taken_rows_go_on_as_the_originals_would(make_model):
    model = make_model()
    cache = KVCache(model.config, rows=2, max_len=4)
    model(torch.tensor([[1, 2, 3], [4, 5, 0]]), cache=cache)
    cache.advance(torch.tensor([3, 2]))
    copy = cache.take([1, 1, 0], max_len=30)
    assert copy.lengths.tolist() == [2, 2, 3] and cache.lengths.tolist() == [3, 2]
    logits = model(torch.tensor([[7], [8], [9]]), cache=copy)[:, 0]
    for row, ids in zip(logits, ([4, 5, 7], [4, 5, 8], [1, 2, 3, 9])):
        torch.testing.assert_close(row, model(torch.tensor([ids]))[0, -1], atol=1e-5, rtol=1e-5)


def test_garbage_in_unused_slots_is_never_seen(make_model):
    model = make_model()
    caches = [KVCache(model.config, rows=2, max_len=8) for _ in range(2)]
    for cache, junk in zip(caches, (0.0, 1e4)):
        model(torch.tensor([[1, 2, 3], [4, 0, 0]]), cache=cache)
        cache.advance(torch.tensor([3, 1]))
        cache.k[:, 1, :, 1:], cache.v[:, 1, :, 1:] = junk, junk
    a, b = (model(torch.tensor([[5], [6]]), cache=cache) for cache in caches)
    assert torch.equal(a, b)
