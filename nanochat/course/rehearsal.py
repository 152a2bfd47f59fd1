"""A dry run: every cell of a scale's lessons with that scale's settings, before a machine is rented for it.

    nanochat run --scale speedrun --dry-run

What takes long is small: a stage trains a model of two layers and a short context for one step, and its real size is told
from the plan: the model built without memory, its steps, tokens, processes, memory. Data sets have a few made-up rows, in
the formats of the real ones. The machine is this one, one process. All other settings are the scale's: vocabulary,
architecture, optimizer, mixtures, tasks. What cells compute after a stage makes no sense, but that they compute it is the rehearsal.

Everything lies in the run's own new folder, which a mark tells from a real run.
"""

import json
import random
import zipfile
from pathlib import Path

from nanochat.course.manifest import Lesson, Scale
from nanochat.runtime import Run, UserError, say, write_json

MARK = "dry_run.json"
STAGE = {"schedule": {"steps": 1, "warmup": 0}, "rows": 2, "streams": 2, "device_rows": 1, "eval_rows": 2, "compile": False}
SMALL = {
    "machine": {"device": "auto", "dtype": "auto", "nproc": 1, "nodes": 1, "threads": 1, "fp8": False},
    "char_rnn": {"n_embd": 64, "n_hidden": 64, "steps": 1, "rows": 4, "sequence_len": 64},
    "pretrain": STAGE | {"model": {"depth": 2, "n_embd": None, "n_kv_head": None, "sequence_len": 256}},
    "miniseries": {"depths": [1, 2, 3, 4, 5], "width": 32, "compile": False},
    "midtrain": STAGE,
    "sft": STAGE,
    "grpo": {"schedule": {"steps": 1}, "prompts": 2, "samples": 2, "max_tokens": 16, "device_rows": 1, "replay_rows": 2,
             "eval_prompts": 2, "eval_samples": 2, "heldout_items": 2, "streams": 2},
    "evals": {"max_items": 4, "core_per_task": 12},
}  # fmt: skip
STAGES = {"base": "pretrain", "mid": "midtrain", "sft": "sft", "rl": "grpo"}  # what a lesson makes: its stage
LETTERS = "etaoinshrdlucmfwypvbgk"
ROWS = 64  # of a data set


def begin(scale: Scale, run: Run) -> dict[str, str]:
    """Make a new run's folder one of a dry run, with its data; returns the environment that the lessons need."""
    if not (run / MARK).exists() and any(path.name != "run.json" for path in run.path.iterdir()):
        raise UserError(f"{run.path} holds a run; a dry run needs a new folder: choose another --run")
    write_json(run / MARK, {"scale": scale.name, "note": "a dry run: nothing here was really trained or measured"})
    hub = run / "hub"
    if not hub.exists():
        mirror(hub, {scale.pretrain.data.source: (scale.pretrain.data.shards, scale.pretrain.data.val_shard)})
    return {"NANOCHAT_SETTINGS": json.dumps(SMALL), "NANOCHAT_HUB": str(hub), "HF_HOME": str(run / "hf"),
            "HF_HUB_OFFLINE": "1"}  # fmt: skip


def tell(scale: Scale, lesson: Lesson) -> None:
    """What the stages of a lesson would have been."""
    from nanochat.course.plan import Plan, duration, sized

    plan = Plan(scale, scale.machine.nodes)
    for stage in plan.stages:
        if any(STAGES.get(name) == stage.name for name in lesson.makes):
            say(f"    {stage.name} was one step of two layers; it would be {stage.steps:,} steps, {stage.tokens:,} "
                f"tokens, {plan.params:,} parameters on {plan.ranks} process(es): {sized(plan.memory(stage).peak)} a device, "
                f"{stage.rows} row(s) at once, about {duration(stage.seconds)}")  # fmt: skip


def mirror(root: Path, shards: dict[str, tuple[int, str]]) -> Path:
    """A folder as NANOCHAT_HUB wants it, with made-up rows in every data set that the course reads.

    shards: {repository of text: (how many for training, the name of the one for validation)}.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(0)

    def words(n: int) -> str:
        return " ".join("".join(rng.choices(LETTERS, k=rng.randint(2, 8))) for _ in range(n))

    def write(name: str, row_group: int = 256, **columns) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), root / name, row_group_size=row_group)

    for repo, (count, val) in shards.items():
        if repo == "toy":
            continue
        names = [f"shard_{i:05d}.parquet" for i in range(count)]
        for name, documents in ((names[0], 4096), (val, 32)):
            write(f"{repo}/{name}", text=[f"{words(rng.randint(20, 120)).capitalize()}." for _ in range(documents)])
        for name in names[1:]:
            (root / repo / name).unlink(missing_ok=True)
            (root / repo / name).symlink_to(names[0])
    choices = ["sand", "rain", "stone", "fire"]
    for split in ("train", "test"):
        write(f"HuggingFaceTB/smol-smoltalk/data/{split}-0.parquet", source=["x"] * ROWS, messages=[
            [{"role": "user", "content": words(6)}, {"role": "assistant", "content": words(12)}] for _ in range(ROWS)])
        write(f"openai/gsm8k/main/{split}-0.parquet", question=[f"Ann has {i} figs and buys 2. How many?" for i in range(ROWS)],
              answer=[f"She has {i}+2=<<{i}+2={i + 2}>>{i + 2}.\n#### {i + 2}" for i in range(ROWS)])
        for config in ("ARC-Easy", "ARC-Challenge"):
            write(f"allenai/ai2_arc/{config}/{split}-0.parquet", id=["1"] * ROWS, question=[words(5) for _ in range(ROWS)],
                  answerKey=["B"] * ROWS, choices=[{"text": choices, "label": ["A", "B", "C", "D"]}] * ROWS)
    for split in ("auxiliary_train", "test", "validation", "dev"):
        write(f"cais/mmlu/all/{split}-0.parquet", question=[words(5) for _ in range(ROWS)], subject=["sums"] * ROWS,
              choices=[choices] * ROWS, answer=[3] * ROWS)
    write("openai/openai_humaneval/data/test-0.parquet", task_id=["x"] * ROWS, entry_point=["add"] * ROWS,
          prompt=['def add(a, b):\n    """The sum."""\n'] * ROWS, canonical_solution=["    return a + b\n"] * ROWS,
          test=["def check(candidate):\n    assert candidate(1, 2) == 3\n"] * ROWS)
    (root / "extras").mkdir(exist_ok=True)
    with zipfile.ZipFile(root / "extras" / "words_alpha.zip", "w") as archive:
        archive.writestr("words_alpha.txt", words(30_000).replace(" ", "\n"))
    _bundle(root / "eval_bundle")
    return root


def _bundle(folder: Path) -> None:
    """CORE's bundle: the town's, which has the format."""
    from nanochat.data import World
    from nanochat.evals import write_toy_bundle

    write_toy_bundle(folder, World(0), items=12)
