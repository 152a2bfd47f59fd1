# %% exercise: 05.shift_targets
def shift_targets(rows, mask):
    """Inputs and targets, (B, T) each, of packed rows (B, T + 1); a target whose mask is 0 becomes -1."""
    inputs = rows[:, :-1]
    targets = np.where(mask[:, 1:] == 1, rows[:, 1:], -1)
    return inputs, targets

# %% exercise: 05.pack
def pack(documents, capacity):
    """Full rows of `capacity` ids: the longest document that fits, again and again; else the shortest, cut."""
    shelf, rows, row = list(documents), [], []
    while shelf:
        room = capacity - len(row)
        fitting = [document for document in shelf if len(document) <= room]
        document = max(fitting, key=len) if fitting else min(shelf, key=len)
        shelf.pop(next(i for i, other in enumerate(shelf) if other is document))
        row = row + list(document[:room])
        if len(row) == capacity:
            rows.append(row)
            row = []
    return rows

# %% exercise: 05.bits_per_byte
def bits_per_byte(losses, targets, token_bytes):
    """Bits a byte of text costs: losses in nats (N,), targets (N,), token_bytes (V,)."""
    sizes = np.where(targets >= 0, token_bytes[targets], 0)
    counted = sizes > 0
    return losses[counted].sum() / math.log(2) / sizes.sum()

# %% exercise: 05.fit_power_law
def fit_power_law(x, y):
    """(a, b) of the law y = a * x ** -b that fits best in logarithms."""
    slope, intercept = np.polyfit(np.log(x), np.log(y), 1)
    return math.exp(intercept), -slope

# %% exercise: 05.choose
def choose(rows, losses):
    """Which row's own tokens, after the prefix shared by all rows, have the lowest mean loss."""
    shared = 0
    while all(len(row) > shared and row[shared] == rows[0][shared] for row in rows):
        shared += 1
    means = [sum(loss[shared - 1:]) / len(loss[shared - 1:]) for loss in losses]
    return means.index(min(means))
