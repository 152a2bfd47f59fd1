# %% exercise: 01.pair_counts
def pair_counts(ids):
    """How often each two neighbours of `ids` occur: a Counter {(a, b): count}."""
    return Counter(pairwise(ids))

# %% exercise: 01.merge
def merge(ids, pair, new):
    """A copy of `ids` with each `pair`, from left to right without overlap, replaced by `new`."""
    merged, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged

# %% exercise: 01.encode
def encode(text, merges):
    """The ids of `text`: its bytes, merged in the order in which the merges were learned."""
    ids = list(text.encode("utf-8"))
    while len(ids) > 1:
        pair = min(pairwise(ids), key=lambda pair: merges.get(pair, float("inf")))
        if pair not in merges:
            break
        ids = merge(ids, pair, merges[pair])
    return ids

# %% exercise: 01.decode
def decode(ids, vocab):
    """The text of `ids`; bytes that are not UTF-8 become U+FFFD."""
    return b"".join(vocab[i] for i in ids).decode("utf-8", errors="replace")

# %% exercise: 01.split
split_pattern = r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# %% exercise: 01.merge_below
def merge_below(ranks, token, rank):
    """The parts of `token` when only ranks below `rank` may merge: a list of bytes."""
    parts = [bytes([byte]) for byte in token]
    while True:
        found = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
        lowest = min(found, default=rank)
        if lowest >= rank:
            return parts
        i = found.index(lowest)
        parts[i:i + 2] = [parts[i] + parts[i + 1]]
