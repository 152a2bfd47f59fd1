"""One palette and the few pictures that lessons share, so that a cell shows the idea and not the plotting.

    from nanochat.course.plots import LossPlot, plot_probs, style
    style()                                        # once, in an early cell
    with LossPlot(run, "base") as live:            # redrawn at most once a second; the last picture holds all of it
        launch("pretrain", S.pretrain, run, S.machine, live=live)

Colours differ in lightness and lines in dash, so everything can be read in grey. Arrays may be numpy's or torch's.
"""

import base64
import html
import io
import os
import time
from collections.abc import Sequence

import numpy as np

COLOURS = ("#1f3b63", "#e07a2d", "#3f9c8f", "#b7443c", "#8d7fb3", "#9a948a")
DASHES = ("-", "--", ":", "-.", "-", "--")
GREY = "#9a948a"
DPI = 100


def style() -> None:
    """Set matplotlib's defaults: small, light, the palette."""
    import matplotlib as mpl

    mpl.rcParams.update(
        {
            "figure.figsize": (6, 3),
            "figure.dpi": DPI,
            "savefig.dpi": DPI,
            "figure.constrained_layout.use": True,
            "font.size": 9,
            "axes.titlesize": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": mpl.cycler(color=COLOURS) + mpl.cycler(linestyle=DASHES),
            "axes.axisbelow": True,
            "axes.grid": True,
            "grid.color": "#e6e3de",
            "grid.linewidth": 0.6,
            "legend.frameon": False,
        }
    )


def numbers(values) -> np.ndarray:
    """A float numpy array of a list, an array or a tensor."""
    if hasattr(values, "detach"):
        values = values.detach().float().cpu()
    return np.asarray(values, dtype=float)


# --- curves ---------------------------------------------------------------------------------------------------------


def curve(ax, history: list[dict], key: str, label: str = "", x: str = "step", **settings) -> None:
    """One column of a run's history against another (rows without it are left out), its label at the line's end."""
    rows = [row for row in history if key in row and x in row]
    if not rows:
        return
    line, = ax.plot([row[x] for row in rows], [row[key] for row in rows], **({"linewidth": 1.4} | settings))
    if label:
        ax.annotate(label, (rows[-1][x], rows[-1][key]), xytext=(4, 0), textcoords="offset points", va="center",
                    color=line.get_color(), fontsize=8)


class LossPlot:
    """A live picture of a stage: loss on the left, validation bits per byte on the right (or, for GRPO, the reward).

    Call it with each row of metrics; it redraws at most once in `every` seconds. Used as a context manager it draws
    once more at the end, from the run's own history: so a stage that was complete already shows its curve as well.
    Headless (COURSE_HEADLESS is set) only that last picture is drawn. Makes its own figure: pyplot is not safe in
    callbacks.
    """

    def __init__(self, run, stage: str, keys: Sequence[str] = ("loss", "val_bpb"), every: float = 1.0):
        self.run, self.stage, self.keys, self.every = run, stage, tuple(keys), max(every, 1.0)
        self.rows: list[dict] = run.history(stage)
        self.drawn = 0.0
        self.handle = None

    def __call__(self, row: dict) -> None:
        self.rows.append(row)
        if not os.environ.get("COURSE_HEADLESS") and time.monotonic() - self.drawn >= self.every:
            self.draw()

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.rows = self.run.history(self.stage)
        self.draw()

    def draw(self) -> None:
        """Show the rows so far, in place of the picture before."""
        self.drawn = time.monotonic()
        keys = [key for key in self.keys if any(key in row for row in self.rows)]
        if not keys:
            return
        data = {"image/png": _png(self._figure(keys)), "text/plain": f"<{self.stage}: {', '.join(keys)}>"}
        from IPython.display import display

        if self.handle is None:
            self.handle = display(data, raw=True, display_id=True)
        else:
            self.handle.update(data, raw=True)

    def _figure(self, keys: list[str]):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(3.2 * len(keys), 2.4), dpi=DPI, layout="constrained")
        for i, (key, ax) in enumerate(zip(keys, np.atleast_1d(figure.subplots(1, len(keys))))):
            smooth = "loss_average" if key == "loss" and any("loss_average" in row for row in self.rows) else None
            curve(ax, self.rows, key, color=GREY if smooth else COLOURS[i], linewidth=0.8 if smooth else 1.4)
            if smooth:
                curve(ax, self.rows, smooth, color=COLOURS[i])
            last = next((row[key] for row in reversed(self.rows) if key in row), None)
            ax.set(xlabel="step", title=f"{self.stage}: {key}" + (f" {last:.3f}" if last is not None else ""))
            ax.spines[["top", "right"]].set_visible(False)
        return figure


def _png(figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return base64.b64encode(buffer.getvalue()).decode()


# --- distributions over tokens ---------------------------------------------------------------------------------------


def piece(tokenizer, i: int) -> str:
    """One token as it can be printed: spaces and line ends made visible."""
    return repr(tokenizer.decode([int(i)]))[1:-1].replace(" ", "␣") or "∅"


def top(probs, k: int) -> list[int]:
    """The ids of the k largest entries, largest first; of equal ones the smaller id first."""
    return np.argsort(-numbers(probs), kind="stable")[:k].tolist()


def show_top(tokenizer, probs, k: int = 8, width: int = 30) -> None:
    """Print the k likeliest next tokens with a bar each."""
    values = numbers(probs)
    for i in top(values, k):
        print(f"{piece(tokenizer, i):>12}  {values[i]:6.1%}  {'█' * round(width * values[i])}")


def plot_probs(ax, tokenizer, probs, k: int = 8, title: str = "") -> None:
    """Bars for the k likeliest next tokens."""
    values = numbers(probs)
    ids = top(values, k)
    ax.bar(range(len(ids)), values[ids], color=COLOURS[0])
    ax.set_xticks(range(len(ids)), [piece(tokenizer, i) for i in ids], rotation=60, ha="right", fontsize=8)
    ax.set(title=title, ylim=(0, 1))


# --- comparisons ------------------------------------------------------------------------------------------------------


def bars(
    ax, labels: Sequence[str], values, *, chance=None, title: str = "", unit: str = "", highlight: int | None = None
) -> None:
    """Horizontal bars with their values written out; `chance` (one number, or one for each bar) is drawn as a mark."""
    values = numbers(values)
    colours = [COLOURS[1] if i == highlight else COLOURS[0] for i in range(len(values))]
    ax.barh(range(len(values)), values, color=colours, height=0.65)
    ax.set_yticks(range(len(values)), labels)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    for i, value in enumerate(values):
        ax.annotate(
            f"{value:.3g}{unit}", (value, i), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8
        )
    if chance is not None:
        levels = np.broadcast_to(numbers(chance), values.shape)
        ax.vlines(
            levels,
            np.arange(len(values)) - 0.4,
            np.arange(len(values)) + 0.4,
            color=COLOURS[3],
            linestyle=":",
            linewidth=1.6,
        )
        ax.annotate(
            "chance",
            (levels[-1], len(values) - 0.55),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=7,
            color=COLOURS[3],
        )
    ax.set(title=title)
    ax.margins(x=0.15)


def grouped_bars(ax, labels: Sequence[str], series: dict[str, Sequence[float]], *, title: str = "") -> None:
    """Horizontal bars side by side: one group a label, one colour a series, its name at its bar of the first group."""
    height = 0.8 / len(series)
    for n, (name, values) in enumerate(series.items()):
        places = np.arange(len(labels)) + (n - (len(series) - 1) / 2) * height
        ax.barh(places, values, height=0.9 * height, color=COLOURS[n])
        ax.annotate(name, (values[0], places[0]), xytext=(3, 0), textcoords="offset points", va="center", fontsize=6.5)
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(title=title)
    ax.margins(x=0.3)


def heatmap(ax, matrix, *, rows: Sequence[str] = (), columns: Sequence[str] = (), title: str = "") -> None:
    """A matrix in one hue, dark where it is large; zeros stay white."""
    from matplotlib.colors import LinearSegmentedColormap

    ax.imshow(numbers(matrix), cmap=LinearSegmentedColormap.from_list("course", ["#ffffff", COLOURS[0]]), aspect="auto")
    ax.grid(visible=False)
    ax.set_yticks(range(len(rows)), rows, fontsize=7)
    ax.set_xticks(range(len(columns)), columns, fontsize=7, rotation=90)
    ax.set(title=title)


# --- text with colours -----------------------------------------------------------------------------------------------


def show_tokens(tokenizer, ids: Sequence[int]) -> None:
    """The text with its tokens in alternating shades."""
    shades = ("#dfe6f0", "#f6e3d2")
    spans = [_span(tokenizer.decode([int(i)]), shades[n % 2]) for n, i in enumerate(ids)]
    _show_html("".join(spans), "|".join(tokenizer.decode([int(i)]) for i in ids))


def show_mask(tokenizer, ids: Sequence[int], mask: Sequence[int]) -> None:
    """A rendered conversation: tokens that are trained on are dark, the rest is light."""
    spans, words = [], []
    for i, trained in zip(ids, mask, strict=True):
        text = tokenizer.decode([int(i)])
        spans.append(_span(text, COLOURS[0] if trained else "#eeebe6", "#ffffff" if trained else "#333333"))
        words.append(f"[{text}]" if trained else text)
    _show_html("".join(spans), "".join(words))


def _span(text: str, background: str, colour: str = "#111111") -> str:
    shown = html.escape(text).replace("\n", "⏎<br>")
    look = f"background:{background};color:{colour};padding:1px 2px;margin:0 1px;white-space:pre-wrap"
    return f'<span style="{look}">{shown}</span>'


def _show_html(body: str, text: str) -> None:
    """Colours where the front end can show them, plain text (GitHub's diff, a terminal, nbval) elsewhere."""
    from IPython.display import display

    display(
        {"text/html": f'<div style="font-family:monospace;line-height:1.8">{body}</div>', "text/plain": text}, raw=True
    )
