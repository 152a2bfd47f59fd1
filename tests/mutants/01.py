# %% exercise: 01.pair_counts  mutant: every_other_pair  killed_by: counts_overlapping_pairs
def pair_counts(ids):
    return Counter(zip(ids[::2], ids[1::2]))

# %% exercise: 01.pair_counts  mutant: forgets_order  killed_by: keeps_the_order_of_a_pair
def pair_counts(ids):
    return Counter(tuple(sorted(pair)) for pair in pairwise(ids))

# %% exercise: 01.pair_counts  mutant: misses_the_last  killed_by: counts_like_a_slow_search
def pair_counts(ids):
    return Counter((ids[i], ids[i + 1]) for i in range(len(ids) - 2))

# %% exercise: 01.merge  mutant: in_place  killed_by: leaves_input_alone
def merge(ids, pair, new):
    i = 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            ids[i:i + 2] = [new]
        i += 1
    return ids

# %% exercise: 01.merge  mutant: overlaps  killed_by: does_not_overlap
def merge(ids, pair, new):
    merged, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            merged.append(new)
        else:
            merged.append(ids[i])
        i += 1
    return merged

# %% exercise: 01.merge  mutant: loses_the_last  killed_by: keeps_what_it_does_not_merge
def merge(ids, pair, new):
    merged, i = [], 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged

# %% exercise: 01.encode  mutant: greedy_longest  killed_by: merges_earliest_first
def encode(text, merges):
    tokens = {i: bytes([i]) for i in range(256)}
    for (a, b), new in merges.items():
        tokens[new] = tokens[a] + tokens[b]
    known = {token: i for i, token in tokens.items()}
    data, ids, at = text.encode("utf-8"), [], 0
    longest = max(map(len, known))
    while at < len(data):
        piece = next(data[at:at + n] for n in range(longest, 0, -1) if data[at:at + n] in known)
        ids.append(known[piece])
        at += len(piece)
    return ids

# %% exercise: 01.encode  mutant: leftmost_pair  killed_by: merges_earliest_first_wherever_it_is
def encode(text, merges):
    ids = list(text.encode("utf-8"))
    while found := [pair for pair in pairwise(ids) if pair in merges]:
        ids = merge(ids, found[0], merges[found[0]])
    return ids

# %% exercise: 01.encode  mutant: code_points  killed_by: encodes_bytes_not_characters
def encode(text, merges):
    ids = [ord(character) for character in text]
    for pair, new in merges.items():
        ids = merge(ids, pair, new)
    return ids

# %% exercise: 01.encode  mutant: one_round  killed_by: goes_on_until_nothing_merges
def encode(text, merges):
    ids = list(text.encode("utf-8"))
    for pair in sorted(set(pairwise(ids)) & set(merges), key=merges.get):
        ids = merge(ids, pair, merges[pair])
    return ids

# %% exercise: 01.decode  mutant: token_by_token  killed_by: joins_before_it_decodes
def decode(ids, vocab):
    return "".join(vocab[i].decode("utf-8", errors="replace") for i in ids)

# %% exercise: 01.decode  mutant: strict  killed_by: never_raises_for_bytes
def decode(ids, vocab):
    return b"".join(vocab[i] for i in ids).decode("utf-8")

# %% exercise: 01.decode  mutant: drops_bad_bytes  killed_by: never_raises_for_bytes
def decode(ids, vocab):
    return b"".join(vocab[i] for i in ids).decode("utf-8", errors="ignore")

# %% exercise: 01.decode  mutant: bytes_only  killed_by: uses_the_vocabulary
def decode(ids, vocab):
    return bytes(i for i in ids if i < 256).decode("utf-8", errors="replace")

# %% exercise: 01.split  mutant: greedy_blanks  killed_by: gives_the_last_blank_away
split_pattern = r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"

# %% exercise: 01.split  mutant: whole_numbers  killed_by: cuts_numbers_in_threes
split_pattern = r" ?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# %% exercise: 01.split  mutant: ascii_letters  killed_by: knows_every_script
split_pattern = r" ?[A-Za-z]+|[0-9]{1,3}| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+"

# %% exercise: 01.split  mutant: any_white_space_leads  killed_by: keeps_words_whole
split_pattern = r"\s?\p{L}+|\p{N}{1,3}|\s?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# %% exercise: 01.split  mutant: drops_blanks  killed_by: loses_nothing
split_pattern = r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+"

# %% exercise: 01.merge_below  mutant: every_rank  killed_by: uses_lower_ranks_only
def merge_below(ranks, token, rank):
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        found = [ranks.get(a + b, float("inf")) for a, b in pairwise(parts)]
        lowest = min(found)
        if lowest == float("inf"):
            break
        i = found.index(lowest)
        parts[i:i + 2] = [parts[i] + parts[i + 1]]
    return parts

# %% exercise: 01.merge_below  mutant: leftmost_place  killed_by: merges_the_lowest_rank_first
def merge_below(ranks, token, rank):
    parts = [bytes([byte]) for byte in token]
    while True:
        places = [i for i, (a, b) in enumerate(pairwise(parts)) if ranks.get(a + b, rank) < rank]
        if not places:
            return parts
        i = places[0]
        parts[i:i + 2] = [parts[i] + parts[i + 1]]

# %% exercise: 01.merge_below  mutant: any_two_tokens  killed_by: merges_the_lowest_rank_first
def merge_below(ranks, token, rank):
    if ranks.get(token, rank) < rank:
        return [token]
    for cut in range(len(token) - 1, 0, -1):
        if max(ranks.get(token[:cut], rank), ranks.get(token[cut:], rank)) < rank:
            return [token[:cut], token[cut:]]
    return [bytes([byte]) for byte in token]
