# %% exercise: 04.adamw_step
def adamw_step(weight, grad, state, lr, betas=(0.9, 0.95), eps=1e-8, decay=0.0):
    """One step of AdamW on `weight`, in place; `state` is an empty dict before the first step."""
    state["step"] = t = state.get("step", 0) + 1
    m = state.setdefault("m", torch.zeros_like(weight))
    v = state.setdefault("v", torch.zeros_like(weight))
    m.lerp_(grad, 1 - betas[0])                          # β₁ m + (1 - β₁) g
    v.lerp_(grad.square(), 1 - betas[1])
    weight *= 1 - lr * decay
    weight -= lr * (m / (1 - betas[0]**t)) / ((v / (1 - betas[1]**t)).sqrt() + eps)

# %% exercise: 04.newton_schulz
def newton_schulz(g, steps=5):
    """g (m, n) = U S Vᵀ -> about U Vᵀ, by products of matrices alone."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / (g.norm() + 1e-7)                            # now no singular value exceeds 1
    for _ in range(steps):
        gram = x @ x.T                                   # (m, m)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x

# %% exercise: 04.lr_schedule
def lr_scale(step, steps, warmup, flat, final):
    """The factor on every learning rate at `step` of 0 … steps - 1."""
    if step < warmup:
        return (step + 1) / warmup
    start = max(warmup, flat * steps)
    if step <= start:
        return 1.0
    return 1 + (final - 1) * (step - start) / (steps - start)

# %% exercise: 04.accumulate
def accumulate(model, inputs, targets, micro):
    """Leave the gradient of the mean loss over all counted targets, `micro` rows at a time; returns that loss."""
    model.zero_grad()
    counted, total = (targets >= 0).sum(), 0.0
    for i in range(0, len(inputs), micro):
        loss = model(inputs[i:i + micro], targets[i:i + micro], reduction="sum") / counted
        loss.backward()                                  # adds to the gradients that are there
        total += loss.item()
    return total

# %% exercise: 04.sharded_step
def sharded_step(weight, grads, states, update):
    """Each rank sums all gradients for its own rows of `weight` and updates these, with its own state."""
    run = math.ceil(len(weight) / len(grads))
    for rank, state in enumerate(states):
        own = slice(rank * run, (rank + 1) * run)
        update(weight[own], sum(grad[own] for grad in grads), state)
