"""Four short texts of our own, to compare tokenizers on: what is cheap for one of them may be dear for another.

    samples()["Korean"]
"""

from pathlib import Path

HERE = Path(__file__).parent


def samples() -> dict[str, str]:
    """{kind: text} of about 2 to 6 kB each: an invented news story, this library's code, LaTeX, a Korean story."""
    files = {
        "news": HERE / "news.txt",
        "code": HERE.parent / "chat.py",
        "maths": HERE / "maths.txt",
        "Korean": HERE / "korean.txt",
    }
    return {kind: file.read_text(encoding="utf-8") for kind, file in files.items()}
