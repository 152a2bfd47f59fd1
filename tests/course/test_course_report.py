"""The report card, written from what a run recorded."""

import json

import pytest
import yaml

from nanochat.course.report import report
from nanochat.runtime import UserError, open_run, write_json


@pytest.fixture
def run(course_folder):
    run = open_run("toy", scale="toy", seed=0, create=True)
    run.record("base", {"val_bpb": 0.61, "cloze_acc": 0.99}, chance={"cloze_acc": 0.02})
    run.record("char_rnn", {"val_bpb": 0.75})
    run.record("sft", {"tool_acc": 0.5})
    run.record("grpo", {"reward_first": 0.5, "reward_last": 0.96})
    run.record("time", {"01_s": 12.0, "total_s": 12.0})
    for step in (10, 20, 30):
        run.log("base", {"step": step, "loss": 3 / step, "core_s": step})
    run.log("base", {"kind": "val", "step": 30, "val_bpb": 0.61})
    return run


def test_the_card_has_every_number_and_chance_beside_accuracies(run):
    text = report(run).read_text()
    assert "| `val_bpb` | 0.750 | 0.610 | – | – |" in text
    assert "| `cloze_acc` | – | 0.990 | – | – | 0.020 |" in text
    assert "| `tool_acc` | – | – | 0.500 | – | not recorded |" in text
    assert "★ **Reads better than an RNN**" in text and "☆ **Uses its calculator**: 50.0% right" in text
    assert "★ **Learns from reward**: reward 0.50 → 0.96" in text
    assert "**3 of 4 milestones.**" in text
    assert "| 01 Merging | 12 s |" in text
    assert "Not taken yet" in text
    assert str(run.path) not in text


def test_the_pictures_it_shows_are_there(run):
    text = report(run).read_text()
    for name in ("loss", "bpb"):
        assert f"(plots/{name}.png)" in text and (run / "plots" / f"{name}.png").stat().st_size > 1000
    assert "reward.png" not in text


def test_compression_stands_beside_gpt4s_where_that_was_at_hand(run):
    assert "## The tokenizer" not in report(run).read_text()
    run.record("tokenizer", {"bytes_per_token_news": 1.5, "bytes_per_token_own_text": 3.25})
    assert "| bytes per token | this run's |\n| --- | --: |\n| news | 1.50 |\n| own text | 3.25 |" in report(run).read_text()
    run.record("tokenizer", {"cl100k_bytes_per_token_news": 4.5, "cl100k_bytes_per_token_own_text": 4})
    assert "| own text | 3.25 | 4.00 |\n\n![bytes per token](plots/tokenizer.png)" in report(run).read_text()
    assert (run / "plots" / "tokenizer.png").stat().st_size > 1000


def test_report_json_is_flat(run):
    report(run)
    assert json.loads((run / "report.json").read_text()) == run.results()


def test_the_exam_stands_in_the_card_once_it_is_graded(run, course_folder):
    write_json(course_folder / "runs" / "grades.json", {"01": {"points": 3, "out_of": 4}})
    assert "| 01 Merging | 3 | 4 |" in report(run).read_text()


def test_questions_seen_in_training_stand_in_the_card_once_they_were_looked_for(run):
    write_json(run / "contamination.json", {"toy-free": {"questions": 300, "exact": 0, "overlap": 3, "sources": {"text": [0, 1], "toy-qa": [0, 2]}}})
    text = report(run).read_text()
    assert "## Questions seen in training" in text and "| toy-free | 300 | 0 (0.0%) | 3 (1.0%) | toy-qa |" in text


def test_the_card_has_the_numbers_that_followed_from_depth(course_folder):
    path = course_folder / "course.yml"
    course = yaml.safe_load(path.read_text())
    course["scales"]["toy"]["pretrain"]["horizon"] = 20
    path.write_text(yaml.safe_dump(course))
    run = open_run("toy", scale="toy", seed=0, create=True)
    run.record("base", {"val_bpb": 0.61})
    text = report(run).read_text()
    assert "## Hyperparameters from depth" in text and "20 × 851,968 weights that are multiplied" in text


def test_a_run_without_results_has_no_card(course_folder):
    with pytest.raises(UserError, match="recorded no results yet"):
        report(open_run("toy", scale="toy", create=True))
