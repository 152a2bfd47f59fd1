# %% exercise: 05.shift_targets  mutant: no_shift  killed_by: shifts_the_example
def shift_targets(rows, mask):
    return rows[:, :-1], np.where(mask[:, :-1] == 1, rows[:, :-1], -1)

# %% exercise: 05.shift_targets  mutant: mask_of_the_input  killed_by: masks_what_is_predicted
def shift_targets(rows, mask):
    return rows[:, :-1], np.where(mask[:, :-1] == 1, rows[:, 1:], -1)

# %% exercise: 05.shift_targets  mutant: zero_is_ignored  killed_by: keeps_id_zero
def shift_targets(rows, mask):
    targets = rows[:, 1:] * mask[:, 1:]
    return rows[:, :-1], np.where(targets == 0, -1, targets)

# %% exercise: 05.shift_targets  mutant: in_place  killed_by: leaves_rows_alone
def shift_targets(rows, mask):
    inputs = rows[:, :-1].copy()
    rows[mask == 0] = -1
    return inputs, rows[:, 1:]

# %% exercise: 05.pack  mutant: keeps_the_tail  killed_by: every_piece_begins_a_document
def pack(documents, capacity):
    shelf, rows, row = [list(document) for document in documents], [], []
    while shelf:
        room = capacity - len(row)
        fitting = [document for document in shelf if len(document) <= room]
        document = max(fitting, key=len) if fitting else min(shelf, key=len)
        at = next(i for i, other in enumerate(shelf) if other is document)
        tail = document[room:]
        shelf[at:at + 1] = [tail] if tail else []
        row = row + document[:room]
        if len(row) == capacity:
            rows.append(row)
            row = []
    return rows

# %% exercise: 05.pack  mutant: concatenates  killed_by: every_piece_begins_a_document
def pack(documents, capacity):
    ids = [i for document in documents for i in document]
    return [ids[at:at + capacity] for at in range(0, len(ids) - capacity + 1, capacity)]

# %% exercise: 05.pack  mutant: first_that_fits  killed_by: takes_the_longest_that_fits
def pack(documents, capacity):
    shelf, rows, row = list(documents), [], []
    while shelf:
        room = capacity - len(row)
        fitting = [i for i, document in enumerate(shelf) if len(document) <= room]
        at = fitting[0] if fitting else min(range(len(shelf)), key=lambda i: len(shelf[i]))
        row = row + list(shelf.pop(at)[:room])
        if len(row) == capacity:
            rows.append(row)
            row = []
    return rows

# %% exercise: 05.pack  mutant: cuts_the_longest  killed_by: cuts_the_shortest
def pack(documents, capacity):
    shelf, rows, row = list(documents), [], []
    while shelf:
        room = capacity - len(row)
        fitting = [i for i, document in enumerate(shelf) if len(document) <= room]
        at = max(fitting or range(len(shelf)), key=lambda i: len(shelf[i]))
        row = row + list(shelf.pop(at)[:room])
        if len(row) == capacity:
            rows.append(row)
            row = []
    return rows

# %% exercise: 05.pack  mutant: short_last_row  killed_by: rows_are_full
def pack(documents, capacity):
    shelf, rows, row = list(documents), [], []
    while shelf:
        room = capacity - len(row)
        fitting = [i for i, document in enumerate(shelf) if len(document) <= room]
        at = max(fitting, key=lambda i: len(shelf[i])) if fitting else min(range(len(shelf)), key=lambda i: len(shelf[i]))
        row = row + list(shelf.pop(at)[:room])
        if len(row) == capacity or not shelf:
            rows.append(row)
            row = []
    return rows

# %% exercise: 05.pack  mutant: empties_the_shelf  killed_by: leaves_documents_alone
def pack(documents, capacity):
    rows, row = [], []
    while documents:
        room = capacity - len(row)
        fitting = [i for i, document in enumerate(documents) if len(document) <= room]
        at = max(fitting or [0], key=lambda i: len(documents[i])) if fitting else min(range(len(documents)), key=lambda i: len(documents[i]))
        row = row + list(documents.pop(at)[:room])
        if len(row) == capacity:
            rows.append(row)
            row = []
    return rows

# %% exercise: 05.bits_per_byte  mutant: per_token  killed_by: divides_by_bytes_not_tokens
def bits_per_byte(losses, targets, token_bytes):
    counted = np.where(targets >= 0, token_bytes[targets], 0) > 0
    return losses[counted].sum() / math.log(2) / counted.sum()

# %% exercise: 05.bits_per_byte  mutant: log10  killed_by: counts_bits
def bits_per_byte(losses, targets, token_bytes):
    sizes = np.where(targets >= 0, token_bytes[targets], 0)
    return losses[sizes > 0].sum() / math.log(10) / sizes.sum()

# %% exercise: 05.bits_per_byte  mutant: specials_cost_bits  killed_by: leaves_specials_out
def bits_per_byte(losses, targets, token_bytes):
    counted = targets >= 0
    return losses[counted].sum() / math.log(2) / token_bytes[targets[counted]].sum()

# %% exercise: 05.bits_per_byte  mutant: minus_one_is_the_last  killed_by: leaves_masked_out
def bits_per_byte(losses, targets, token_bytes):
    sizes = token_bytes[targets]
    return losses[sizes > 0].sum() / math.log(2) / sizes.sum()

# %% exercise: 05.bits_per_byte  mutant: mean_of_ratios  killed_by: adds_before_it_divides
def bits_per_byte(losses, targets, token_bytes):
    sizes = np.where(targets >= 0, token_bytes[targets], 0)
    counted = sizes > 0
    return (losses[counted] / math.log(2) / sizes[counted]).mean()

# %% exercise: 05.fit_power_law  mutant: straight_line  killed_by: fits_the_example
def fit_power_law(x, y):
    slope, intercept = np.polyfit(x, y, 1)
    return intercept, -slope

# %% exercise: 05.fit_power_law  mutant: mixed_logarithms  killed_by: recovers_any_law
def fit_power_law(x, y):
    slope, intercept = np.polyfit(np.log10(x), np.log10(y), 1)
    return math.exp(intercept), -slope

# %% exercise: 05.fit_power_law  mutant: sign  killed_by: knows_a_rising_law
def fit_power_law(x, y):
    slope, intercept = np.polyfit(np.log(x), np.log(y), 1)
    return math.exp(intercept), abs(slope)

# %% exercise: 05.fit_power_law  mutant: two_points  killed_by: hears_every_point
def fit_power_law(x, y):
    b = -math.log(y[-1] / y[0]) / math.log(x[-1] / x[0])
    return y[0] * x[0] ** b, b

# %% exercise: 05.choose  mutant: sum_of_losses  killed_by: is_fair_to_long_endings
def choose(rows, losses):
    shared = 0
    while all(len(row) > shared and row[shared] == rows[0][shared] for row in rows):
        shared += 1
    sums = [sum(loss[shared - 1:]) for loss in losses]
    return sums.index(min(sums))

# %% exercise: 05.choose  mutant: whole_row  killed_by: judges_the_endings_only
def choose(rows, losses):
    means = [sum(loss) / len(loss) for loss in losses]
    return means.index(min(means))

# %% exercise: 05.choose  mutant: off_by_one  killed_by: matches_a_loss_with_its_token
def choose(rows, losses):
    shared = 0
    while all(len(row) > shared and row[shared] == rows[0][shared] for row in rows):
        shared += 1
    means = [sum(loss[shared:]) / max(1, len(loss[shared:])) for loss in losses]
    return means.index(min(means))

# %% exercise: 05.choose  mutant: prefix_of_two  killed_by: asks_all_rows_for_the_prefix
def choose(rows, losses):
    shared = 0
    while all(len(row) > shared and row[shared] == rows[0][shared] for row in rows[:2]):
        shared += 1
    means = [sum(loss[shared - 1:]) / len(loss[shared - 1:]) for loss in losses]
    return means.index(min(means))

# %% exercise: 05.choose  mutant: likeliest_is_largest  killed_by: chooses_the_example
def choose(rows, losses):
    shared = 0
    while all(len(row) > shared and row[shared] == rows[0][shared] for row in rows):
        shared += 1
    means = [sum(loss[shared - 1:]) / len(loss[shared - 1:]) for loss in losses]
    return means.index(max(means))
