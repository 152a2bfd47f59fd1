# %% exercise: 06.choice_prompt  mutant: letter_first  killed_by: puts_the_letter_behind_its_choice
def choice_prompt(question, choices, letters):
    options = "\n".join(f"- {letter}) {choice}" for choice, letter in zip(choices, letters))
    return f"Multiple Choice question: {question}\n{options}\n\nAnswer with the letter only."

# %% exercise: 06.choice_prompt  mutant: space_before_the_letter  killed_by: puts_the_letter_behind_its_choice
def choice_prompt(question, choices, letters):
    options = "\n".join(f"- {choice} = {letter}" for choice, letter in zip(choices, letters))
    return f"Multiple Choice question: {question}\n{options}\n\nAnswer with the letter only."

# %% exercise: 06.choice_prompt  mutant: always_abcd  killed_by: takes_the_letters_it_is_given
def choice_prompt(question, choices, letters):
    options = "\n".join(f"- {choice}={letter}" for choice, letter in zip(choices, "ABCDEFG"))
    return f"Multiple Choice question: {question}\n{options}\n\nAnswer with the letter only."

# %% exercise: 06.choice_prompt  mutant: line_end_behind  killed_by: ends_with_the_instruction
def choice_prompt(question, choices, letters):
    options = "".join(f"- {choice}={letter}\n" for choice, letter in zip(choices, letters))
    return f"Multiple Choice question: {question}\n{options}\nAnswer with the letter only.\n"

# %% exercise: 06.split_calls  mutant: first_equals  killed_by: cuts_at_the_last_equals
def split_calls(text):
    pieces = re.split(r"<<(.*?)>>", text)
    if len(pieces) == 1:
        return text
    parts = []
    for i, piece in enumerate(pieces):
        if i % 2:
            call, _, result = piece.partition("=")
            parts += [{"type": "python", "text": call}, {"type": "python_output", "text": result}]
        elif piece:
            parts.append({"type": "text", "text": piece})
    return parts

# %% exercise: 06.split_calls  mutant: greedy  killed_by: takes_each_note_by_itself
def split_calls(text):
    pieces = re.split(r"<<(.*)>>", text)
    if len(pieces) == 1:
        return text
    parts = []
    for i, piece in enumerate(pieces):
        if i % 2:
            call, _, result = piece.rpartition("=")
            parts += [{"type": "python", "text": call}, {"type": "python_output", "text": result}]
        elif piece:
            parts.append({"type": "text", "text": piece})
    return parts

# %% exercise: 06.split_calls  mutant: empty_parts  killed_by: makes_no_empty_parts
def split_calls(text):
    pieces = re.split(r"<<(.*?)>>", text)
    if len(pieces) == 1:
        return text
    parts = []
    for i, piece in enumerate(pieces):
        if i % 2:
            call, _, result = piece.rpartition("=")
            parts += [{"type": "python", "text": call}, {"type": "python_output", "text": result}]
        else:
            parts.append({"type": "text", "text": piece})
    return parts

# %% exercise: 06.split_calls  mutant: always_a_list  killed_by: leaves_plain_text_a_string
def split_calls(text):
    parts = []
    for i, piece in enumerate(re.split(r"<<(.*?)>>", text)):
        if i % 2:
            call, _, result = piece.rpartition("=")
            parts += [{"type": "python", "text": call}, {"type": "python_output", "text": result}]
        elif piece:
            parts.append({"type": "text", "text": piece})
    return parts

# %% exercise: 06.split_calls  mutant: drops_the_tail  killed_by: splits_the_example
def split_calls(text):
    found = list(re.finditer(r"<<(.*?)>>", text))
    if not found:
        return text
    parts, at = [], 0
    for note in found:
        call, _, result = note[1].rpartition("=")
        if note.start() > at:
            parts.append({"type": "text", "text": text[at:note.start()]})
        parts += [{"type": "python", "text": call}, {"type": "python_output", "text": result}]
        at = note.end()
    return parts

# %% exercise: 06.next_task  mutant: least_spent  killed_by: looks_at_shares
def next_task(shares, spent):
    return spent.index(min(spent))

# %% exercise: 06.next_task  mutant: furthest_ahead  killed_by: finds_the_one_behind
def next_task(shares, spent):
    behind = [share * sum(spent) - own for share, own in zip(shares, spent)]
    return behind.index(min(behind))

# %% exercise: 06.next_task  mutant: proportion  killed_by: measures_debt_in_tokens
def next_task(shares, spent):
    filled = [own / share for share, own in zip(shares, spent)]
    return filled.index(min(filled))

# %% exercise: 06.next_task  mutant: last_of_equals  killed_by: begins_with_the_first
def next_task(shares, spent):
    behind = [share * sum(spent) - own for share, own in zip(shares, spent)]
    return max(range(len(behind)), key=lambda i: (behind[i], i))

# %% exercise: 06.pack_row  mutant: first_fit  killed_by: packs_the_examples
def pack_row(lengths, room):
    taken = []
    for i, n in enumerate(lengths):
        if n <= room:
            taken.append(i)
            room -= n
    return taken

# %% exercise: 06.pack_row  mutant: stops_at_the_first_miss  killed_by: goes_on_behind_a_long_one
def pack_row(lengths, room):
    taken = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if lengths[i] > room:
            break
        taken.append(i)
        room -= lengths[i]
    return taken

# %% exercise: 06.pack_row  mutant: strictly_shorter  killed_by: takes_what_fits_exactly
def pack_row(lengths, room):
    taken = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if lengths[i] < room:
            taken.append(i)
            room -= lengths[i]
    return taken

# %% exercise: 06.pack_row  mutant: last_of_equals  killed_by: takes_the_first_of_equals
def pack_row(lengths, room):
    taken = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i), reverse=True):
        if lengths[i] <= room:
            taken.append(i)
            room -= lengths[i]
    return taken

# %% exercise: 06.pack_row  mutant: uses_up_the_list  killed_by: leaves_the_lengths_alone
def pack_row(lengths, room):
    taken = []
    while lengths:
        i = max(range(len(lengths)), key=lambda i: lengths[i] if lengths[i] <= room else -1)
        if not 0 < lengths[i] <= room:
            return taken
        taken.append(i)
        room -= lengths[i]
        lengths[i] = 0
    return taken

# %% exercise: 06.lay_out  mutant: shifted_mask  killed_by: asks_the_mask_of_the_target
def lay_out(pieces, capacity, pad):
    ids, mask, at = np.full(capacity, pad, dtype=np.int64), np.zeros(capacity, dtype=np.int64), 0
    for piece, trained in pieces:
        ids[at:at + len(piece)] = piece
        mask[at:at + len(piece)] = trained
        at += len(piece)
    return ids[:-1], np.where(mask[:-1] == 1, ids[1:], -1)

# %% exercise: 06.lay_out  mutant: users_in_the_loss  killed_by: ignores_what_others_write
def lay_out(pieces, capacity, pad):
    ids, mask, at = np.full(capacity, pad, dtype=np.int64), np.zeros(capacity, dtype=np.int64), 0
    for piece, trained in pieces:
        ids[at:at + len(piece)] = piece
        mask[at:at + len(piece)] = 1
        at += len(piece)
    return ids[:-1], np.where(mask[1:] == 1, ids[1:], -1)

# %% exercise: 06.lay_out  mutant: not_shifted  killed_by: aims_at_the_next_token
def lay_out(pieces, capacity, pad):
    ids, mask, at = np.full(capacity, pad, dtype=np.int64), np.zeros(capacity, dtype=np.int64), 0
    for piece, trained in pieces:
        ids[at:at + len(piece)] = piece
        mask[at:at + len(piece)] = trained
        at += len(piece)
    return ids[:-1], np.where(mask[:-1] == 1, ids[:-1], -1)

# %% exercise: 06.lay_out  mutant: learns_padding  killed_by: pads_without_a_target
def lay_out(pieces, capacity, pad):
    ids, mask, at = np.full(capacity, pad, dtype=np.int64), np.ones(capacity, dtype=np.int64), 0
    for piece, trained in pieces:
        ids[at:at + len(piece)] = piece
        mask[at:at + len(piece)] = trained
        at += len(piece)
    return ids[:-1], np.where(mask[1:] == 1, ids[1:], -1)

# %% exercise: 06.lay_out  mutant: last_token_lost  killed_by: fills_a_row_to_its_end
def lay_out(pieces, capacity, pad):
    ids, mask, at = np.full(capacity, pad, dtype=np.int64), np.zeros(capacity, dtype=np.int64), 0
    for piece, trained in pieces:
        ids[at:at + len(piece)] = piece
        mask[at:at + len(piece)] = trained
        at += len(piece)
    mask[-1] = 0
    return ids[:-1], np.where(mask[1:] == 1, ids[1:], -1)
