# %% exercise: 04.adamw_step  mutant: no_bias_correction  killed_by: first_step_is_lr_long
def adamw_step(weight, grad, state, lr, betas=(0.9, 0.95), eps=1e-8, decay=0.0):
    m = state.setdefault("m", torch.zeros_like(weight))
    v = state.setdefault("v", torch.zeros_like(weight))
    m.lerp_(grad, 1 - betas[0])
    v.lerp_(grad.square(), 1 - betas[1])
    weight *= 1 - lr * decay
    weight -= lr * m / (v.sqrt() + eps)

# %% exercise: 04.adamw_step  mutant: never_counts  killed_by: follows_plain_floats
def adamw_step(weight, grad, state, lr, betas=(0.9, 0.95), eps=1e-8, decay=0.0):
    m = state.setdefault("m", torch.zeros_like(weight))
    v = state.setdefault("v", torch.zeros_like(weight))
    m.lerp_(grad, 1 - betas[0])
    v.lerp_(grad.square(), 1 - betas[1])
    weight *= 1 - lr * decay
    weight -= lr * (m / (1 - betas[0])) / ((v / (1 - betas[1])).sqrt() + eps)

# %% exercise: 04.adamw_step  mutant: decay_in_the_gradient  killed_by: shrinks_the_weight_itself
def adamw_step(weight, grad, state, lr, betas=(0.9, 0.95), eps=1e-8, decay=0.0):
    grad = grad + decay * weight
    state["step"] = t = state.get("step", 0) + 1
    m = state.setdefault("m", torch.zeros_like(weight))
    v = state.setdefault("v", torch.zeros_like(weight))
    m.lerp_(grad, 1 - betas[0])
    v.lerp_(grad.square(), 1 - betas[1])
    weight -= lr * (m / (1 - betas[0]**t)) / ((v / (1 - betas[1]**t)).sqrt() + eps)

# %% exercise: 04.adamw_step  mutant: one_memory  killed_by: keeps_a_state_for_each_weight
memory = {}


def adamw_step(weight, grad, state, lr, betas=(0.9, 0.95), eps=1e-8, decay=0.0):
    key = tuple(weight.shape)
    state = memory.setdefault(key, {})
    state["step"] = t = state.get("step", 0) + 1
    m = state.setdefault("m", torch.zeros_like(weight))
    v = state.setdefault("v", torch.zeros_like(weight))
    m.lerp_(grad, 1 - betas[0])
    v.lerp_(grad.square(), 1 - betas[1])
    weight *= 1 - lr * decay
    weight -= lr * (m / (1 - betas[0]**t)) / ((v / (1 - betas[1]**t)).sqrt() + eps)

# %% exercise: 04.adamw_step  mutant: out_of_place  killed_by: changes_only_the_weight
def adamw_step(weight, grad, state, lr, betas=(0.9, 0.95), eps=1e-8, decay=0.0):
    state["step"] = t = state.get("step", 0) + 1
    m = state.setdefault("m", torch.zeros_like(weight))
    v = state.setdefault("v", torch.zeros_like(weight))
    m.lerp_(grad, 1 - betas[0])
    v.lerp_(grad.square(), 1 - betas[1])
    weight = weight * (1 - lr * decay)
    weight = weight - lr * (m / (1 - betas[0]**t)) / ((v / (1 - betas[1]**t)).sqrt() + eps)

# %% exercise: 04.newton_schulz  mutant: no_norm  killed_by: forgets_the_size
def newton_schulz(g, steps=5):
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x

# %% exercise: 04.newton_schulz  mutant: largest_entry  killed_by: keeps_the_directions
def newton_schulz(g, steps=5):
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / (g.abs().max() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x

# %% exercise: 04.newton_schulz  mutant: no_fifth_power  killed_by: keeps_the_directions
def newton_schulz(g, steps=5):
    x = g / (g.norm() + 1e-7)
    for _ in range(steps):
        x = 3.4445 * x - 4.7750 * x @ x.T @ x
    return x

# %% exercise: 04.newton_schulz  mutant: always_five  killed_by: takes_the_steps_asked_for
def newton_schulz(g, steps=5):
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / (g.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x

# %% exercise: 04.newton_schulz  mutant: entry_by_entry  killed_by: brings_singular_values_near_one
def newton_schulz(g, steps=5):
    x = g / (g.norm() + 1e-7)
    for _ in range(steps):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    return x

# %% exercise: 04.lr_schedule  mutant: starts_at_zero  killed_by: never_wastes_the_first_step
def lr_scale(step, steps, warmup, flat, final):
    if step < warmup:
        return step / warmup
    start = max(warmup, flat * steps)
    return 1.0 if step <= start else 1 + (final - 1) * (step - start) / (steps - start)

# %% exercise: 04.lr_schedule  mutant: needs_warm_up  killed_by: works_without_warm_up
def lr_scale(step, steps, warmup, flat, final):
    rise = min(1.0, (step + 1) / warmup)
    start = max(warmup, flat * steps)
    return rise if step <= start else 1 + (final - 1) * (step - start) / (steps - start)

# %% exercise: 04.lr_schedule  mutant: flat_of_the_rest  killed_by: counts_flat_from_the_start
def lr_scale(step, steps, warmup, flat, final):
    if step < warmup:
        return (step + 1) / warmup
    start = warmup + flat * (steps - warmup)
    return 1.0 if step <= start else 1 + (final - 1) * (step - start) / (steps - start)

# %% exercise: 04.lr_schedule  mutant: arrives_too_early  killed_by: gives_the_example
def lr_scale(step, steps, warmup, flat, final):
    if step < warmup:
        return (step + 1) / warmup
    start = max(warmup, flat * steps)
    return 1.0 if step <= start else 1 + (final - 1) * (step - start) / (steps - 1 - start)

# %% exercise: 04.accumulate  mutant: sum_not_mean  killed_by: equals_one_big_batch
def accumulate(model, inputs, targets, micro):
    model.zero_grad()
    total = 0.0
    for i in range(0, len(inputs), micro):
        loss = model(inputs[i:i + micro], targets[i:i + micro], reduction="sum")
        loss.backward()
        total += loss.item()
    return total / int((targets >= 0).sum())

# %% exercise: 04.accumulate  mutant: mean_of_means  killed_by: weighs_targets_not_pieces
def accumulate(model, inputs, targets, micro):
    model.zero_grad()
    total, pieces = 0.0, math.ceil(len(inputs) / micro)
    for i in range(0, len(inputs), micro):
        loss = model(inputs[i:i + micro], targets[i:i + micro]) / pieces
        loss.backward()
        total += loss.item()
    return total

# %% exercise: 04.accumulate  mutant: no_zero_grad  killed_by: forgets_old_gradients
def accumulate(model, inputs, targets, micro):
    counted, total = (targets >= 0).sum(), 0.0
    for i in range(0, len(inputs), micro):
        loss = model(inputs[i:i + micro], targets[i:i + micro], reduction="sum") / counted
        loss.backward()
        total += loss.item()
    return total

# %% exercise: 04.accumulate  mutant: drops_the_rest  killed_by: takes_the_last_rows_too
def accumulate(model, inputs, targets, micro):
    model.zero_grad()
    counted, total = (targets >= 0).sum(), 0.0
    for i in range(len(inputs) // micro):
        piece = slice(i * micro, (i + 1) * micro)
        loss = model(inputs[piece], targets[piece], reduction="sum") / counted
        loss.backward()
        total += loss.item()
    return total

# %% exercise: 04.accumulate  mutant: all_at_once  killed_by: never_sees_more_than_micro
def accumulate(model, inputs, targets, micro):
    model.zero_grad()
    loss = model(inputs, targets)
    loss.backward()
    return loss.item()

# %% exercise: 04.sharded_step  mutant: averages  killed_by: sums_over_ranks
def sharded_step(weight, grads, states, update):
    run = math.ceil(len(weight) / len(grads))
    for rank, state in enumerate(states):
        own = slice(rank * run, (rank + 1) * run)
        update(weight[own], sum(grad[own] for grad in grads) / len(grads), state)

# %% exercise: 04.sharded_step  mutant: own_gradient_only  killed_by: equals_one_process
def sharded_step(weight, grads, states, update):
    run = math.ceil(len(weight) / len(grads))
    for rank, (grad, state) in enumerate(zip(grads, states)):
        own = slice(rank * run, (rank + 1) * run)
        update(weight[own], grad[own], state)

# %% exercise: 04.sharded_step  mutant: drops_the_rest  killed_by: leaves_no_row_out
def sharded_step(weight, grads, states, update):
    run = len(weight) // len(grads)
    for rank, state in enumerate(states):
        own = slice(rank * run, (rank + 1) * run)
        update(weight[own], sum(grad[own] for grad in grads), state)

# %% exercise: 04.sharded_step  mutant: everyone_does_everything  killed_by: splits_the_state
def sharded_step(weight, grads, states, update):
    copies = [weight.clone() for _ in states]
    for copy, state in zip(copies, states):
        update(copy, sum(grads), state)
    weight.copy_(copies[0])
