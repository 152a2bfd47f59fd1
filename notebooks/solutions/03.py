# %% exercise: 03.causal_mask
def causal_mask(T):
    """(T, T) bool: row t, column s is True where position t may look at position s."""
    return torch.ones(T, T, dtype=torch.bool).tril()

# %% exercise: 03.attention
def attention(q, k, v, mask):
    """q (B, H, T, D), k and v (B, H, S, D), mask bool (T, S) -> (B, H, T, D)."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))     # (B, H, T, S)
    scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ v                            # weights of a query add up to 1

# %% exercise: 03.rope
def rope(x, base=10000.0):
    """x (B, T, H, D), position t in row t -> the same shape, every pair (i, i + D/2) turned clockwise."""
    T, D = x.size(1), x.size(3)
    speed = base ** (-torch.arange(0, D, 2) / D)                 # (D/2,) radians a position
    angle = torch.outer(torch.arange(T), speed)[:, None]         # (T, 1, D/2)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * angle.cos() + b * angle.sin(), b * angle.cos() - a * angle.sin()), dim=-1)

# %% exercise: 03.rms_norm
def rms_norm(x, eps=1e-6):
    """x divided by the root of its mean square over the last dimension; in fp32, dtype as the input's."""
    wide = x.float()
    return (wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt()).to(x.dtype)

# %% exercise: 03.grouped_attention
def grouped_attention(q, k, v, mask):
    """q (B, H, T, D), k and v (B, Hkv, S, D): query head h reads key/value head h // (H / Hkv)."""
    group = q.size(1) // k.size(1)
    return attention(q, k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1), mask)

# %% exercise: 03.count_params
def count_params(config):
    """All weights of GPT(config)."""
    C, kv = config.n_embd, config.n_kv_head * config.head_dim
    block = C * C + 2 * C * kv + C * C + 8 * C * C               # queries, keys and values, output, MLP
    return 2 * config.vocab_size * C + config.n_layer * block
