"""course.yml: what is wrong is told in one line; and the real one is right."""

import subprocess
import sys

import pytest
import yaml
from toycourse import COURSE

from nanochat.course import load
from nanochat.runtime import UserError


def with_change(course_folder, change) -> str:
    path = course_folder / "course.yml"
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(UserError) as wrong:
        load()
    assert "\n" not in str(wrong.value)
    return str(wrong.value)


def lesson(data: dict, i: int) -> dict:
    return data["lessons"][i]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: lesson(d, 0).update(id=1), 'lessons.0.id: Input should be a valid string; put it in quotes: "01"'),
        (lambda d: lesson(d, 0).update(colour="red"), "lessons.0.colour: Extra inputs are not permitted"),
        (lambda d: lesson(d, 0).pop("slug"), "lessons.0.slug: Field required"),
        (
            lambda d: lesson(d, 1).update(needs=["bytes"]),
            "lesson 02 names artifact 'bytes', which is not under artifacts",
        ),
        (lambda d: lesson(d, 0).update(needs=["words"]), "lesson 01 needs words, which no earlier lesson makes"),
        (lambda d: lesson(d, 0).update(makes=[]), "artifact words is made by no lesson"),
        (lambda d: lesson(d, 0)["exercises"].append(lesson(d, 0)["exercises"][0]), "exercise 01.merge is listed twice"),
        (
            lambda d: lesson(d, 1)["exercises"].append(lesson(d, 0)["exercises"].pop()),
            "exercise 01.ratio stands under lesson 02",
        ),
        (
            lambda d: lesson(d, 0)["exercises"][0].update(points=0),
            "lessons.0.exercises.0.points: Input should be greater than 0",
        ),
        (lambda d: d["lessons"].reverse(), "unique ids in rising order"),
        (lambda d: d["scales"]["toy"].pop("sft"), "scales.toy.sft: Field required"),
        (lambda d: d["scales"]["toy"]["sft"].update(stepz=3), "scales.toy.sft.stepz: Extra inputs are not permitted"),
        (
            lambda d: d["scales"]["toy"]["pretrain"].update(rows=30),
            "scales.toy.pretrain: rows (30) must be a multiple of streams (4)",
        ),
        (
            lambda d: d["scales"]["toy"]["pretrain"].update(horizon=0),
            "scales.toy.pretrain: horizon: Input should be greater",
        ),
        (
            lambda d: d["scales"]["toy"].update(pretrain={"horizon": 8, "model": {"depth": 2}}),
            "scales.toy.pretrain: model.sequence_len: Field required",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_place(course_folder, change, message):
    assert message in with_change(course_folder, change)


def test_broken_yaml_names_its_line(course_folder):
    (course_folder / "course.yml").write_text("version: 1\nlessons: [")
    with pytest.raises(UserError, match=r"line \d+: not valid YAML"):
        load()


def test_a_missing_course_says_what_to_do(course_folder):
    (course_folder / "course.yml").unlink()
    with pytest.raises(UserError, match="run nanochat from a checkout"):
        load()


def test_unknown_names_list_the_choices(course_folder):
    with pytest.raises(UserError, match="unknown scale 'huge'; choose one of smoke, toy"):
        load().scale("huge")
    with pytest.raises(UserError, match="no exercise '01.split' in course.yml; there are 01.merge, 01.ratio"):
        load().exercise("01.split")


def test_the_made_up_course_is_read_as_written(course_folder):
    course = load()
    assert [x.stem for x in course.lessons] == ["01_merging", "02_counting"]
    assert course.lesson("1").points == sum(e["points"] for e in COURSE["lessons"][0]["exercises"])
    assert course.exercise("01.merge").guards == ["toylib.merge"]


def test_a_scale_with_a_horizon_is_whole_when_it_is_read():
    d24, d12 = load().scale("gpt2"), load().scale("gpt2-d12")
    assert (d24.pretrain.rows, d24.pretrain.schedule.steps, d24.pretrain.model.n_embd) == (512, 5568, 1536)
    assert (d12.pretrain.rows, d12.pretrain.schedule.steps, d12.pretrain.model.n_embd) == (256, 1680, 768)
    decays = d24.pretrain.optim.matrix_decay, d12.pretrain.optim.matrix_decay
    assert decays == pytest.approx((0.0597, 0.28), abs=5e-5)
    assert d24.pretrain.data.shards == 170 and d12.name == "gpt2-d12" and d12.settings() != d24.settings()
    assert load().scale("gpt2-d24").settings() == d24.settings() | {"name": "gpt2-d24"}


def test_a_deeper_model_takes_fewer_rows_at_once():
    rows = [load().scale(f"gpt2-d{depth}").pretrain.device_rows for depth in (12, 24, 26, 30, 32, 34)]
    assert rows == [16, 16, 8, 8, 4, 4]
    assert load().scale("gpt2-d26").midtrain.device_rows == 8


def test_a_scale_without_a_horizon_has_one_depth():
    with pytest.raises(UserError, match="scale speedrun writes its batch and steps itself; .* other depths: gpt2$"):
        load().scale("speedrun-d12")
    for name in ("gpt2-d0", "gpt2-d", "huge-d12", "gpt2-d100"):
        with pytest.raises(UserError, match=f"unknown scale '{name}'"):
            load().scale(name)


def test_the_course_is_read_without_torch():
    code = "import sys; from nanochat.course import load; load().scale('gpt2-d26'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
