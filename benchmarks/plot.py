"""The tokenizer benchmark in one picture: training over corpus size and over vocabulary, encoding as bars."""

from pathlib import Path

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

NAMES = {"ours": "rustbpe of this course", "rustbpe": "rustbpe (PyPI)", "tokenizers": "HF tokenizers"}
COLOURS = {"ours": "#1f77b4", "rustbpe": "#d62728", "tokenizers": "#ff9f1c"}


def draw(record: dict, path: Path) -> None:
    """Draws what `record` has of it."""
    rcParams["svg.hashsalt"] = "tokenizer"  # the same numbers, the same file
    figure = Figure(figsize=(13, 4), layout="constrained")
    sizes, vocabs, bars = figure.subplots(1, 3)
    training = record.get("training", {}).get("results", [])
    points = [
        (row["trainer"], row["threads"], result["text"]["mb"], row["seconds"])
        for result in training
        for row in result["rows"]
    ]
    for name, threads in sorted({(name, threads) for name, threads, *_ in points}):
        line = sorted((mb, seconds) for n, t, mb, seconds in points if (n, t) == (name, threads))
        style = {"color": COLOURS[name], "marker": "o", "linestyle": "--" if threads > 1 else "-"}
        sizes.plot(*zip(*line, strict=True), label=f"{NAMES[name]}, {threads} thread{'s' * (threads > 1)}", **style)
    logarithmic(sizes, "training time", "MB of text", "seconds")

    curve = record.get("curve", {}).get("results", {})
    rows = list(curve.get("rows", []))
    rows += [row for result in training if curve and result["text"] == curve["text"] for row in result["rows"]]
    for name in ("ours", "rustbpe"):
        line = sorted((row["vocab"], row["seconds"]) for row in rows if (row["trainer"], row["threads"]) == (name, 1))
        if line:
            vocabs.plot(*zip(*line, strict=True), color=COLOURS[name], marker="o", label=f"{NAMES[name]}, 1 thread")
    logarithmic(
        vocabs, f"training time, {curve['text']['mb']:.0f} MB" if curve else "", "tokens in the vocabulary", "seconds"
    )

    for i, result in enumerate(record.get("encoding", {}).get("results", [])):
        speed = result["MB/s"]
        kinds = ["numpy", "tiktoken numpy", "list", "tiktoken list", "HF tokenizers list"]
        kinds = [kind for kind in kinds if kind in speed]
        places = [k + 6 * i for k in range(len(kinds))]
        colours = [
            "#2ca02c" if "tiktoken" in kind else COLOURS["tokenizers" if "HF" in kind else "ours"] for kind in kinds
        ]
        bars.barh(places, [speed[kind] for kind in kinds], color=colours)
        for place, kind in zip(places, kinds, strict=True):
            label = f" {kind if ' ' in kind else 'ours ' + kind}, {result['vocabulary']}: {speed[kind]:.0f}"
            bars.text(speed[kind], place, label, va="center", fontsize=7)
    bars.set(title="encoding, one thread", xlabel="MB/s", yticks=[])
    bars.set_xlim(right=1.9 * bars.get_xlim()[1])
    bars.invert_yaxis()
    figure.savefig(path, metadata={"Date": None})


def logarithmic(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y, xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=7, loc="center right")
