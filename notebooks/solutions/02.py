# %% exercise: 02.count_chunks
def count_chunks(texts, pattern):
    """How often each chunk occurs in all `texts`: a Counter {bytes: count}."""
    counts = Counter()
    for text in texts:
        counts.update(chunk.encode("utf-8") for chunk in regex.findall(pattern, text))
    return counts

# %% exercise: 02.apply_merge
def apply_merge(words, times, counts, where, pair, new):
    """Merge `pair` in the words that hold it, keep the books exact; the set of pairs with `new` in them."""
    fresh = set()
    for number in where.pop(pair):
        for old in pairwise(words[number]):
            counts[old] -= times[number]
        words[number] = merge(words[number], pair, new)
        for now in pairwise(words[number]):
            counts[now] += times[number]
            where[now].add(number)
            if new in now:
                fresh.add(now)
    return fresh

# %% exercise: 02.pop_best
def pop_best(heap, counts):
    """The most frequent pair, taken off a heap of (-count, pair) whose counts may be out of date."""
    while heap:
        negative, pair = heapq.heappop(heap)
        now = counts.get(pair, 0)
        if now and now == -negative:
            return pair
        if now:
            heapq.heappush(heap, (-now, pair))
    return None

# %% exercise: 02.bytes_per_token
def bytes_per_token(tokenizer, texts):
    """Bytes of UTF-8 per token, over all `texts`."""
    size = tokens = 0
    for text in texts:
        size += len(text.encode("utf-8"))
        tokens += len(tokenizer.encode(text))
    return size / tokens

# %% exercise: 02.render_conversation
def render_conversation(tokenizer, conversation):
    """(ids, mask) of a conversation; mask 1 on what the assistant learns to write."""
    special = tokenizer.special
    ids, mask = [special["<|bos|>"]], [0]

    def add(tokens, trained):
        ids.extend(tokens)
        mask.extend([trained] * len(tokens))

    for message in conversation["messages"]:
        role, content = message["role"], message["content"]
        own = int(role == "assistant")
        add([special[f"<|{role}_start|>"]], 0)
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            tokens = tokenizer.encode(part["text"])
            if part["type"] == "python":
                tokens = [special["<|python_start|>"], *tokens, special["<|python_end|>"]]
            elif part["type"] == "python_output":
                tokens = [special["<|output_start|>"], *tokens, special["<|output_end|>"]]
            add(tokens, 0 if part["type"] == "python_output" else own)
        add([special[f"<|{role}_end|>"]], own)
    return ids, mask
