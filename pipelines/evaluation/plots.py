"""The report's figures as SVG that is part of the page: real text, the page's own colour, no files to fetch.

What is ink (axes, text, grid) is drawn in ``currentColor``, so that a figure follows the
reader's light or dark page; data keep mid-tone colours that colour-blind readers can tell
apart (Okabe and Ito 2008) and differ in marker or line style as well.
"""

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK = "#12ab34"
"""Stands for currentColor while matplotlib draws."""
COLOURS = {"sft": "#0072b2", "dpo1": "#d55e00", "dpo2": "#009e73"}
OTHER = "#8c8c8c"
MARKERS = {"sft": "o", "dpo1": "s", "dpo2": "D"}
LABELS = {
    "sft": "SFT",
    "dpo1": "DPO1",
    "dpo2": "DPO2",
    "base": "base",
    "gm": "GM",
    "im": "IM",
    "length": "longer reply",
}
MEASURES = (("loss", "loss"), ("rewards/accuracies", "reward accuracy"), ("kl", "KL, nats a token"))
"""What the training curves show: its name in the trainer's log, and on the axis."""
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "llumi",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
}

Row = Mapping[str, Any]


def label(name: str) -> str:
    """The name of a model, stage or baseline as readers see it."""
    return LABELS.get(name, name)


def curves(runs: Mapping[str, Sequence[Row]], title: str) -> str:
    """Training loss of each stage of one model, below it reward accuracy and KL of the DPO stages; dashed: held out."""
    stages = list(runs)
    measures = [(key, name) for key, name in MEASURES if any(key in point for run in runs.values() for point in run)]
    figure, axes = canvas(9, 0.3 + 2.2 * max(1, len(measures)), rows=max(1, len(measures)), columns=len(stages))
    for column, stage in enumerate(stages):
        axes[0][column].set_title(label(stage), loc="left")
        for row, (key, name) in enumerate(measures):
            points, held_out = points_of(runs[stage], key), points_of(runs[stage], f"eval_{key}")
            plot_curve(axes[row][column], stage, name, points, held_out)
    return drawn(figure, title, f"Line charts over training steps for {', '.join(map(label, stages))}.")


def points_of(run: Sequence[Row], key: str) -> list[tuple[float, float]]:
    """Step and value of one measure."""
    return [(point["step"], point[key]) for point in run if key in point and "step" in point]


def plot_curve(
    axis: Axes,
    stage: str,
    name: str,
    points: Sequence[tuple[float, float]],
    held_out: Sequence[tuple[float, float]] = (),
) -> None:
    """One measure of one stage over its steps, dashed on the validation split; an empty place where there is none."""
    if not points:
        axis.set_axis_off()
        return
    steps, values = zip(*points, strict=True)
    mark = MARKERS.get(stage, "o") if len(points) < 60 else None
    axis.plot(steps, values, color=COLOURS.get(stage, OTHER), lw=1.5, marker=mark, ms=3)
    if held_out:
        axis.plot(*zip(*held_out, strict=True), color=INK, lw=1.2, ls="--", marker="x", ms=4)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.set_xlabel("step")
    axis.set_ylabel(name)
    if name == "reward accuracy":
        axis.set_ylim(0, 1.02)
        axis.axhline(0.5, color=INK, lw=0.8, ls=":")


def forest(rows: Sequence[Row], title: str) -> str:
    """Reward accuracies with their intervals, one line each, and chance at one half."""
    figure, axes = canvas(9, 0.9 + 0.3 * len(rows))
    axis = axes[0][0]
    for y, row in enumerate(rows):
        value, colour = row["accuracy"], COLOURS.get(row["policy"], OTHER)
        if value is None:
            continue
        low, high = (value if row[end] is None else row[end] for end in ("low", "high"))
        axis.plot([low, high], [y, y], color=colour, lw=2)
        face = colour if row["headline"] else "none"
        marker = MARKERS.get(row["policy"], "|")
        axis.plot([value], [y], marker=marker, color=colour, mfc=face, ms=7, mew=1.5)
        axis.annotate(
            f"{value:.2f} [{low:.2f}, {high:.2f}]", (1.01, y), xycoords=("axes fraction", "data"), va="center"
        )
    axis.set_yticks(range(len(rows)), [forest_label(row) for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    lowest = min((row["low"] for row in rows if row["low"] is not None), default=0.4)
    axis.set_xlim(min(0.4, lowest - 0.03), 1.01)
    axis.axvline(0.5, color=INK, lw=0.8, ls=":")
    axis.set_xlabel("share of held-out pairs ranked right (dotted: chance; filled: the stage's own pairs)")
    return drawn(figure, title, "Forest plot; every number stands in the table below.")


def forest_label(row: Row) -> str:
    """Words before a line of the forest plot."""
    versus = f" vs {label(row['reference'])}" if row["reference"] else ""
    return f"{label(row['model'])} · {row['pairs']} · {label(row['policy'])}{versus}"


def qualities(models: Mapping[str, Mapping[str, Row]], title: str) -> str:
    """Mean latent quality with its interval, one panel a model, one line a stage."""
    figure, axes = canvas(9, 2.4, columns=len(models), sharex=True)
    for axis, (model, found) in zip(axes[0], models.items(), strict=True):
        for y, (name, value) in enumerate(found.items()):
            colour = COLOURS.get(name, OTHER)
            if value["low"] is not None:
                axis.plot([value["low"], value["high"]], [y, y], color=colour, lw=2)
            if value["mean"] is not None:
                axis.plot([value["mean"]], [y], marker=MARKERS.get(name, "o"), color=colour, ms=7)
        axis.set_yticks(range(len(found)), [label(name) for name in found])
        axis.set_ylim(len(found) - 0.5, -0.5)
        axis.set_title(label(model), loc="left")
        axis.set_xlabel("mean latent quality")
        axis.grid(axis="x", color=INK, alpha=0.15)
    return drawn(figure, title, "Means with intervals; every number stands in the table below.")


def canvas(
    width: float, height: float, rows: int = 1, columns: int = 1, sharex: bool = False
) -> tuple[Figure, Sequence[Sequence[Axes]]]:
    """An empty figure of ``width`` x ``height`` inches and its axes by row and column."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes: Any = figure.subplots(rows, columns, squeeze=False, sharex=sharex)
        for axis in axes.flat:
            axis.patch.set_alpha(0)
    figure.patch.set_alpha(0)
    return figure, axes


def drawn(figure: Figure, title: str, description: str) -> str:
    """The figure as an ``<svg>`` element with a name and a description for those who do not see it."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    opening = svg.index(">") + 1
    box = re.search(r'viewBox="[^"]*"', svg[:opening])
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box[0] if box else ""}'
    words = escape(f"{title}. {description}", quote=True)
    return f'{head} role="img" aria-label="{words}"><title>{escape(title)}</title>{svg[opening:]}'
