"""The two things every stage stands on, by scale: the text, and the tokenizer trained on it.

    paths = text(S, run)             # parquet shards, made (toy world) or fetched (hub); the last is for validation
    tokenizer = train_tokenizer(S, run)
"""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from nanochat.course.manifest import Scale
from nanochat.runtime import Run, UserError, say


def text(scale: Scale, run: Run) -> list[Path]:
    """The pretraining shards of a scale, made or fetched if they are not there; the last one is for validation."""
    from nanochat.data.source import text_shards

    data = scale.pretrain.data
    return text_shards(
        data.source, run / "data", world=data.world, seed=run.seed, shards=data.shards, val_shard=data.val_shard
    )


def train_tokenizer(scale: Scale, run: Run, progress: Callable | None = None):
    """The run's tokenizer: loaded if it is there, else trained on the first documents of its text and saved.

    Raises UserError when the run holds one with other settings.
    """
    from nanochat.data.shards import TextShards
    from nanochat.tokenizer import SPLIT_PATTERN, Tokenizer

    folder, settings = run / "tokenizer", scale.tokenizer
    if (folder / "model.json").exists():
        tokenizer = Tokenizer.from_dir(folder)
        wanted = (settings.vocab_size, SPLIT_PATTERN(settings.digits))
        if (tokenizer.vocab_size, tokenizer.pattern) != wanted:
            raise UserError(f"{folder} holds a tokenizer with other settings ({tokenizer.vocab_size} tokens, not "
                            f"{settings.vocab_size}, or another split); choose another --run or delete the folder")
        return tokenizer
    shards = TextShards(text(scale, run)[:-1])
    documents = islice((d for group in range(len(shards.groups)) for d in shards.read(group)), settings.documents)
    tokenizer = Tokenizer.train(
        first_characters(documents, settings.chars), settings.vocab_size, settings.digits, progress
    )
    tokenizer.save(folder)
    return tokenizer


def first_characters(texts: Iterator[str], most: int) -> Iterator[str]:
    """Texts until `most` characters have passed; the last one is cut."""
    for document in texts:
        if most <= 0:
            return
        yield document[:most]
        most -= len(document)


def fetch(scale: Scale, run: Run) -> None:
    """Everything a scale reads: its text, and the data behind its chat tasks."""
    from nanochat.tasks import load_task

    paths = text(scale, run)
    say(f"text: {len(paths)} shards, {sum(p.stat().st_size for p in paths) / 1e6:.1f} MB")
    shares = {share.task: share for stage in (scale.midtrain, scale.sft) for share in stage.mixture}
    for name, share in shares.items():
        task = load_task(name, "train", world_folder=run / "data", **share.options)
        say(f"{name}: {len(task)} items")
