# %% exercise: 08.kv_step
def kv_step(q, k, v, keys, values, length, turn):
    """Attention of one new token over a cache: q, k, v (H, D), keys, values (H, max_len, D) -> (H, D)."""
    keys[:, length], values[:, length] = turn(k, length), v
    S = length + 1
    scores = (keys[:, :S] @ turn(q, length).unsqueeze(-1)).squeeze(-1) / q.size(-1) ** 0.5      # (H, S)
    return (scores.softmax(-1).unsqueeze(1) @ values[:, :S]).squeeze(1)                         # (H, D)

# %% exercise: 08.sample
def sample(logits, temperature, top_k, u):
    """The id that the number u in [0, 1) stands for, of logits (V,)."""
    if temperature == 0:
        return int(logits.argmax())
    logits = logits.double() / temperature
    if top_k is not None and top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], float("-inf"))
    sums = logits.softmax(-1).cumsum(-1)
    return int((sums <= u * sums[-1]).sum())

# %% exercise: 08.tool_step
def tool_step(state, token, tokenizer, tool):
    """Tell a row's tool loop that the model chose `token`: changes `state` in place."""
    special = tokenizer.special
    if token == special["<|python_start|>"]:
        state["call"] = []
    elif token == special["<|python_end|>"] and state["call"] is not None:
        result = tool(tokenizer.decode(state["call"]))
        state["call"] = None
        if result is not None:
            state["forced"].append(special["<|output_start|>"])
            state["forced"].extend(tokenizer.encode(result))
            state["forced"].append(special["<|output_end|>"])
    elif state["call"] is not None:
        state["call"].append(token)

# %% exercise: 08.quantize
def quantize(weight, bits=8):
    """Whole numbers int8 (n_out, n_in) and a scale (n_out, 1) a row; their product is close to `weight`."""
    scale = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)      # (n_out, 1)
    scale = scale.masked_fill(scale == 0, 1.0)
    return (weight / scale).round().to(torch.int8), scale

# %% exercise: 08.accept
def accept(draft, best):
    """The ids to keep: right guesses up to the first wrong one, and the model's own choice after them."""
    right = 0
    while right < len(draft) and draft[right] == best[right]:
        right += 1
    return best[:right + 1]
