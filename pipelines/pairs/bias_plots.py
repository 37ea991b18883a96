"""The figures of the bias report and of the exposure model, as SVG inside the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.evaluation.plots import INK, OTHER, canvas, drawn
from pipelines.pairs.exposure_model import Exposure

COLOURS = {
    "matched": "#0072b2", "shp": "#d55e00", "paper": "#009e73", "askell": "#cc79a7", "margin": "#e69f00",
    "naive": OTHER,
}  # fmt: skip
MARKERS = {"matched": "o", "shp": "s", "paper": "D", "askell": "^", "margin": "v", "naive": "X"}
Row = Mapping[str, Any]


def exposure_curves(model: Exposure) -> str:
    """What each arrival rank costs, a line for each size of thread."""
    figure, axes = canvas(9, 3.2)
    axis = axes[0][0]
    shades = ("#56b4e9", "#0072b2", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#8c8c8c", "#555555")
    ends = [*(curve.size_from - 1 for curve in model.curves[1:]), None]
    for shade, curve, end in zip(shades, model.curves, ends, strict=False):
        length = min(len(curve.fall), end or len(curve.fall), 64)
        name = f"{curve.size_from} to {end}" if end else f"{curve.size_from} or more"
        axis.plot(
            range(1, length + 1),
            curve.fall[:length],
            color=shade,
            lw=1.6,
            ls="--" if curve.pooled else "-",
            marker="o",
            ms=3,
            label=f"{name} replies ({curve.threads:,} threads{', pooled' if curve.pooled else ''})",
        )
    axis.set_xscale("log", base=2)
    longest = max(axis.get_xlim()[1], 2)
    ticks = [tick for tick in (1, 2, 4, 8, 16, 32, 64) if tick <= longest]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.set_xlabel("order of arrival in the thread")
    axis.set_ylabel("score, in doublings")
    axis.grid(color=INK, alpha=0.15)
    axis.legend(frameon=False, fontsize=8.5, labelcolor=INK)
    return drawn(figure, "What arriving later costs", "Log-score by order of arrival, the first reply being 0.")


def confounding(rules: Mapping[str, Row], default: str) -> str:
    """Share chosen earlier against share chosen longer: a sound rule lies in the middle."""
    figure, axes = canvas(5.2, 4.2)
    axis = axes[0][0]
    axis.axhspan(0.45, 0.55, color=INK, alpha=0.07, lw=0)
    axis.axvspan(0.45, 0.55, color=INK, alpha=0.07, lw=0)
    for name, row in rules.items():
        if row["pairs"]:
            size = 11 if name == default else 8
            at = ([row["chosen_earlier"]], [row["chosen_longer"]])
            axis.plot(*at, MARKERS[name], color=COLOURS[name], ms=size, label=name, ls="")
    axis.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower left")
    axis.set_xlim(-0.03, 1.03)
    axis.set_ylim(0.2, 0.8)
    axis.set_xlabel("share of pairs whose chosen reply came earlier")
    axis.set_ylabel("share whose chosen reply is longer")
    axis.grid(color=INK, alpha=0.15)
    return drawn(figure, "Arrival and length", "Each rule by its shares; the bands mark 45 to 55 per cent.")


def shares(rules: Mapping[str, Row], field: str, title: str, label: str) -> str:
    """Quantiles (5, 25, 50, 75, 95 %) of a gap, a line for each rule."""
    shown = {name: row for name, row in rules.items() if row["pairs"]}
    figure, axes = canvas(9, 0.9 + 0.34 * len(shown))
    axis = axes[0][0]
    for y, (name, row) in enumerate(shown.items()):
        low, quarter, half, three, high = (row[field][key] for key in ("q05", "q25", "q50", "q75", "q95"))
        axis.plot([low, high], [y, y], color=COLOURS[name], lw=1.5)
        axis.plot([quarter, three], [y, y], color=COLOURS[name], lw=5, solid_capstyle="butt")
        axis.plot([half], [y], marker="|", color=INK, ms=14, mew=2)
    axis.axvline(0, color=INK, lw=0.8, ls=":")
    axis.set_xscale("symlog", linthresh=1)
    axis.set_yticks(range(len(shown)), list(shown))
    axis.set_ylim(len(shown) - 0.5, -0.5)
    axis.set_xlabel(label)
    return drawn(figure, title, "Thin: 5 to 95 per cent of pairs; thick: 25 to 75; bar: median. Numbers in the table.")


def overlap(names: Sequence[str], jaccard: Mapping[str, Mapping[str, float | None]]) -> str:
    """The share of pairs that two rules have in common (Jaccard), as a matrix."""
    figure, axes = canvas(5.2, 4.0)
    axis = axes[0][0]
    values = [[jaccard[a][b] or 0.0 for b in names] for a in names]
    axis.imshow(values, cmap="Blues", vmin=0, vmax=1)
    for row, first in enumerate(names):
        for column, second in enumerate(names):
            value = jaccard[first][second]
            shown = "" if value is None else f"{value:.2f}"
            dark = (value or 0.0) > 0.55
            axis.text(column, row, shown, ha="center", va="center", color="white" if dark else "#333333", fontsize=9)
    axis.set_xticks(range(len(names)), list(names), rotation=30)
    axis.set_yticks(range(len(names)), list(names))
    for side in ("left", "bottom"):
        axis.spines[side].set_visible(False)
    return drawn(figure, "Overlap", "Jaccard index of the pairs of each two rules; every number stands in the table.")


def agreement(rows: Mapping[str, Row], default: str) -> str:
    """Agreement with the true quality, with intervals, one line a rule."""
    shown = {name: row for name, row in rows.items() if row["mean"] is not None}
    figure, axes = canvas(9, 0.9 + 0.34 * len(shown))
    axis = axes[0][0]
    for y, (name, row) in enumerate(shown.items()):
        low, high = (row["mean"] if row[end] is None else row[end] for end in ("low", "high"))
        axis.plot([low, high], [y, y], color=COLOURS[name], lw=2)
        axis.plot([row["mean"]], [y], MARKERS[name], color=COLOURS[name], ms=8 if name == default else 6)
        axis.annotate(
            f"{row['mean']:.3f} [{low:.3f}, {high:.3f}]  {row['n']:,} pairs",
            (1.01, y), xycoords=("axes fraction", "data"), va="center",
        )  # fmt: skip
    axis.set_yticks(range(len(shown)), list(shown))
    axis.set_ylim(len(shown) - 0.5, -0.5)
    axis.set_xlabel("share of pairs whose chosen reply is truly the better one")
    axis.grid(axis="x", color=INK, alpha=0.15)
    return drawn(figure, "Agreement with the truth", "Shares with intervals; every number stands in the table below.")
