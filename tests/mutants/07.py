# %% exercise: 07.masked_loss  mutant: mean_over_all  killed_by: divides_by_what_counts
def masked_loss(logits, targets):
    log_probs = logits.log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return -(log_probs * (targets >= 0)).mean()

# %% exercise: 07.masked_loss  mutant: mean_of_rows  killed_by: weighs_tokens_not_rows
def masked_loss(logits, targets):
    counts = targets >= 0
    log_probs = logits.log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return -((log_probs * counts).sum(-1) / counts.sum(-1)).mean()

# %% exercise: 07.masked_loss  mutant: ignores_the_mask  killed_by: minus_one_is_no_column
def masked_loss(logits, targets):
    B, T, V = logits.shape
    log_probs = logits.log_softmax(-1).view(B * T, V)
    return -log_probs[torch.arange(B * T), targets.flatten()].mean()

# %% exercise: 07.masked_loss  mutant: exp_first  killed_by: survives_large_logits
def masked_loss(logits, targets):
    counts = targets >= 0
    weights = logits[counts].exp()
    probs = weights / weights.sum(-1, keepdim=True)
    return -probs[torch.arange(len(probs)), targets[counts]].log().mean()

# %% exercise: 07.masked_loss  mutant: sum  killed_by: averages_what_counts
def masked_loss(logits, targets):
    counts = targets >= 0
    log_probs = logits[counts].log_softmax(-1)
    return -log_probs[torch.arange(len(log_probs)), targets[counts]].sum()

# %% exercise: 07.masked_loss  mutant: plain_number  killed_by: lets_gradients_through
def masked_loss(logits, targets):
    counts = targets >= 0
    log_probs = logits[counts].log_softmax(-1)
    return -log_probs[torch.arange(len(log_probs)), targets[counts]].mean().item()

# %% exercise: 07.wilson  mutant: plus_minus  killed_by: doubts_at_the_ends
def wilson(correct, n, z=1.96):
    if n == 0:
        return 0.0, 1.0
    p = correct / n
    half = z * math.sqrt(p * (1 - p) / n)
    return max(0.0, p - half), min(1.0, p + half)

# %% exercise: 07.wilson  mutant: divides_by_zero  killed_by: knows_nothing_without_items
def wilson(correct, n, z=1.96):
    p, scale = correct / n, 1 + z * z / n
    middle = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)

# %% exercise: 07.wilson  mutant: half_not_scaled  killed_by: solves_its_equation
def wilson(correct, n, z=1.96):
    if n == 0:
        return 0.0, 1.0
    p, scale = correct / n, 1 + z * z / n
    middle = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)

# %% exercise: 07.wilson  mutant: forgets_the_root  killed_by: narrows_with_items
def wilson(correct, n, z=1.96):
    if n == 0:
        return 0.0, 1.0
    p, scale = correct / n, 1 + z * z / n
    middle = (p + z * z / (2 * n)) / scale
    half = z * (p * (1 - p) / n + z * z / (4 * n * n)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)

# %% exercise: 07.choose_letters  mutant: last_column  killed_by: reads_behind_the_last_token
def choose_letters(logits, lengths, letter_ids):
    return [int(logits[b, -1, ids].argmax()) for b, ids in enumerate(letter_ids)]

# %% exercise: 07.choose_letters  mutant: one_too_far  killed_by: reads_behind_the_last_token
def choose_letters(logits, lengths, letter_ids):
    T = logits.shape[1]
    return [int(logits[b, min(lengths[b], T - 1), ids].argmax()) for b, ids in enumerate(letter_ids)]

# %% exercise: 07.choose_letters  mutant: whole_vocabulary  killed_by: compares_letters_only
def choose_letters(logits, lengths, letter_ids):
    chosen = []
    for b, ids in enumerate(letter_ids):
        best = int(logits[b, lengths[b] - 1].argmax())
        chosen.append(ids.index(best) if best in ids else 0)
    return chosen

# %% exercise: 07.choose_letters  mutant: ids_not_places  killed_by: returns_places_not_ids
def choose_letters(logits, lengths, letter_ids):
    return [ids[int(logits[b, lengths[b] - 1, ids].argmax())] for b, ids in enumerate(letter_ids)]

# %% exercise: 07.choose_letters  mutant: first_prompts_letters  killed_by: returns_places_not_ids
def choose_letters(logits, lengths, letter_ids):
    return [int(logits[b, lengths[b] - 1, letter_ids[0]].argmax()) for b in range(len(letter_ids))]

# %% exercise: 07.extract_answer  mutant: keeps_commas  killed_by: drops_commas
def extract_answer(text):
    number = r"-?\d[\d,]*(?:\.\d+)?"
    _, mark, behind = text.rpartition("####")
    found = re.findall(number, behind)[:1] if mark else []
    found = found or re.findall(number, text)[-1:]
    return found[0] if found else None

# %% exercise: 07.extract_answer  mutant: trailing_period  killed_by: drops_a_final_period
def extract_answer(text):
    number = r"-?\d[\d,.]*"
    _, mark, behind = text.rpartition("####")
    found = re.findall(number, behind)[:1] if mark else []
    found = found or re.findall(number, text)[-1:]
    return found[0].replace(",", "") if found else None

# %% exercise: 07.extract_answer  mutant: only_with_a_mark  killed_by: takes_the_last_number_without_a_mark
def extract_answer(text):
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text.rpartition("####")[2]) if "####" in text else []
    return found[0].replace(",", "") if found else None

# %% exercise: 07.extract_answer  mutant: always_the_last_number  killed_by: finds_the_marked_number
def extract_answer(text):
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    return found[-1].replace(",", "") if found else None

# %% exercise: 07.extract_answer  mutant: first_mark  killed_by: uses_the_last_mark
def extract_answer(text):
    number = r"-?\d[\d,]*(?:\.\d+)?"
    _, mark, behind = text.partition("####")
    found = re.findall(number, behind)[:1] if mark else []
    found = found or re.findall(number, text)[-1:]
    return found[0].replace(",", "") if found else None

# %% exercise: 07.extract_answer  mutant: digits_only  killed_by: keeps_decimals_and_signs
def extract_answer(text):
    _, mark, behind = text.rpartition("####")
    found = re.findall(r"\d[\d,]*", behind)[:1] if mark else []
    found = found or re.findall(r"\d[\d,]*", text)[-1:]
    return found[0].replace(",", "") if found else None

# %% exercise: 07.plain  mutant: isinstance  killed_by: knows_subclasses
def plain(value):
    if isinstance(value, dict):
        return all(plain(part) for pair in value.items() for part in pair)
    if isinstance(value, (list, tuple)):
        return all(plain(part) for part in value)
    return value is None or isinstance(value, (bool, int, float, str))

# %% exercise: 07.plain  mutant: believes_its_class  killed_by: asks_nothing
def plain(value):
    kind = value.__class__
    if kind is dict:
        return all(plain(part) for pair in value.items() for part in pair)
    if kind is list or kind is tuple:
        return all(plain(part) for part in value)
    return kind in (type(None), bool, int, float, str)

# %% exercise: 07.plain  mutant: compares_with_none  killed_by: asks_nothing
def plain(value):
    kind = type(value)
    if kind is dict:
        return all(plain(part) for pair in value.items() for part in pair)
    if kind is list or kind is tuple:
        return all(plain(part) for part in value)
    return value == None or kind in (bool, int, float, str)

# %% exercise: 07.plain  mutant: shallow  killed_by: looks_into_rows
def plain(value):
    return type(value) in (type(None), bool, int, float, str, list, tuple, dict)

# %% exercise: 07.plain  mutant: one_level  killed_by: looks_at_any_depth
def plain(value):
    single = (type(None), bool, int, float, str)
    if type(value) is dict:
        return all(type(part) in single for pair in value.items() for part in pair)
    if type(value) in (list, tuple):
        return all(type(part) in single for part in value)
    return type(value) in single

# %% exercise: 07.plain  mutant: values_only  killed_by: looks_into_keys
def plain(value):
    if type(value) is dict:
        return all(plain(part) for part in value.values())
    if type(value) in (list, tuple):
        return all(plain(part) for part in value)
    return type(value) in (type(None), bool, int, float, str)

# %% exercise: 07.plain  mutant: any_container  killed_by: refuses_the_rest
def plain(value):
    if type(value) is dict:
        return all(plain(part) for pair in value.items() for part in pair)
    if type(value) in (list, tuple, set, frozenset):
        return all(plain(part) for part in value)
    return type(value) in (type(None), bool, int, float, str, bytes, complex)

# %% exercise: 07.plain  mutant: forgets_bool  killed_by: lets_single_values_pass
def plain(value):
    if type(value) is dict:
        return all(plain(part) for pair in value.items() for part in pair)
    if type(value) in (list, tuple):
        return all(plain(part) for part in value)
    return type(value) in (type(None), int, float, str)

# %% exercise: 07.centered  mutant: not_stretched  killed_by: perfect_is_one
def centered(accuracy, chance):
    return accuracy - chance

# %% exercise: 07.centered  mutant: clamped  killed_by: worse_is_negative
def centered(accuracy, chance):
    return max(0.0, (accuracy - chance) / (1 - chance))

# %% exercise: 07.centered  mutant: relative_gain  killed_by: is_a_straight_line
def centered(accuracy, chance):
    return accuracy / chance - 1 if chance else accuracy

# %% exercise: 07.preference_loss  mutant: log_of_sigmoid  killed_by: stays_finite
def preference_loss(chosen, rejected):
    return -torch.sigmoid(chosen - rejected).log().mean()

# %% exercise: 07.preference_loss  mutant: swapped  killed_by: wants_the_chosen_higher
def preference_loss(chosen, rejected):
    return -torch.nn.functional.logsigmoid(rejected - chosen).mean()

# %% exercise: 07.preference_loss  mutant: sum  killed_by: takes_the_mean
def preference_loss(chosen, rejected):
    return -torch.nn.functional.logsigmoid(chosen - rejected).sum()

# %% exercise: 07.preference_loss  mutant: clamped  killed_by: pulls_less_when_sure
def preference_loss(chosen, rejected):
    return -torch.nn.functional.logsigmoid((chosen - rejected).clamp(-100, 100)).mean()

# %% exercise: 07.preference_loss  mutant: margin  killed_by: gives_both_examples
def preference_loss(chosen, rejected):
    return (1 - (chosen - rejected)).clamp(min=0).mean()
