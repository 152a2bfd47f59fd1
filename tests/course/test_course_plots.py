"""The pictures: what is drawn, how often, and that it can be read in grey."""

import base64
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from nanochat.course import plots
from nanochat.runtime import open_run


class Letters:
    """A tokenizer of single letters."""

    def decode(self, ids):
        return "".join("ab \n"[i] for i in ids)


@pytest.fixture
def shown(monkeypatch):
    """Everything displayed, and every update of it."""
    seen = []

    class Handle:
        def update(self, data, raw):
            seen.append(data)

    def display(data, raw, display_id=None):
        seen.append(data)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    return seen


@pytest.fixture
def run(tmp_path):
    return open_run(tmp_path / "run", scale="toy", create=True)


def test_a_live_plot_is_redrawn_at_most_once_a_second(run, shown, monkeypatch):
    monkeypatch.delenv("COURSE_HEADLESS", raising=False)
    clock = iter(np.arange(100, 1000, 0.25))
    monkeypatch.setattr(plots.time, "monotonic", lambda: next(clock))
    live = plots.LossPlot(run, "base", every=0.01)
    for step in range(40):
        live({"step": step, "loss": 1.0})
    assert 5 <= len(shown) <= 12
    assert base64.b64decode(shown[-1]["image/png"])[:4] == b"\x89PNG"


def test_headless_it_is_drawn_once_from_the_whole_history(run, shown, monkeypatch):
    monkeypatch.setenv("COURSE_HEADLESS", "1")
    with plots.LossPlot(run, "base") as live:
        for step in range(5):
            row = {"step": step, "loss": 1.0}
            run.log("base", row)
            live(row)
    assert [data["text/plain"] for data in shown] == ["<base: loss>"]


def test_a_stage_that_was_complete_shows_its_curve(run, shown):
    run.log("base", {"step": 1, "loss": 2.0})
    run.log("base", {"kind": "val", "step": 1, "val_bpb": 0.7})
    with plots.LossPlot(run, "base"):
        pass
    assert [data["text/plain"] for data in shown] == ["<base: loss, val_bpb>"]


def test_a_stage_without_rows_shows_nothing(run, shown):
    with plots.LossPlot(run, "base"):
        pass
    assert shown == []


def test_the_likeliest_tokens_are_listed_with_visible_blanks(capsys):
    plots.show_top(Letters(), [0.1, 0.2, 0.6, 0.1], k=3, width=10)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["␣", "60.0%", "██████"], ["b", "20.0%", "██"], ["a", "10.0%", "█"]]


def test_a_mask_is_shown_with_a_plain_twin(monkeypatch):
    seen = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: seen.append(data))
    plots.show_mask(Letters(), [0, 1, 2], [0, 1, 0])
    assert seen[0]["text/plain"] == "a[b] "
    assert seen[0]["text/html"].count(plots.COLOURS[0]) == 1


def test_bars_and_probabilities_take_tensors():
    torch = pytest.importorskip("torch")
    fig, (left, right) = plt.subplots(1, 2)
    plots.plot_probs(left, Letters(), torch.tensor([0.1, 0.2, 0.6, 0.1]), k=2)
    plots.bars(right, ["x", "y"], torch.tensor([0.5, 0.9]), chance=0.25)
    assert [t.get_text() for t in left.get_xticklabels()] == ["␣", "b"]
    assert [round(bar.get_width(), 2) for bar in right.patches] == [0.5, 0.9]
    plt.close(fig)


def test_neighbouring_colours_can_be_told_apart_in_grey():
    light = [np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) for colour in plots.COLOURS]
    for i, (a, b) in enumerate(pairwise(light)):
        assert abs(a - b) > 0.1 or plots.DASHES[i] != plots.DASHES[i + 1]
