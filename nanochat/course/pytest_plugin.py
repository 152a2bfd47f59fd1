"""A pytest plugin that turns nbval's cells into points.

    COURSE_MODE=grade pytest -p nanochat.course.pytest_plugin --nbval-lax --course-grade out.json 01_bytes_and_bpe.ipynb

out.json: {"grades": {"01.merge": verdict}, "failures": [[tag, last line of the error], …]}. A grade counts only when
its cell ran and carried the verdict of its own exercise; a cell that was expected to fail (XFAIL, XPASS) says
nothing.
"""

import json
import re
from pathlib import Path

import pytest

from nanochat.course import notebooks
from nanochat.course.checks.judge import GRADE_MIME


def pytest_addoption(parser):
    parser.addoption("--course-grade", metavar="FILE", help="write the points of the graded notebook to FILE")


def pytest_configure(config):
    if config.getoption("--course-grade"):
        config.pluginmanager.register(Points(Path(config.getoption("--course-grade"))))


class Points:
    def __init__(self, path: Path):
        self.path = path
        self.grades: dict[str, dict] = {}
        self.failures: list[list[str]] = []

    def pytest_collection_modifyitems(self, items):
        for item in items:
            item.output_timeout = 60           # nbval's five seconds are too few on a busy machine

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        # After a cell that was cut short nbval expects every later one to fail. The kernel was interrupted, not lost (a
        # lost one fails by itself), so the neighbours are judged as ever.
        item.parent.timed_out = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if report.when != "call" and report.passed:
            return report
        exercise = notebooks.tag(item.cell, "grade")
        if exercise:
            verdict = _verdict(item, exercise)
            if verdict and not hasattr(report, "wasxfail"):
                self.grades[exercise] = (
                    verdict if report.passed or verdict["status"] != "passed" else verdict | {"points": 0}
                )
        elif report.failed:
            self.failures.append([" ".join(notebooks.tags(item.cell)), _last_line(str(report.longrepr))])
        return report

    def pytest_sessionfinish(self):
        self.path.write_text(json.dumps({"grades": self.grades, "failures": self.failures}))


def _verdict(item, exercise: str) -> dict | None:
    for output in item.test_outputs or []:
        verdict = output.get("data", {}).get(GRADE_MIME)
        if verdict and verdict.get("exercise") == exercise:
            return verdict
    return None


def _last_line(text: str) -> str:
    lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
