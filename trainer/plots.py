"""Pictures as PNG: a fit's course, predictors side by side, a search. Drawn without a display, from figures alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from models.items.signals import DAY_S
from trainer.fitting.fit import Epoch

if TYPE_CHECKING:  # who draws a fit needs no optuna
    from trainer.tuning import Tried

# told apart by most who see colours otherwise (Okabe & Ito 2008), and by their lightness on paper
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
COMPARED = {
    "ndcg_at_10": "ndcg@10",
    "recall_at_20": "recall@20",
    "mrr_at_20": "mrr@20",
    "perplexity": "perplexity (less is better)",
}
COLUMNS = 4  # of panels, in the picture of a search
DPI = 110
LOGARITHMIC = ("learning_rate", "hidden_dimension", "bptt", "successor_half_life_s")


def draw_curves(path: Path, fits: Mapping[str, Sequence[Epoch]]) -> None:
    """Draw each fit by epoch: its loss in training and on the newest slice, and the perplexity that the latter is."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    losses, perplexities = figure.subplots(1, 2)
    for number, (name, curve) in enumerate(fits.items()):
        colour = COLOURS[number % len(COLOURS)]
        epochs = [epoch.number for epoch in curve]
        newest = [epoch.newest_loss for epoch in curve]
        said = [math.exp(min(loss, 700.0)) for loss in newest]
        losses.plot(epochs, [epoch.loss for epoch in curve], "--", color=colour, marker=".")
        losses.plot(epochs, newest, color=colour, marker="o")
        perplexities.plot(epochs, said, color=colour, marker="o", label=name)
        kept = min((pair for pair in zip(said, epochs, strict=True) if math.isfinite(pair[0])), default=None)
        if kept is not None:
            perplexities.plot(kept[1], kept[0], "*", color=colour, markersize=15, markeredgecolor="white")
    losses.set(title="Loss", xlabel="epoch", ylabel="mean cross-entropy of an event, nats")
    perplexities.set(title="Newest slice", xlabel="epoch", ylabel="perplexity, items")
    for axes in (losses, perplexities):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _calm(axes)
    meaning = [
        Line2D([], [], color="black", linestyle="--", marker=".", label="training: weighed, with dropout"),
        Line2D([], [], color="black", marker="o", label="newest slice"),
        Line2D([], [], color="black", linestyle="", marker="*", markersize=12, label="epoch kept"),
    ]
    figure.legend(handles=meaning, loc="outside upper center", ncols=3, frameon=False)
    fitted, _ = perplexities.get_legend_handles_labels()
    figure.legend(handles=fitted, loc="outside lower center", ncols=4, frameon=False)
    _save(figure, path)


def draw_comparison(path: Path, shown: Sequence[Mapping[str, Any]], log_name: str) -> None:
    """Draw what predictors came to on one split, a panel a figure; `shown` are the protocol's figures."""
    names = [one["recipe"] for one in shown]
    figure = Figure(figsize=(11, 1.9 + 0.36 * len(names)), layout="constrained")
    first = shown[0]
    figure.suptitle(f"{log_name}: {first['events']:,} later events predicted, each before it is learned of")
    for axes, (key, title) in zip(figure.subplots(1, len(COMPARED), sharey=True), COMPARED.items(), strict=True):
        values = [one[key] for one in shown]
        there = [value for value in values if value is not None]
        best = None if not there else min(there) if key == "perplexity" else max(there)
        colours = [COLOURS[1] if value == best else COLOURS[0] for value in values]
        axes.barh(names, [value or 0.0 for value in values], color=colours, height=0.7)
        for place, value in enumerate(values):
            said = "none given" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            axes.annotate(said, (value or 0.0, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set_title(title, fontsize=11)
        axes.margins(x=0.28)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.tick_params(axis="y", length=0)
        _calm(axes, grid="x")
    axes.invert_yaxis()  # they share it: the first one on top
    _save(figure, path)


def draw_search(path: Path, tried: Sequence[Tried]) -> None:
    """Draw a search: perplexity by trial and how the best fell, then by each setting that was searched."""
    whole = [trial for trial in tried if trial.state == "complete"]
    pruned = [trial for trial in tried if trial.state == "pruned"]
    names = list(tried[0].settings)
    rows = 1 + -(-len(names) // COLUMNS)
    figure = Figure(figsize=(12, 3.2 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, COLUMNS)
    low, high = _limits([trial.perplexity for trial in whole])
    top = figure.add_subplot(grid[0, :])
    top.axhline(tried[0].perplexity, color=COLOURS[7], linestyle=":", label="the defaults, trial 0")
    best = [min(trial.perplexity for trial in whole if trial.number <= at.number) for at in whole]
    top.step([trial.number for trial in whole], best, where="post", color=COLOURS[0], label="best so far")
    _points(top, lambda trial: trial.number, whole, pruned, high)
    top.set(title="Perplexity of the newest slice (what is off the scale, on its edge)", xlabel="trial")
    top.set_ylabel("perplexity, items")
    top.set_xlim(-0.5, len(tried) - 0.5)
    top.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panels = [top]
    for place, name in enumerate(names):
        axes = figure.add_subplot(grid[1 + place // COLUMNS, place % COLUMNS])
        panels.append(axes)
        _points(axes, _scale(axes, name, tried), whole, pruned, high)
        if place % COLUMNS == 0:
            axes.set_ylabel("perplexity, items")
        else:
            axes.tick_params(labelleft=False)
    for axes in panels:
        axes.set_ylim(low, high)
        _calm(axes)
    figure.legend(*top.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    _save(figure, path)


def _points(
    axes: Axes, place: Callable[[Tried], float], whole: Sequence[Tried], pruned: Sequence[Tried], high: float
) -> None:
    """Draw trials as points, those that were given up by where they stood then."""
    best = min(whole, key=lambda trial: trial.perplexity)
    for trials, mark, colour, size, label in (
        (whole, "o", COLOURS[0], 6, "trial"),
        (pruned, "x", COLOURS[1], 6, "given up, at its last epoch"),
        ([best], "*", COLOURS[2], 15, "best"),
    ):
        at, heights = [place(trial) for trial in trials], [min(trial.perplexity, high) for trial in trials]
        if not trials:
            continue  # nothing, drawn unclipped, has no extent that a layout could be made for
        axes.plot(at, heights, mark, color=colour, markersize=size, label=label, alpha=0.85, clip_on=False)


def _limits(heights: Sequence[float]) -> tuple[float, float]:
    """Bound heights so that a few hopeless trials do not press all others into a line."""
    in_order = sorted(heights)
    low, usual = in_order[0], in_order[int(0.9 * (len(in_order) - 1))]
    room = max(usual - low, 0.02 * low)
    return low - 0.15 * room, low + 1.3 * room


def _scale(axes: Axes, name: str, tried: Sequence[Tried]) -> Callable[[Tried], float]:
    """Set a setting's axis up -> where on it a trial stands; choices stand side by side."""
    axes.set_xlabel(name)
    if not all(type(trial.settings[name]) in (int, float) for trial in tried):
        choices = sorted({trial.said[name] for trial in tried})
        axes.set_xticks(range(len(choices)), [choice.replace(" ", "\n") for choice in choices], fontsize=8)
        axes.set_xlim(-0.6, len(choices) - 0.4)
        return lambda trial: float(choices.index(trial.said[name]))
    unit = DAY_S if name.endswith("_s") else 1.0
    if unit != 1.0:
        axes.set_xlabel(f"{name}, in days")
    if name in LOGARITHMIC:
        axes.set_xscale("log")
        values = [trial.settings[name] / unit for trial in tried]
        axes.set_xlim(min(values) / 1.3, max(values) * 1.3)
        axes.xaxis.set_major_locator(LogLocator(10, (1.0, 2.0, 5.0) if max(values) < 50 * min(values) else (1.0,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    return lambda trial: trial.settings[name] / unit


def _calm(axes: Axes, grid: str = "y") -> None:
    axes.grid(True, axis=grid, color="#DDDDDD", linewidth=0.7)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)  # no display is looked for
    figure.savefig(path, dpi=DPI, format="png")
