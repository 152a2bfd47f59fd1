import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/browser.py


@pytest.fixture(scope="module")
def engine():
    from serve_fakes import FakeEngine

    return FakeEngine()


@pytest.fixture(scope="module")
def url(engine):
    from serve_fakes import live

    with live(engine) as address:
        yield address


@pytest.fixture(scope="session")
def chromium():
    """A browser for playwright: its path and flags. Fails where there is none."""
    import browser
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)  # a busy machine is slow, not wrong
    path = browser.chromium()
    if path is None:
        pytest.fail(f"these tests need a browser: {browser.HOW}", pytrace=False)
    return {"executable_path": path, "args": browser.FLAGS}
