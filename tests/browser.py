"""Finds a Chromium for the browser tests, and gets one where it can: `python tests/browser.py`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HOW = "install chromium (Debian: apt-get install chromium), or run `python -m playwright install chromium`"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def chromium() -> str | None:
    """The path of a browser: $CHROMIUM, one on the PATH, or the one playwright fetched."""
    named = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if named:
        return named
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        path = p.chromium.executable_path
    return path if Path(path).exists() else None


def main() -> int:
    if chromium():
        return 0
    if shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], check=False, stdout=subprocess.DEVNULL)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu-core"],
                       check=False, stdout=subprocess.DEVNULL)
    else:
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)
    if chromium():
        return 0
    print(f"no browser for the browser tests: {HOW}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
