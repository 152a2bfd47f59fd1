"""course.yml: what is wrong is told in one line; and the real one is right."""

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
