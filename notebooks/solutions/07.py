# %% exercise: 07.masked_loss
def masked_loss(logits, targets):
    """Mean of -log p(target) over the positions whose target is not -1."""
    counts = targets >= 0
    log_probs = logits[counts].log_softmax(-1)                   # (N, V)
    wanted = targets[counts]                                     # (N,)
    return -log_probs[torch.arange(len(wanted), device=wanted.device), wanted].mean()

# %% exercise: 07.wilson
def wilson(correct, n, z=1.96):
    """(low, high): the rates for which `correct` of `n` is no surprise."""
    if n == 0:
        return 0.0, 1.0
    p, scale = correct / n, 1 + z * z / n
    middle = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)

# %% exercise: 07.choose_letters
def choose_letters(logits, lengths, letter_ids):
    """For each prompt the place of the letter with the largest logit behind its last token."""
    chosen = []
    for b, ids in enumerate(letter_ids):
        letters = logits[b, lengths[b] - 1, ids]                 # (letters,)
        chosen.append(int(letters.argmax()))
    return chosen

# %% exercise: 07.extract_answer
def extract_answer(text):
    """The final number of an answer as a string without commas, or None."""
    number = r"-?\d[\d,]*(?:\.\d+)?"
    _, mark, behind = text.rpartition("####")
    marked = re.search(number, behind) if mark else None
    if marked:
        return marked[0].replace(",", "")
    numbers = re.findall(number, text)
    return numbers[-1].replace(",", "") if numbers else None

# %% exercise: 07.plain
def plain(value):
    """Is this None, a bool, int, float or str, or a list, tuple or dict of such, in exact types?"""
    kind = type(value)
    if kind is dict:
        return all(plain(part) for pair in value.items() for part in pair)
    if kind is list or kind is tuple:
        return all(plain(part) for part in value)
    return any(kind is single for single in (type(None), bool, int, float, str))

# %% exercise: 07.centered
def centered(accuracy, chance):
    """The accuracy where guessing is 0 and all right is 1."""
    return (accuracy - chance) / (1 - chance)

# %% exercise: 07.preference_loss
def preference_loss(chosen, rejected):
    """Mean of -log sigmoid(chosen - rejected) over N comparisons; (N,) each."""
    return -torch.nn.functional.logsigmoid(chosen - rejected).mean()
