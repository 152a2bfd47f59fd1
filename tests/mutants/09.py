# %% exercise: 09.advantages  mutant: mean_of_the_batch  killed_by: each_group_has_its_own_mean
def advantages(rewards):
    return rewards - rewards.mean()

# %% exercise: 09.advantages  mutant: divides_by_zero  killed_by: groups_of_one_mind_teach_nothing
def advantages(rewards):
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / rewards.std(dim=1, keepdim=True)

# %% exercise: 09.advantages  mutant: divides_by_the_spread  killed_by: keeps_the_scale
def advantages(rewards):
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.std(dim=1, keepdim=True) + 1e-6)

# %% exercise: 09.advantages  mutant: in_place  killed_by: leaves_the_rewards
def advantages(rewards):
    rewards -= rewards.mean(dim=1, keepdim=True)
    return rewards

# %% exercise: 09.advantages  mutant: mean_over_questions  killed_by: subtracts_the_mean
def advantages(rewards):
    return rewards - rewards.mean(dim=0, keepdim=True)

# %% exercise: 09.policy_loss  mutant: prompt_tokens_in  killed_by: takes_no_credit_for_others
def policy_loss(logp, mask, advantages):
    return -(logp * advantages[:, None]).mean()

# %% exercise: 09.policy_loss  mutant: wrong_way_up  killed_by: lower_is_better
def policy_loss(logp, mask, advantages):
    return (logp * mask * advantages[:, None]).sum() / mask.sum()

# %% exercise: 09.policy_loss  mutant: mean_of_means  killed_by: every_token_weighs_the_same
def policy_loss(logp, mask, advantages):
    return -((logp * mask).sum(1) / mask.sum(1) * advantages).mean()

# %% exercise: 09.policy_loss  mutant: counts_the_useful_rows  killed_by: counts_tokens_of_all_rows
def policy_loss(logp, mask, advantages):
    return -(logp * mask * advantages[:, None]).sum() / mask[advantages != 0].sum()

# %% exercise: 09.policy_loss  mutant: divides_by_the_padding_too  killed_by: equals_a_slow_sum
def policy_loss(logp, mask, advantages):
    return -(logp * mask * advantages[:, None]).mean()

# %% exercise: 09.pass_at_k  mutant: with_replacement  killed_by: equals_counting_draws
def pass_at_k(n, c, k):
    return 1 - (1 - c / n) ** k

# %% exercise: 09.pass_at_k  mutant: all_of_them  killed_by: equals_counting_draws
def pass_at_k(n, c, k):
    return math.comb(c, k) / math.comb(n, k)

# %% exercise: 09.pass_at_k  mutant: factorials_of_debts  killed_by: is_sure_when_wrong_ones_run_out
def pass_at_k(n, c, k):
    f = math.factorial
    return 1 - f(n - c) * f(n - k) / (f(n) * f(n - c - k))

# %% exercise: 09.pass_at_k  mutant: first_k  killed_by: equals_counting_draws
def pass_at_k(n, c, k):
    return min(1.0, k * c / n)

# %% exercise: 09.events  mutant: a_chunk_is_an_event  killed_by: does_not_care_where_chunks_end
def events(chunks):
    for chunk in chunks:
        yield chunk.decode(errors="replace").removeprefix("data: ").rstrip("\n")

# %% exercise: 09.events  mutant: decodes_chunks  killed_by: does_not_care_where_chunks_end
def events(chunks):
    rest, data = "", []
    for chunk in chunks:
        *lines, rest = (rest + chunk.decode(errors="replace")).split("\n")
        for line in lines:
            if line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
            elif not line and data:
                yield "\n".join(data)
                data = []

# %% exercise: 09.events  mutant: strips  killed_by: keeps_the_text_as_it_is
def events(chunks):
    rest, data = b"", []
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].decode().strip())
            elif not line and data:
                yield "\n".join(data)
                data = []

# %% exercise: 09.events  mutant: a_line_is_an_event  killed_by: joins_the_lines_of_an_event
def events(chunks):
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].removeprefix(b" ").decode()

# %% exercise: 09.events  mutant: comments_are_events  killed_by: skips_what_is_no_data
def events(chunks):
    rest, data = b"", []
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                data.append(line.partition(b":")[2].removeprefix(b" ").decode())
            elif data:
                yield "\n".join(data)
                data = []

# %% exercise: 09.events  mutant: waits_for_the_end  killed_by: comes_as_it_comes
def events(chunks):
    found, data = [], []
    for line in b"".join(chunks).split(b"\n")[:-1]:
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" ").decode())
        elif not line and data:
            found.append("\n".join(data))
            data = []
    return found

# %% exercise: 09.events  mutant: keeps_the_stump  killed_by: drops_an_unfinished_event
def events(chunks):
    rest, data = b"", []
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" ").decode())
            elif not line and data:
                yield "\n".join(data)
                data = []
    if rest.startswith(b"data:"):
        yield rest[5:].removeprefix(b" ").decode()
