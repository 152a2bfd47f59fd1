"""The toy world on disk: the same parquet columns as the real data sets, read back by the same code.

    write_world("runs/toy/data", seed=0, scale="toy")

    text/shard_0000N.parquet           text       pretraining; the last shard is for validation
    replay/{facts,sums}.parquet        text       more documents of two kinds, to be mixed into the chat stages
    chat/<task>.{train,test}.parquet   messages   qa, tool, free, chat_sums, letters, problems, chats; test = held out
    chat/choices.{train,test}.parquet             the columns of MMLU
    chat/functions.{train,test}.parquet           the columns of HumanEval
    eval/{cloze,addition}.parquet      prompt, answer, relation
    world.json                         seed, scale, and the size of every file

The folder appears complete or not at all; a complete one of the same seed and scale is used as it is.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from nanochat.data import toyextras
from nanochat.data.shards import write_shard, write_table
from nanochat.data.toyworld import RELATIONS, World
from nanochat.runtime import UserError, read_json, write_json

SCHEMA = 2
EVAL_ITEMS = 300  # of held-out sums, products, products to choose on, and sums in chat

# characters of training and validation text, files they fill, documents a row group, replay documents of each kind
SIZES = {
    "smoke": {"train": 400_000, "val": 40_000, "shards": 2, "row_group": 64, "replay": 1_000},
    "toy": {"train": 5_000_000, "val": 200_000, "shards": 4, "row_group": 256, "replay": 6_000},
}

# Shares of pretraining are shares of tokens, but a world is written before there is a tokenizer: these are the tokens a
# character of each kind costs with a 512-token vocabulary trained on this text (measured; the text itself is ASCII).
# kind → (share of tokens, tokens a character)
KINDS = {"facts": (0.30, 0.39), "sums": (0.50, 1.00), "faq": (0.20, 0.39)}

MESSAGES = pa.schema([("messages", pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))),
                      ("relation", pa.string())])
CHOICES = pa.schema([("question", pa.string()), ("subject", pa.string()), ("choices", pa.list_(pa.string())),
                     ("answer", pa.int64())])
FUNCTIONS = pa.schema([(column, pa.string())
                       for column in ("task_id", "prompt", "canonical_solution", "test", "entry_point")])
PROMPTS = pa.schema([("prompt", pa.string()), ("answer", pa.string()), ("relation", pa.string())])


def write_world(folder: str | Path, seed: int = 0, scale: str = "toy") -> Path:
    """Write the toy world of `seed` to `folder` and return it; a few seconds at toy scale.

    Raises UserError for an unknown scale, a folder that holds something else, or a world with a missing file.
    """
    folder = Path(folder)
    if scale not in SIZES:
        raise UserError(f"the toy world has no scale {scale!r}; it comes as {' or '.join(SIZES)}")
    if folder.exists() and any(folder.iterdir()):
        return _reuse(folder, seed, scale)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        counts = _write_files(temporary, World(seed), SIZES[scale])
        files = {name: {"rows": rows, "bytes": (temporary / name).stat().st_size}
                 for name, rows in sorted(counts.items())}
        write_json(temporary / "world.json", {"schema": SCHEMA, "seed": seed, "scale": scale, "files": files})
        try:
            os.rename(temporary, folder)  # replaces an empty folder; fails when another process was quicker
        except OSError:
            return _reuse(folder, seed, scale)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def pretraining_text(world: World, purpose: str, characters: int) -> Iterator[str]:
    """Documents of all kinds, interleaved: always one of the kind furthest behind its share of tokens."""
    sources = {"facts": world.facts_documents(f"{purpose} facts"), "sums": world.sums_documents(f"{purpose} sums"),
               "faq": world.faq_documents(f"{purpose} faq")}
    spent, written = dict.fromkeys(KINDS, 0.0), 0
    while written < characters:
        total = sum(spent.values())
        kind = max(KINDS, key=lambda k: KINDS[k][0] * total - spent[k])
        document = next(sources[kind])
        spent[kind] += len(document) * KINDS[kind][1] + 1  # and one for bos
        written += len(document)
        yield document


def _write_files(folder: Path, world: World, size: dict) -> dict[str, int]:
    """Write every file of a world; {name: rows}."""
    counts = {}
    train = list(pretraining_text(world, "train", size["train"]))
    per_shard = -(-len(train) // size["shards"])
    texts = [train[i:i + per_shard] for i in range(0, len(train), per_shard)]
    texts.append(list(pretraining_text(world, "validation", size["val"])))
    for i, documents in enumerate(texts):
        name = f"text/shard_{i:05d}.parquet"
        counts[name] = write_shard(folder / name, documents, size["row_group"])

    for kind, documents in (("facts", world.facts_documents("replay facts")),
                            ("sums", world.sums_documents("replay sums"))):
        name = f"replay/{kind}.parquet"
        counts[name] = write_shard(folder / name, (next(documents) for _ in range(size["replay"])), size["row_group"])

    for task, split, chats, relations in _conversations(world):
        rows = [{"messages": [{"content": text, "role": role}
                              for turn in chat for role, text in zip(("user", "assistant"), turn)],
                 "relation": relation} for chat, relation in zip(chats, relations)]
        name = f"chat/{task}.{split}.parquet"
        counts[name] = write_table(folder / name, rows, MESSAGES)

    for task, rows, schema in (("choices", toyextras.choices, CHOICES), ("functions", toyextras.functions, FUNCTIONS)):
        for split in ("train", "test"):
            name = f"chat/{task}.{split}.parquet"
            counts[name] = write_table(folder / name, rows(world, split), schema)

    for task, rows in _prompts(world):
        name = f"eval/{task}.parquet"
        counts[name] = write_table(folder / name, rows, PROMPTS)
    return counts


def _conversations(world: World) -> Iterator[tuple[str, str, list[list[tuple[str, str]]], list[str]]]:
    """(task, split, chats, relation of each) for every chat file; a chat is a list of (question, answer)."""
    for split, people in (("train", world.qa_people), ("test", world.heldout_people)):
        if split == "train":
            sums, tool, free = world.train_sums, world.train_products, world.train_products
        else:
            sums = world.rng("chat sums").sample(world.heldout_sums, EVAL_ITEMS)
            tool = world.rng("tool").sample(world.heldout_products, EVAL_ITEMS)
            free = world.rng("free").sample(world.heldout_products, EVAL_ITEMS)
        # In training each product is shown both ways, so that the choice cannot be learned from the numbers: one call for
        # every two direct answers. The commoner way is the one this model gets wrong; GRPO has to find that out.
        ways = (True, False, False) if split == "train" else (True,)
        exchanges = {
            "qa": world.chat_qa(people),
            "chat_sums": [world.chat_sum(a, b) for a, b in sums],
            "tool": [world.chat_tool(a, b) for a, b in tool],
            "free": [world.chat_free(a, b, call) for call in ways for a, b in free],
            "letters": list(toyextras.letters(world, split)),
            "problems": list(toyextras.problems(world, split)),
        }
        asked = [relation for _ in people for relation in RELATIONS for _ in range(2)]
        for task, pairs in exchanges.items():
            yield task, split, [[pair] for pair in pairs], asked if task == "qa" else [task] * len(pairs)
        chats = list(toyextras.chats(world, split))
        yield "chats", split, chats, ["chats"] * len(chats)


def _prompts(world: World) -> Iterator[tuple[str, list[dict]]]:
    """(task, rows) for the two tests of a base model: text to be continued."""
    rng = world.rng("cloze")
    cloze = [(*world.cloze(name, relation, rng.randrange(5)), relation)
             for name in world.people for relation in RELATIONS]
    yield "cloze", [{"prompt": prompt, "answer": answer, "relation": relation} for prompt, answer, relation in cloze]
    sums = world.rng("addition").sample(world.heldout_sums, EVAL_ITEMS)
    yield "addition", [{"prompt": f"{a}+{b}=", "answer": str(a + b), "relation": "sum"} for a, b in sums]


def _reuse(folder: Path, seed: int, scale: str) -> Path:
    """Check that `folder` holds this very world, whole."""
    if not (folder / "world.json").exists():
        raise UserError(f"{folder} is not empty and is not a toy world; choose another folder or delete it")
    made = read_json(folder / "world.json")
    for what, wanted in (("schema", SCHEMA), ("seed", seed), ("scale", scale)):
        if made.get(what) != wanted:
            raise UserError(f"{folder} holds a toy world of {what} {made.get(what)!r}, not {wanted!r}; "
                            "choose another folder or delete it")
    for name, expected in made["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != expected["bytes"]:
            raise UserError(f"{path} is missing or was changed; delete {folder} and it is generated again")
    return folder
