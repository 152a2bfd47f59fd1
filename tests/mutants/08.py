# %% exercise: 08.kv_step  mutant: query_one_ahead  killed_by: equals_reading_it_all
def kv_step(q, k, v, keys, values, length, turn):
    keys[:, length], values[:, length] = turn(k, length), v
    S = length + 1
    scores = (keys[:, :S] @ turn(q, length + 1).unsqueeze(-1)).squeeze(-1) / q.size(-1) ** 0.5
    return (scores.softmax(-1).unsqueeze(1) @ values[:, :S]).squeeze(1)

# %% exercise: 08.kv_step  mutant: positions_from_one  killed_by: stores_turned_keys_in_its_slot
def kv_step(q, k, v, keys, values, length, turn):
    keys[:, length], values[:, length] = turn(k, length + 1), v
    S = length + 1
    scores = (keys[:, :S] @ turn(q, length + 1).unsqueeze(-1)).squeeze(-1) / q.size(-1) ** 0.5
    return (scores.softmax(-1).unsqueeze(1) @ values[:, :S]).squeeze(1)

# %% exercise: 08.kv_step  mutant: sees_every_slot  killed_by: sees_no_later_slot
def kv_step(q, k, v, keys, values, length, turn):
    keys[:, length], values[:, length] = turn(k, length), v
    scores = (keys @ turn(q, length).unsqueeze(-1)).squeeze(-1) / q.size(-1) ** 0.5
    return (scores.softmax(-1).unsqueeze(1) @ values).squeeze(1)

# %% exercise: 08.kv_step  mutant: blind_to_itself  killed_by: equals_reading_it_all
def kv_step(q, k, v, keys, values, length, turn):
    keys[:, length], values[:, length] = turn(k, length), v
    S = max(length, 1)
    scores = (keys[:, :S] @ turn(q, length).unsqueeze(-1)).squeeze(-1) / q.size(-1) ** 0.5
    return (scores.softmax(-1).unsqueeze(1) @ values[:, :S]).squeeze(1)

# %% exercise: 08.kv_step  mutant: forgets_to_turn_the_key  killed_by: stores_turned_keys_in_its_slot
def kv_step(q, k, v, keys, values, length, turn):
    keys[:, length], values[:, length] = k, v
    S = length + 1
    scores = (keys[:, :S] @ turn(q, length).unsqueeze(-1)).squeeze(-1) / q.size(-1) ** 0.5
    return (scores.softmax(-1).unsqueeze(1) @ values[:, :S]).squeeze(1)

# %% exercise: 08.sample  mutant: multiplies_by_temperature  killed_by: divides_by_the_temperature
def sample(logits, temperature, top_k, u):
    if temperature == 0:
        return int(logits.argmax())
    logits = logits.double() * temperature
    if top_k is not None and top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], float("-inf"))
    sums = logits.softmax(-1).cumsum(-1)
    return int((sums <= u * sums[-1]).sum())

# %% exercise: 08.sample  mutant: softens_before_top_k  killed_by: softens_after_top_k
def sample(logits, temperature, top_k, u):
    if temperature == 0:
        return int(logits.argmax())
    probs = (logits.double() / temperature).softmax(-1)
    if top_k is not None and top_k < len(logits):
        probs = probs.masked_fill(probs < probs.topk(top_k).values[-1], 0.0)
    return min(int((probs.cumsum(-1) <= u).sum()), len(logits) - 1)

# %% exercise: 08.sample  mutant: zero_is_a_very_cold_temperature  killed_by: takes_the_best_at_zero
def sample(logits, temperature, top_k, u):
    logits = logits.double() / (temperature or 1.0)
    if top_k is not None and top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], float("-inf"))
    sums = logits.softmax(-1).cumsum(-1)
    return int((sums <= u * sums[-1]).sum())

# %% exercise: 08.sample  mutant: step_off_by_one  killed_by: never_draws_what_was_cut
def sample(logits, temperature, top_k, u):
    if temperature == 0:
        return int(logits.argmax())
    logits = logits.double() / temperature
    if top_k is not None and top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], float("-inf"))
    sums = logits.softmax(-1).cumsum(-1)
    return int((sums < u * sums[-1]).sum())

# %% exercise: 08.sample  mutant: trusts_top_k  killed_by: keeps_all_when_k_is_large
def sample(logits, temperature, top_k, u):
    if temperature == 0:
        return int(logits.argmax())
    logits = logits.double() / temperature
    if top_k is not None:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], float("-inf"))
    sums = logits.softmax(-1).cumsum(-1)
    return int((sums <= u * sums[-1]).sum())

# %% exercise: 08.tool_step  mutant: markers_in_the_call  killed_by: hands_over_the_call
def tool_step(state, token, tokenizer, tool):
    special = tokenizer.special
    if token == special["<|python_start|>"]:
        state["call"] = [token]
    elif token == special["<|python_end|>"] and state["call"] is not None:
        result = tool(tokenizer.decode(state["call"]))
        state["call"] = None
        if result is not None:
            state["forced"] += [special["<|output_start|>"], *tokenizer.encode(result), special["<|output_end|>"]]
    elif state["call"] is not None:
        state["call"].append(token)

# %% exercise: 08.tool_step  mutant: says_none  killed_by: forces_nothing_without_a_result
def tool_step(state, token, tokenizer, tool):
    special = tokenizer.special
    if token == special["<|python_start|>"]:
        state["call"] = []
    elif token == special["<|python_end|>"] and state["call"] is not None:
        result = str(tool(tokenizer.decode(state["call"])))
        state["call"] = None
        state["forced"] += [special["<|output_start|>"], *tokenizer.encode(result), special["<|output_end|>"]]
    elif state["call"] is not None:
        state["call"].append(token)

# %% exercise: 08.tool_step  mutant: never_closes  killed_by: begins_every_call_anew
def tool_step(state, token, tokenizer, tool):
    special = tokenizer.special
    if token == special["<|python_start|>"]:
        state["call"] = state["call"] or []
    elif token == special["<|python_end|>"] and state["call"] is not None:
        result = tool(tokenizer.decode(state["call"]))
        if result is not None:
            state["forced"] += [special["<|output_start|>"], *tokenizer.encode(result), special["<|output_end|>"]]
    elif state["call"] is not None:
        state["call"].append(token)

# %% exercise: 08.tool_step  mutant: leaves_the_output_open  killed_by: forces_the_result
def tool_step(state, token, tokenizer, tool):
    special = tokenizer.special
    if token == special["<|python_start|>"]:
        state["call"] = []
    elif token == special["<|python_end|>"] and state["call"] is not None:
        result = tool(tokenizer.decode(state["call"]))
        state["call"] = None
        if result is not None:
            state["forced"] += [special["<|output_start|>"], *tokenizer.encode(result)]
    elif state["call"] is not None:
        state["call"].append(token)

# %% exercise: 08.tool_step  mutant: any_end_calls  killed_by: ignores_an_end_without_a_start
def tool_step(state, token, tokenizer, tool):
    special = tokenizer.special
    if token == special["<|python_start|>"]:
        state["call"] = []
    elif token == special["<|python_end|>"]:
        result = tool(tokenizer.decode(state["call"] or []))
        state["call"] = None
        if result is not None:
            state["forced"] += [special["<|output_start|>"], *tokenizer.encode(result), special["<|output_end|>"]]
    elif state["call"] is not None:
        state["call"].append(token)

# %% exercise: 08.quantize  mutant: one_scale  killed_by: rows_have_their_own_scale
def quantize(weight, bits=8):
    scale = (weight.abs().max() / (2 ** (bits - 1) - 1)).expand(len(weight), 1)
    return (weight / scale).round().to(torch.int8), scale

# %% exercise: 08.quantize  mutant: cuts_off  killed_by: rounds_to_the_nearest
def quantize(weight, bits=8):
    scale = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
    scale = scale.masked_fill(scale == 0, 1.0)
    return (weight / scale).to(torch.int8), scale

# %% exercise: 08.quantize  mutant: overflows  killed_by: largest_is_exact
def quantize(weight, bits=8):
    scale = weight.abs().amax(dim=1, keepdim=True) / 2 ** (bits - 1)
    scale = scale.masked_fill(scale == 0, 1.0)
    return (weight / scale).round().to(torch.int8), scale

# %% exercise: 08.quantize  mutant: divides_by_zero  killed_by: zero_rows_stay_zero
def quantize(weight, bits=8):
    scale = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (weight / scale).round().to(torch.int8), scale

# %% exercise: 08.quantize  mutant: always_eight  killed_by: fewer_bits_fewer_levels
def quantize(weight, bits=8):
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    scale = scale.masked_fill(scale == 0, 1.0)
    return (weight / scale).round().to(torch.int8), scale

# %% exercise: 08.quantize  mutant: ignores_the_sign  killed_by: largest_is_exact
def quantize(weight, bits=8):
    scale = weight.amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
    scale = scale.masked_fill(scale == 0, 1.0)
    return (weight / scale).round().to(torch.int8), scale

# %% exercise: 08.accept  mutant: takes_all_that_agree  killed_by: stops_at_the_first_miss
def accept(draft, best):
    return [b for d, b in zip(draft, best) if d == b] + best[-1:]

# %% exercise: 08.accept  mutant: no_gift  killed_by: always_gains_one
def accept(draft, best):
    right = 0
    while right < len(draft) and draft[right] == best[right]:
        right += 1
    return draft[:right]

# %% exercise: 08.accept  mutant: believes_the_guesses  killed_by: writes_what_greedy_writes
def accept(draft, best):
    return draft + best[len(draft):]
