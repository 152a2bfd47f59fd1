"""The two things every stage stands on, by scale: the text, and the tokenizer trained on it.

    paths = text(S, run)             # parquet shards, made (toy world) or fetched (hub); the last is for validation
    paths = first_text(S, run)       # of these what the tokenizer and the small models read, and the last
    tokenizer = train_tokenizer(S, run)

And what `nanochat data` does with everything a scale reads: `fetch` it, `verify` it, look for exam questions in it
(`contamination`). `python -m nanochat.course.prepare SCALE RUN` fetches; a headless run starts it in the background, so
that hundreds of shards come while the first lessons work on the first few.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from itertools import islice
from operator import or_
from pathlib import Path

from nanochat.course.manifest import Scale, load
from nanochat.runtime import Run, UserError, open_run, say, write_json

SHARD_CHARS = 200_000_000  # fewer than a shard of the hub's repositories holds
SHARD_BYTES = 100_000_000  # about what one takes on the disk


def text(scale: Scale, run: Run, shards: int | None = None) -> list[Path]:
    """The pretraining shards of a scale, made or fetched if they are not there; the last one is for validation.

    shards: of those for training only the first so many.
    """
    from nanochat.data.source import text_shards

    data = scale.pretrain.data
    return text_shards(data.source, run / "data", world=data.world, seed=run.seed,
                       shards=min(shards or data.shards, data.shards), val_shard=data.val_shard)  # fmt: skip


def first_text(scale: Scale, run: Run) -> list[Path]:
    """The first shards, enough to train the tokenizer, and the one for validation."""
    return text(scale, run, -(-scale.tokenizer.chars // SHARD_CHARS))


def missing(scale: Scale) -> list[str]:
    """The shards of the scale's hub repository that are neither in the mirror nor in the cache."""
    from nanochat.data import hub

    data = scale.pretrain.data
    if data.source == "toy":
        return []
    folder = (hub.mirror() or hub.cache() / "hub") / data.source
    names = [*(f"shard_{i:05d}.parquet" for i in range(data.shards)), data.val_shard]
    return [name for name in names if not (folder / name).exists()]


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
    shards = TextShards(first_text(scale, run)[:-1])
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


REAL_EXAMS = ("arc-easy", "arc-challenge", "mmlu", "gsm8k", "humaneval")
TOY_EXAMS = ("toy-qa-seen", "toy-qa-heldout", "toy-tool", "toy-free", "toy-chat-sums", "toy-choices", "toy-letters",
             "toy-problems", "toy-functions", "toy-cloze", "toy-addition")


def fetch(scale: Scale, run: Run) -> None:
    """Everything a scale reads: its text, the data behind its chat tasks and exams, CORE's bundle."""
    from nanochat.data import hub
    from nanochat.tasks import load_task

    first_text(scale, run)                     # somebody may be waiting for it
    paths = text(scale, run)
    say(f"text: {len(paths)} shards, {sum(p.stat().st_size for p in paths) / 1e6:.1f} MB")
    for name, options in _trained_on(scale).items():
        task = load_task(name, "train", world_folder=run / "data", **options)
        say(f"{name}: {len(task)} items")
    for name in _exams(scale):
        say(f"{name}: {len(load_task(name, 'test', world_folder=run / 'data'))} items to test on")
    if scale.evals.core:
        say(f"core: {hub.eval_bundle()}")


@contextmanager
def fetching(scale: Scale, run: Run):
    """While entered, a process fetches what the hub still has to give; the next one goes on from where it was ended."""
    from nanochat.data import hub

    if hub.mirror() or not missing(scale):
        yield
        return
    log = run / "data" / "fetch.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "nanochat.train.guard", sys.executable, "-m", "nanochat.course.prepare"]
    with open(log, "w") as output:
        guard = subprocess.Popen([*command, scale.name, str(run.path)], stdin=subprocess.PIPE, stdout=output,
                                 stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
    say(f"  data comes in the background, see {log}")
    try:
        yield
    finally:
        guard.stdin.close()        # the guard ends it then
        guard.wait()


def verify(scale: Scale, run: Run) -> None:
    """Read every byte of what was fetched or generated, and compare its SHA-256 with the one at the first use.

    Raises UserError for the first file that differs.
    """
    from nanochat.data import download, hub, source

    paths = text(scale, run)
    source.pin(run / "data" / "shards.json", paths, full=True)
    say(f"text: {len(paths)} shards are what they were when this run first read them")
    records = [] if hub.mirror() else sorted(hub.cache().rglob(".*.stamp"))
    for record in records:
        download.check(record.with_name(record.name[1:].removesuffix(".stamp")), full=True)
    if records:
        say(f"cache: {len(records)} downloaded files are what they were")


def contamination(scale: Scale, run: Run) -> dict:
    """Look for the scale's exam questions in all it trains on; the result is in the run's contamination.json, too.

    {exam: {"questions", "exact", "overlap": in any source, "sources": {source: [exact, overlap]}}}
    """
    from nanochat.data import TextShards, hub
    from nanochat.evals.contamination import Exams, core_questions, question, texts_of
    from nanochat.tasks import load_task

    world = run / "data"
    shards = TextShards(text(scale, run)[:-1])
    questions = {name: [question(item) for item in load_task(name, "test", world_folder=world)] for name in _exams(scale)}
    exams = Exams(questions | (core_questions(hub.eval_bundle()) if scale.evals.core else {}))
    sources = {"text": (document for group in range(len(shards)) for document in shards.read(group))}
    for name, options in _trained_on(scale).items():
        task = load_task(name, "train", world_folder=world, **options)
        sources[name] = (piece for item in task for piece in texts_of(item))
    found: dict = {}
    for source, texts in sources.items():
        found[source] = exams.search(texts)
        say(f"{source} searched")
    table = {}
    for name, size in exams.sizes.items():
        every = reduce(or_, (by_exam[name] for by_exam in found.values()))
        table[name] = {"questions": size, "exact": int(every.exact.sum()), "overlap": int(every.overlap.sum()),
                       "sources": {source: [int(by_exam[name].exact.sum()), int(by_exam[name].overlap.sum())]
                                   for source, by_exam in found.items() if by_exam[name].overlap.any()}}
    write_json(run / "contamination.json", table)
    return table


def _trained_on(scale: Scale) -> dict[str, dict]:
    """The tasks a scale trains on, with their options (of a task in two stages, the ones that take more of it)."""
    shares = [*scale.midtrain.mixture, *scale.sft.mixture, *scale.grpo.mixture]
    tasks = {scale.grpo.task: {}} | {share.task: share.options for share in shares}
    return tasks | {share.task: {} for share in shares if not share.options}


def _exams(scale: Scale) -> tuple[str, ...]:
    return TOY_EXAMS if scale.pretrain.data.source == "toy" else REAL_EXAMS


if __name__ == "__main__":
    try:
        fetch(load().scale(sys.argv[1]), open_run(sys.argv[2]))
    except UserError as error:
        sys.exit(f"nanochat: {error}")
