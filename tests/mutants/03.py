# %% exercise: 03.causal_mask  mutant: strict  killed_by: sees_itself
def causal_mask(T):
    return torch.ones(T, T, dtype=torch.bool).tril(-1)

# %% exercise: 03.causal_mask  mutant: transposed  killed_by: hides_the_future
def causal_mask(T):
    return torch.ones(T, T, dtype=torch.bool).triu()

# %% exercise: 03.causal_mask  mutant: one_too_far  killed_by: hides_the_future
def causal_mask(T):
    return torch.ones(T, T, dtype=torch.bool).tril(1)

# %% exercise: 03.causal_mask  mutant: floats  killed_by: is_boolean
def causal_mask(T):
    return torch.ones(T, T).tril()

# %% exercise: 03.attention  mutant: no_scale  killed_by: divides_by_root_d
def attention(q, k, v, mask):
    scores = (q @ k.transpose(-2, -1)).masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ v

# %% exercise: 03.attention  mutant: divides_by_d  killed_by: divides_by_root_d
def attention(q, k, v, mask):
    scores = (q @ k.transpose(-2, -1) / q.size(-1)).masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ v

# %% exercise: 03.attention  mutant: softmax_over_queries  killed_by: spreads_one_over_the_keys
def attention(q, k, v, mask):
    scores = (q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))).masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-2) @ v

# %% exercise: 03.attention  mutant: mask_after_softmax  killed_by: ignores_what_is_hidden
def attention(q, k, v, mask):
    weights = (q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))).softmax(dim=-1)
    return weights.masked_fill(~mask, 0.0) @ v

# %% exercise: 03.attention  mutant: fills_zeros  killed_by: ignores_what_is_hidden
def attention(q, k, v, mask):
    scores = (q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))).masked_fill(~mask, 0.0)
    return scores.softmax(dim=-1) @ v

# %% exercise: 03.rope  mutant: counterclockwise  killed_by: turns_clockwise
def rope(x, base=10000.0):
    T, D = x.size(1), x.size(3)
    angle = torch.outer(torch.arange(T), base ** (-torch.arange(0, D, 2) / D))[:, None]
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), dim=-1)

# %% exercise: 03.rope  mutant: positions_from_one  killed_by: leaves_the_first_position
def rope(x, base=10000.0):
    T, D = x.size(1), x.size(3)
    angle = torch.outer(torch.arange(1, T + 1), base ** (-torch.arange(0, D, 2) / D))[:, None]
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * angle.cos() + b * angle.sin(), b * angle.cos() - a * angle.sin()), dim=-1)

# %% exercise: 03.rope  mutant: neighbours_paired  killed_by: pairs_the_halves
def rope(x, base=10000.0):
    T, D = x.size(1), x.size(3)
    angle = torch.outer(torch.arange(T), base ** (-torch.arange(0, D, 2) / D))[:, None]
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * angle.cos() + b * angle.sin(), b * angle.cos() - a * angle.sin()), dim=-1).flatten(-2)

# %% exercise: 03.rope  mutant: half_the_exponent  killed_by: slows_from_pair_to_pair
def rope(x, base=10000.0):
    T, D = x.size(1), x.size(3)
    angle = torch.outer(torch.arange(T), base ** (-torch.arange(D // 2) / D))[:, None]
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * angle.cos() + b * angle.sin(), b * angle.cos() - a * angle.sin()), dim=-1)

# %% exercise: 03.rope  mutant: heads_as_positions  killed_by: equals_complex_numbers
def rope(x, base=10000.0):
    H, D = x.size(2), x.size(3)
    angle = torch.outer(torch.arange(H), base ** (-torch.arange(0, D, 2) / D))
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * angle.cos() + b * angle.sin(), b * angle.cos() - a * angle.sin()), dim=-1)

# %% exercise: 03.rms_norm  mutant: no_eps  killed_by: survives_zeros
def rms_norm(x, eps=1e-6):
    wide = x.float()
    return (wide / wide.square().mean(-1, keepdim=True).sqrt()).to(x.dtype)

# %% exercise: 03.rms_norm  mutant: whole_tensor  killed_by: treats_every_vector_alone
def rms_norm(x, eps=1e-6):
    wide = x.float()
    return (wide / (wide.square().mean() + eps).sqrt()).to(x.dtype)

# %% exercise: 03.rms_norm  mutant: layer_norm  killed_by: keeps_the_mean
def rms_norm(x, eps=1e-6):
    wide = x.float() - x.float().mean(-1, keepdim=True)
    return (wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt()).to(x.dtype)

# %% exercise: 03.rms_norm  mutant: in_half  killed_by: computes_in_fp32
def rms_norm(x, eps=1e-6):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()

# %% exercise: 03.rms_norm  mutant: eps_outside  killed_by: adds_eps_to_the_mean_square
def rms_norm(x, eps=1e-6):
    wide = x.float()
    return (wide / (wide.square().mean(-1, keepdim=True).sqrt() + eps)).to(x.dtype)

# %% exercise: 03.grouped_attention  mutant: deals_in_turn  killed_by: neighbours_share
def grouped_attention(q, k, v, mask):
    group = q.size(1) // k.size(1)
    return attention(q, k.repeat(1, group, 1, 1), v.repeat(1, group, 1, 1), mask)

# %% exercise: 03.grouped_attention  mutant: first_head_only  killed_by: neighbours_share
def grouped_attention(q, k, v, mask):
    return attention(q, k[:, :1].expand(-1, q.size(1), -1, -1), v[:, :1].expand(-1, q.size(1), -1, -1), mask)

# %% exercise: 03.grouped_attention  mutant: averages_queries  killed_by: one_key_head_serves_all
def grouped_attention(q, k, v, mask):
    group = q.size(1) // k.size(1)
    q = q.unflatten(1, (k.size(1), group)).mean(2)
    return attention(q, k, v, mask).repeat_interleave(group, dim=1)

# %% exercise: 03.grouped_attention  mutant: values_in_turn  killed_by: groups_like_loops
def grouped_attention(q, k, v, mask):
    group = q.size(1) // k.size(1)
    return attention(q, k.repeat_interleave(group, dim=1), v.repeat(1, group, 1, 1), mask)

# %% exercise: 03.count_params  mutant: tied_ends  killed_by: counts_both_ends
def count_params(config):
    C, kv = config.n_embd, config.n_kv_head * config.head_dim
    return config.vocab_size * C + config.n_layer * (10 * C * C + 2 * C * kv)

# %% exercise: 03.count_params  mutant: full_key_heads  killed_by: counts_fewer_key_heads
def count_params(config):
    C = config.n_embd
    return 2 * config.vocab_size * C + config.n_layer * 12 * C * C

# %% exercise: 03.count_params  mutant: no_output_matrix  killed_by: counts_depth_20
def count_params(config):
    C, kv = config.n_embd, config.n_kv_head * config.head_dim
    return 2 * config.vocab_size * C + config.n_layer * (9 * C * C + 2 * C * kv)

# %% exercise: 03.count_params  mutant: biases_too  killed_by: counts_like_the_model
def count_params(config):
    C, kv = config.n_embd, config.n_kv_head * config.head_dim
    return 2 * config.vocab_size * C + config.n_layer * (10 * C * C + 2 * C * kv + 7 * C + 2 * kv)
