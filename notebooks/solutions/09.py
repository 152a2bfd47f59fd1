# %% exercise: 09.advantages
def advantages(rewards):
    """How much better than its group each answer did: (P, S) -> (P, S)."""
    return rewards - rewards.mean(dim=1, keepdim=True)

# %% exercise: 09.policy_loss
def policy_loss(logp, mask, advantages):
    """The loss of sampled answers: logp, mask (N, T), advantages (N,) -> a number to go down on."""
    return -(logp * mask * advantages[:, None]).sum() / mask.sum()

# %% exercise: 09.pass_at_k
def pass_at_k(n, c, k):
    """The chance that at least one of k samples is right, when c of n were."""
    return 1 - math.comb(n - c, k) / math.comb(n, k)

# %% exercise: 09.events
def events(chunks):
    """The data of each server-sent event in a stream of bytes that is cut anywhere."""
    rest, data = b"", []
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" ").decode())
            elif not line and data:
                yield "\n".join(data)
                data = []
