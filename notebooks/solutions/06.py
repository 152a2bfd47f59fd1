# %% exercise: 06.choice_prompt
def choice_prompt(question, choices, letters):
    """A multiple-choice question as the user asks it; each letter stands behind its choice."""
    options = "\n".join(f"- {choice}={letter}" for choice, letter in zip(choices, letters))
    return f"Multiple Choice question: {question}\n{options}\n\nAnswer with the letter only."

# %% exercise: 06.split_calls
def split_calls(text):
    """Text with notes <<call=result>> as a list of parts; text without any stays a string."""
    pieces = re.split(r"<<(.*?)>>", text)
    if len(pieces) == 1:
        return text
    parts = []
    for i, piece in enumerate(pieces):
        if i % 2:
            call, _, result = piece.rpartition("=")
            parts.append({"type": "python", "text": call})
            parts.append({"type": "python_output", "text": result})
        elif piece:
            parts.append({"type": "text", "text": piece})
    return parts

# %% exercise: 06.next_task
def next_task(shares, spent):
    """The number of the task furthest behind its share of the tokens."""
    total = sum(spent)
    behind = [share * total - own for share, own in zip(shares, spent)]
    return behind.index(max(behind))

# %% exercise: 06.pack_row
def pack_row(lengths, room):
    """Positions of the items of one row, best fit: always the longest that still fits."""
    taken = []
    while True:
        fitting = [i for i, n in enumerate(lengths) if i not in taken and n <= room]
        if not fitting:
            return taken
        longest = max(fitting, key=lambda i: lengths[i])
        taken.append(longest)
        room -= lengths[longest]

# %% exercise: 06.lay_out
def lay_out(pieces, capacity, pad):
    """One packed row as (inputs, targets), (capacity - 1,) int64 each; target -1 is ignored by the loss."""
    ids = np.full(capacity, pad, dtype=np.int64)
    mask = np.zeros(capacity, dtype=np.int64)
    at = 0
    for piece, trained in pieces:
        ids[at:at + len(piece)] = piece
        mask[at:at + len(piece)] = trained
        at += len(piece)
    return ids[:-1], np.where(mask[1:] == 1, ids[1:], -1)
