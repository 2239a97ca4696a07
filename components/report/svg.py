"""Draws charts as inline SVG in the page's colours, which follow its light or dark theme."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

Values = npt.NDArray[np.float64]
Curve = tuple[Sequence[float], Sequence[float]]
"""x and y."""

SERIES = 10
"""Number of series colours that the page defines; further series share the last."""
_INK, _MUTED, _GRID, _ALARM = "#010101", "#010102", "#010103", "#010104"
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--line", _ALARM: "--alarm"}
_VARIABLES |= {f"#0102{number:02d}": f"--series-{number}" for number in range(SERIES)}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}
_SIZE_INCHES = (4.4, 2.9)
_LOG_SCALE_FROM_RATIO = 30.0
_FEWEST_BINS, _MOST_BINS = 12, 48


def line_chart(
    curves: Mapping[str, Curve],
    *,
    alt: str,
    x_label: str,
    y_label: str,
    unit_square: bool = False,
    diagonal: bool = False,
) -> Markup:
    """Curves by name, in the order of the page's series colours.

    `diagonal` adds the chance level. An x-axis of ranges has whole numbers only.
    """
    with _axes() as (figure, axes):
        for number, (x, y) in enumerate(curves.values()):
            style: dict[str, Any] = {"marker": "o", "markersize": 4} if len(x) == 1 else {}
            axes.plot(x, y, color=_series(number), **style)
        if unit_square:
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        if diagonal:
            axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=all(isinstance(x, range) for x, _ in curves.values())))
        return _svg(figure, alt)


def rate_chart(sizes: Sequence[float], rates: Sequence[float], *, target: float, alt: str) -> Markup:
    """Rates in [0, 1] over evenly spaced sizes, with a dashed line at `target`."""
    with _axes((4.4, 2.0)) as (figure, axes):
        axes.axhline(target, color=_MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.plot(range(len(sizes)), rates, color=_series(0), marker="o", markersize=4)
        axes.set(ylim=(-0.05, 1.05), yticks=[0, 0.5, 1], xlabel="size in %", ylabel="found")
        axes.set_xticks(range(len(sizes)), [f"{100 * size:.3g}" for size in sizes])
        axes.yaxis.set_major_formatter(_PERCENT)
        return _svg(figure, alt)


def histogram(groups: Mapping[str, Values], *, alt: str, x_label: str, threshold: float | None = None) -> Markup:
    """Share of each group per bin; the axis is logarithmic if the values span orders of magnitude."""
    values = np.concatenate([*groups.values(), [] if threshold is None else [threshold]])
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    logarithmic = low > 0 and high / low > _LOG_SCALE_FROM_RATIO
    bins = int(np.clip(2 * np.sqrt(min(map(len, groups.values()))), _FEWEST_BINS, _MOST_BINS))
    edges = np.geomspace(low, high, bins + 1) if logarithmic else np.linspace(low, high, bins + 1)
    edges[0], edges[-1] = low, high  # geomspace may round the largest value out of the last bin
    with _axes() as (figure, axes):
        for number, group in enumerate(groups.values()):
            shares = np.histogram(group, edges)[0] / max(len(group), 1)
            axes.stairs(shares, edges, color=_series(number), fill=True, alpha=0.25)
            axes.stairs(shares, edges, color=_series(number), linewidth=1.5)
        if threshold is not None:
            axes.axvline(threshold, color=_ALARM, linewidth=1.5, linestyle=(0, (5, 3)))
        axes.set(xlabel=x_label, ylabel="share of images", xscale="log" if logarithmic else "linear")
        axes.yaxis.set_major_formatter(_PERCENT)
        return _svg(figure, alt)


def scatter(points: Values, groups: Sequence[int], crosses: npt.NDArray[np.bool_], *, alt: str) -> Markup:
    """Points [N, 2] in the colours of their groups; a cross where `crosses` [N] is true, else a dot."""
    with _axes((4.4, 3.6)) as (figure, axes):
        colours = np.asarray(groups)
        for group in sorted(set(groups)):
            for is_cross, marker, size in ((False, "o", 4.6), (True, "x", 5.0)):
                chosen = points[(colours == group) & (crosses == is_cross)]
                axes.plot(
                    *chosen.T, color=_series(group), linestyle="", marker=marker, markersize=size, alpha=0.75,
                    markeredgewidth=1.2 if is_cross else 0,
                )  # fmt: skip
        axes.set(xticks=[], yticks=[])
        return _svg(figure, alt)


def _series(number: int) -> str:
    return f"#0102{min(number, SERIES - 1):02d}"


_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.3g} %")


@contextmanager
def _axes(size_inches: tuple[float, float] = _SIZE_INCHES) -> Iterator[tuple[Figure, Any]]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size_inches, layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()


def _svg(figure: Figure, alt: str) -> Markup:
    """The figure as SVG with the page's colours, an accessible name, and no ids that could clash with other charts."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": alt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    _, _, text = buffer.getvalue().partition("<svg ")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    size = re.search(r'viewBox="[^"]*"', text)
    assert size
    body = text.partition(">")[2]
    name = Markup.escape(alt)
    return Markup(
        f'<svg {size.group()} role="img" aria-label="{name}" xmlns:xlink="http://www.w3.org/1999/xlink">{body}'
    )
