"""course.yml, read and checked: lessons, artifacts, exercises, scales.

    course = load()                    # a Course; one clear line when course.yml is wrong
    course.exercise("01.merge").points
    course.scale("toy").pretrain       # a PretrainConfig, filled in from the scale's section
    course.scale("gpt2-d26").pretrain  # of a scale with a horizon, at another depth

Everything about a lesson follows from its id and slug: its text, notebook, solutions and mutants have fixed places
under the root of the course. The root is the checkout that holds this package; NANOCHAT_COURSE names another one.
"""

import math
import os
import re
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nanochat.runtime import UserError
from nanochat.train import scaling
from nanochat.train.config import (
    CharRNNConfig,
    ChatTrainConfig,
    GRPOConfig,
    MachineConfig,
    MiniseriesConfig,
    PretrainConfig,
)

Id = r"^\d\d$"
ExerciseId = r"^\d\d\.[a-z][a-z0-9_]*$"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Exercise(Section):
    """One graded exercise: `name` is what the learner defines, `reference` what `use` gives until it passes."""

    id: str = Field(pattern=ExerciseId)
    name: str
    points: int = Field(gt=0)
    level: int = Field(ge=1, le=3)
    lines: int = Field(gt=0)             # roughly how long a good answer is
    minutes: int = Field(gt=0)
    reference: str                       # import path
    guards: list[str] = []               # import paths the learner's code may not call
    timeout_s: float | None = None       # a case may take this long; None: defaults.case_timeout_s

    @property
    def lesson(self) -> str:
        return self.id[:2]


class Lesson(Section):
    id: str = Field(pattern=Id)
    slug: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    teaches: str = ""                    # one line, for tables
    needs: list[str] = []
    makes: list[str] = []
    minutes: int = 90                    # for a reader
    budget_s: dict[str, float] = {}      # scale -> wall seconds the notebook should take
    exercises: list[Exercise] = []

    @property
    def stem(self) -> str:
        return f"{self.id}_{self.slug}"

    @property
    def text(self) -> Path:
        return root() / "notebooks" / f"{self.stem}.py"

    @property
    def notebook(self) -> Path:
        return root() / "notebooks" / f"{self.stem}.ipynb"

    @property
    def solutions(self) -> Path:
        return root() / "notebooks" / "solutions" / f"{self.id}.py"

    @property
    def mutants(self) -> Path:
        return root() / "tests" / "mutants" / f"{self.id}.py"

    @property
    def points(self) -> int:
        return sum(exercise.points for exercise in self.exercises)


class Artifact(Section):
    """Something a lesson leaves in the run directory. It is there when `proof` is (a file written last)."""

    path: str
    proof: str
    made_by: str = Field(pattern=Id)


class TokenizerConfig(Section):
    vocab_size: int = Field(gt=265)      # 256 bytes, nine specials, at least one merge
    digits: int = Field(ge=1, le=3)      # longest run of digits in one token
    documents: int | None = None         # documents it is trained on; None: stop at `chars` only
    chars: int = Field(gt=0)             # characters it is trained on, at most


class EvalConfig(Section):
    """How much is evaluated; None means everything."""

    max_items: int | None = None         # per chat task
    core: bool = False                   # CORE needs the evaluation bundle
    core_per_task: int | None = None


class Hardware(Section):
    """What `nanochat plan` assumes about the machine."""

    name: str
    peak_tflops: float = Field(gt=0)     # dense, one device, in the precision trained in
    memory_gb: float = Field(gt=0)       # one device
    mfu: float = Field(gt=0, le=1)
    dollars_per_hour: float = Field(ge=0)  # the whole machine


class Scale(Section):
    """Everything that differs between a laptop and a node. All keys are required: a scale has no blanks."""

    name: str = ""
    where: str
    hardware: Hardware
    machine: MachineConfig
    tokenizer: TokenizerConfig
    char_rnn: CharRNNConfig
    pretrain: PretrainConfig
    miniseries: MiniseriesConfig
    midtrain: ChatTrainConfig
    sft: ChatTrainConfig
    grpo: GRPOConfig
    evals: EvalConfig

    @field_validator("pretrain", mode="before")
    @classmethod
    def _from_depth(cls, stage, info):
        """With a horizon, what the stage does not write itself follows from its depth."""
        if not isinstance(stage, dict) or stage.get("horizon") is None or "tokenizer" not in info.data:
            return stage
        try:
            return scaling.filled(stage, info.data["tokenizer"].vocab_size)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None

    def settings(self) -> dict:
        """What is made, as JSON values, wherever it is made: what a stamp is made from."""
        return self.model_dump(mode="json", exclude={"where", "hardware", "machine"})

    def changed(self, changes: dict) -> "Scale":
        """The same scale with some settings changed: {"machine": {"nproc": 2}}. Raises UserError for a wrong one."""
        try:
            return Scale.model_validate(_merged(self.model_dump(), changes))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UserError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None


def _merged(old: dict, changes: dict) -> dict:
    """`old` with `changes` in it, section by section."""
    return old | {key: _merged(old[key], new) if isinstance(new, dict) else new for key, new in changes.items()}


class Defaults(Section):
    case_timeout_s: float = Field(5, gt=0)
    cell_timeout_s: float = Field(600, gt=0)


class Course(Section):
    version: int
    checks: str = "nanochat.course.checks"   # the package that holds lessonNN.py
    defaults: Defaults = Defaults()
    artifacts: dict[str, Artifact]
    lessons: list[Lesson] = Field(min_length=1)
    scales: dict[str, Scale]
    _written: dict = {}                      # course.yml as it was read

    def lesson(self, lesson_id: str) -> Lesson:
        for lesson in self.lessons:
            if lesson.id == lesson_id.zfill(2):
                return lesson
        raise UserError(f"no lesson {lesson_id!r}; choose one of {', '.join(lesson.id for lesson in self.lessons)}")

    def exercise(self, exercise_id: str) -> Exercise:
        exercises = {e.id: e for lesson in self.lessons for e in lesson.exercises}
        if exercise_id in exercises:
            return exercises[exercise_id]
        mine = [i for i in exercises if i[:2] == exercise_id[:2]] or list(exercises)
        raise UserError(f"no exercise {exercise_id!r} in course.yml; there are {', '.join(mine)}")

    def scale(self, name: str) -> Scale:
        """The scale called `name`; `<name>-d<depth>` is one with a horizon at another depth."""
        if name in self.scales:
            return self.scales[name].model_copy(update={"name": name})
        base, _, depth = name.rpartition("-d")
        if base not in self.scales or not re.fullmatch("[1-9][0-9]?", depth):
            raise UserError(f"unknown scale {name!r}; choose one of {', '.join(self.scales)}")
        if not self.scales[base].pretrain.horizon:
            able = ", ".join(n for n, scale in self.scales.items() if scale.pretrain.horizon) or "there is none"
            raise UserError(f"scale {base} writes its batch and steps itself; its depth is not free. "
                            f"Scales with a horizon have other depths: {able}")  # fmt: skip
        return _at_depth(self._written["scales"][base], int(depth)).model_copy(update={"name": name})

    @model_validator(mode="after")
    def _consistent(self):
        ids = [lesson.id for lesson in self.lessons]
        if ids != sorted(set(ids)):
            raise ValueError(f"lessons must have unique ids in rising order, not {ids}")
        seen: set[str] = set()
        for exercise in (e for lesson in self.lessons for e in lesson.exercises):
            if exercise.id in seen:
                raise ValueError(f"exercise {exercise.id} is listed twice")
            seen.add(exercise.id)
        for lesson in self.lessons:
            for exercise in lesson.exercises:
                if exercise.lesson != lesson.id:
                    raise ValueError(f"exercise {exercise.id} stands under lesson {lesson.id}")
            for name in lesson.needs + lesson.makes:
                if name not in self.artifacts:
                    raise ValueError(f"lesson {lesson.id} names artifact {name!r}, which is not under artifacts")
            for name in lesson.makes:
                if self.artifacts[name].made_by != lesson.id:
                    raise ValueError(
                        f"artifact {name} is made_by {self.artifacts[name].made_by}, but lesson {lesson.id} makes it"
                    )
            for name in lesson.needs:
                if self.artifacts[name].made_by >= lesson.id:
                    raise ValueError(f"lesson {lesson.id} needs {name}, which no earlier lesson makes")
            for scale in lesson.budget_s:
                if scale not in self.scales:
                    raise ValueError(f"lesson {lesson.id} has a budget for unknown scale {scale!r}")
        for name, artifact in self.artifacts.items():
            if not any(name in lesson.makes for lesson in self.lessons):
                raise ValueError(f"artifact {name} is made by no lesson (made_by says {artifact.made_by})")
        return self


def _at_depth(written: dict, depth: int) -> Scale:
    """A scale with a horizon at another depth: a device takes half the rows at once where the weights double."""
    model = written["pretrain"]["model"]
    grown = depth * scaling.width(depth) ** 2 / (model["depth"] * scaling.width(model["depth"]) ** 2)
    halved = 2 ** max(0, math.ceil(math.log2(grown)))
    stages = {name: dict(written[name]) for name in ("pretrain", "midtrain", "sft", "grpo")}
    for stage in stages.values():
        if stage.get("device_rows"):
            stage["device_rows"] = max(1, stage["device_rows"] // halved)
    stages["pretrain"]["model"] = {**model, "depth": depth}
    return Scale.model_validate({**written, **stages})


def root() -> Path:
    """The folder of course.yml."""
    return Path(os.environ.get("NANOCHAT_COURSE") or Path(__file__).resolve().parents[2])


def load() -> Course:
    """The course under root(). Raises UserError with one line that says where course.yml is wrong."""
    path = root() / "course.yml"
    if not path.exists():
        raise UserError(f"{path} does not exist; run nanochat from a checkout, or set NANOCHAT_COURSE to one")
    return _load(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _load(path: Path, mtime_ns: int) -> Course:
    try:
        data = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{place}: not valid YAML ({getattr(error, 'problem', None) or error})") from None
    try:
        course = Course.model_validate(data)
        course._written = data
        return course
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "top level"
        message = first["msg"].removeprefix("Value error, ")
        if isinstance(first.get("input"), int) and first["type"] == "string_type":
            message += f'; put it in quotes: "{first["input"]:02d}"'
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UserError(f"{path.name}: {place}: {message}{more}") from None
