# %% exercise: 02.count_chunks  mutant: joins_texts  killed_by: keeps_texts_apart
def count_chunks(texts, pattern):
    return Counter(chunk.encode("utf-8") for chunk in regex.findall(pattern, "".join(texts)))

# %% exercise: 02.count_chunks  mutant: once_a_text  killed_by: counts_the_chunks_of_the_example
def count_chunks(texts, pattern):
    counts = Counter()
    for text in texts:
        for chunk in set(regex.findall(pattern, text)):
            counts[chunk.encode("utf-8")] = 1
    return counts

# %% exercise: 02.count_chunks  mutant: strings  killed_by: makes_bytes
def count_chunks(texts, pattern):
    counts = Counter()
    for text in texts:
        counts.update(regex.findall(pattern, text))
    return counts

# %% exercise: 02.count_chunks  mutant: collects_first  killed_by: reads_one_text_at_a_time
def count_chunks(texts, pattern):
    counts = Counter()
    for text in list(texts):
        counts.update(chunk.encode("utf-8") for chunk in regex.findall(pattern, text))
    return counts

# %% exercise: 02.apply_merge  mutant: forgets_times  killed_by: weighs_words_by_their_times
def apply_merge(words, times, counts, where, pair, new):
    fresh = set()
    for number in where.pop(pair):
        for old in pairwise(words[number]):
            counts[old] -= 1
        words[number] = merge(words[number], pair, new)
        for now in pairwise(words[number]):
            counts[now] += 1
            where[now].add(number)
            if new in now:
                fresh.add(now)
    return fresh

# %% exercise: 02.apply_merge  mutant: forgets_places  killed_by: knows_where_every_pair_is
def apply_merge(words, times, counts, where, pair, new):
    fresh = set()
    for number in where.pop(pair):
        for old in pairwise(words[number]):
            counts[old] -= times[number]
        words[number] = merge(words[number], pair, new)
        for now in pairwise(words[number]):
            counts[now] += times[number]
            if new in now:
                fresh.add(now)
    return fresh

# %% exercise: 02.apply_merge  mutant: walks_all_words  killed_by: touches_only_words_with_the_pair
def apply_merge(words, times, counts, where, pair, new):
    words[:] = [merge(ids, pair, new) for ids in words]
    counts.clear()
    where.clear()
    for number, ids in enumerate(words):
        for now in pairwise(ids):
            counts[now] += times[number]
            where[now].add(number)
    return {now for now in counts if new in now}

# %% exercise: 02.apply_merge  mutant: old_counts_stay  killed_by: keeps_counts_exact
def apply_merge(words, times, counts, where, pair, new):
    fresh = set()
    for number in where.pop(pair):
        words[number] = merge(words[number], pair, new)
        for now in pairwise(words[number]):
            if new in now:
                counts[now] += times[number]
                where[now].add(number)
                fresh.add(now)
    counts[pair] = 0
    return fresh

# %% exercise: 02.apply_merge  mutant: returns_all_pairs  killed_by: returns_the_new_pairs
def apply_merge(words, times, counts, where, pair, new):
    fresh = set()
    for number in where.pop(pair):
        for old in pairwise(words[number]):
            counts[old] -= times[number]
        words[number] = merge(words[number], pair, new)
        for now in pairwise(words[number]):
            counts[now] += times[number]
            where[now].add(number)
            fresh.add(now)
    return fresh

# %% exercise: 02.pop_best  mutant: trusts_the_front  killed_by: pops_the_example
def pop_best(heap, counts):
    return heapq.heappop(heap)[1] if heap else None

# %% exercise: 02.pop_best  mutant: drops_outdated  killed_by: gives_all_in_order_while_counts_fall
def pop_best(heap, counts):
    while heap:
        negative, pair = heapq.heappop(heap)
        if counts.get(pair, 0) == -negative and negative:
            return pair
    return None

# %% exercise: 02.pop_best  mutant: returns_dead_pairs  killed_by: drops_pairs_that_are_gone
def pop_best(heap, counts):
    while heap:
        negative, pair = heapq.heappop(heap)
        now = counts.get(pair, 0)
        if now == -negative:
            return pair
        heapq.heappush(heap, (-now, pair))
    return None

# %% exercise: 02.pop_best  mutant: searches_all  killed_by: looks_only_at_the_front
def pop_best(heap, counts):
    alive = [(-counts[pair], pair) for _, pair in heap if counts.get(pair, 0) > 0]
    if not alive:
        return None
    heap[:] = alive
    heapq.heapify(heap)
    return heapq.heappop(heap)[1]

# %% exercise: 02.bytes_per_token  mutant: characters  killed_by: counts_bytes_not_characters
def bytes_per_token(tokenizer, texts):
    pairs = [(len(text), len(tokenizer.encode(text))) for text in texts]
    return sum(size for size, _ in pairs) / sum(tokens for _, tokens in pairs)

# %% exercise: 02.bytes_per_token  mutant: mean_of_ratios  killed_by: weighs_every_token_alike
def bytes_per_token(tokenizer, texts):
    return float(np.mean([len(text.encode()) / len(tokenizer.encode(text)) for text in texts]))

# %% exercise: 02.bytes_per_token  mutant: tokens_per_byte  killed_by: divides_bytes_by_tokens
def bytes_per_token(tokenizer, texts):
    size = tokens = 0
    for text in texts:
        size += len(text.encode("utf-8"))
        tokens += len(tokenizer.encode(text))
    return tokens / size

# %% exercise: 02.bytes_per_token  mutant: walks_twice  killed_by: takes_any_iterable
def bytes_per_token(tokenizer, texts):
    size = sum(len(text.encode("utf-8")) for text in texts)
    return size / max(1, sum(len(tokenizer.encode(text)) for text in texts))

# %% exercise: 02.render_conversation  mutant: user_in_the_loss  killed_by: learns_what_the_assistant_says
def render_conversation(tokenizer, conversation):
    special = tokenizer.special
    ids, mask = [special["<|bos|>"]], [0]
    for message in conversation["messages"]:
        role, content = message["role"], message["content"]
        ids.append(special[f"<|{role}_start|>"])
        mask.append(0)
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            tokens = tokenizer.encode(part["text"])
            brackets = {"python": "python", "python_output": "output"}.get(part["type"])
            if brackets:
                tokens = [special[f"<|{brackets}_start|>"], *tokens, special[f"<|{brackets}_end|>"]]
            ids += tokens
            mask += [int(part["type"] != "python_output")] * len(tokens)
        ids.append(special[f"<|{role}_end|>"])
        mask.append(int(role == "assistant"))
    return ids, mask

# %% exercise: 02.render_conversation  mutant: never_learns_to_stop  killed_by: learns_to_end_its_turn
def render_conversation(tokenizer, conversation):
    special = tokenizer.special
    ids, mask = [special["<|bos|>"]], [0]
    for message in conversation["messages"]:
        role, content = message["role"], message["content"]
        own = int(role == "assistant")
        ids.append(special[f"<|{role}_start|>"])
        mask.append(0)
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            tokens = tokenizer.encode(part["text"])
            brackets = {"python": "python", "python_output": "output"}.get(part["type"])
            if brackets:
                tokens = [special[f"<|{brackets}_start|>"], *tokens, special[f"<|{brackets}_end|>"]]
            ids += tokens
            mask += [own * (part["type"] != "python_output")] * len(tokens)
        ids.append(special[f"<|{role}_end|>"])
        mask.append(0)
    return ids, mask

# %% exercise: 02.render_conversation  mutant: off_by_one  killed_by: is_given_its_openings
def render_conversation(tokenizer, conversation):
    special = tokenizer.special
    ids, mask = [special["<|bos|>"]], [0]
    for message in conversation["messages"]:
        role, content = message["role"], message["content"]
        own = int(role == "assistant")
        tokens = [special[f"<|{role}_start|>"]]
        learn = [0]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            piece = tokenizer.encode(part["text"])
            brackets = {"python": "python", "python_output": "output"}.get(part["type"])
            if brackets:
                piece = [special[f"<|{brackets}_start|>"], *piece, special[f"<|{brackets}_end|>"]]
            tokens += piece
            learn += [own * (part["type"] != "python_output")] * len(piece)
        ids += [*tokens, special[f"<|{role}_end|>"]]
        mask += [*learn, own]
    return ids, mask[1:] + [0]

# %% exercise: 02.render_conversation  mutant: output_in_the_loss  killed_by: does_not_learn_what_python_answers
def render_conversation(tokenizer, conversation):
    special = tokenizer.special
    ids, mask = [special["<|bos|>"]], [0]
    for message in conversation["messages"]:
        role, content = message["role"], message["content"]
        own = int(role == "assistant")
        ids.append(special[f"<|{role}_start|>"])
        mask.append(0)
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            tokens = tokenizer.encode(part["text"])
            brackets = {"python": "python", "python_output": "output"}.get(part["type"])
            if brackets:
                tokens = [special[f"<|{brackets}_start|>"], *tokens, special[f"<|{brackets}_end|>"]]
            ids += tokens
            mask += [own] * len(tokens)
        ids.append(special[f"<|{role}_end|>"])
        mask.append(own)
    return ids, mask

# %% exercise: 02.render_conversation  mutant: one_string  killed_by: lets_no_text_open_a_turn
def render_conversation(tokenizer, conversation):
    special = tokenizer.special
    ids, mask = [special["<|bos|>"]], [0]
    for message in conversation["messages"]:
        role, content = message["role"], message["content"]
        own = int(role == "assistant")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "".join({"text": "{}", "python": "<|python_start|>{}<|python_end|>",
                        "python_output": "<|output_start|>{}<|output_end|>"}[part["type"]].format(part["text"])
                       for part in parts)
        writing, tool = own, False
        for piece in regex.split(r"(<\|\w+\|>)", f"<|{role}_start|>{text}<|{role}_end|>"):
            tool = tool or piece == "<|output_start|>"
            tokens = [special[piece]] if piece in special else tokenizer.encode(piece)
            ids += tokens
            mask += [0 if tool or piece.endswith(f"{role}_start|>") else writing] * len(tokens)
            tool = tool and piece != "<|output_end|>"
    return ids, mask
