"""Formats measurements as a table for people and a document for programs."""

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import mean
from typing import Any

from rich.table import Table

from bench.detection.measurement import Measurement
from bench.table import machine

_SHARES = {
    "image AUROC": "image_auroc",
    "pixel AUROC": "pixel_auroc",
    "PRO": "region_overlap",
    "recall at 1 %": "recall_at_1",
    "at 5 %": "recall_at_5",
}
_AT_OWN_THRESHOLD = ("alarms", "found")
"""Details of our models: shares of sound and of defective test images that raise an alarm."""
_NONE = "–"


def table_of(measurements: Sequence[Measurement], *, title: str) -> Table:
    """One row for each task and method: means over the seeds, and the largest difference between two of them."""
    table = Table(title=title, title_justify="left")
    for name in ("task", "method"):
        table.add_column(name)
    for name in (*_SHARES, "alarms, found", "training", "per image", "memory", "gate"):
        table.add_column(name, justify="right")
    for task, method in dict.fromkeys((one.task, one.method) for one in measurements):
        table.add_row(*row_of([one for one in measurements if (one.task, one.method) == (task, method)]))
    return table


def row_of(seeds: Sequence[Measurement]) -> tuple[str, ...]:
    """The cells of one task and method; shares in percent, their spread in brackets."""

    def average(value: Callable[[Measurement], float]) -> float:
        return mean(map(value, seeds))

    verdicts = [one.verdict for one in seeds if one.verdict]
    return (
        seeds[0].task,
        seeds[0].method,
        *(_percent([getattr(one.quality, name) for one in seeds]) for name in _SHARES.values()),
        ", ".join(
            _percent([one.details[name] for one in seeds]) for name in _AT_OWN_THRESHOLD if name in seeds[0].details
        )
        or _NONE,
        f"{average(lambda one: one.training_s):.0f} s",
        f"{average(lambda one: one.ms_per_image):.0f} ms",
        f"{average(lambda one: one.peak_mb):,.0f} MB",
        f"{verdicts.count('blessed')} of {len(verdicts)} blessed" if verdicts else "",
    )


def document_of(
    measurements: Sequence[Measurement], failures: dict[str, str], settings: dict[str, Any]
) -> dict[str, Any]:
    """Every seed's measurement; a number that does not exist is null."""
    return {
        "settings": settings,
        "machine": machine(),
        "python": platform.python_version(),
        "measurements": [
            {**asdict(one), "quality": {name: _or_none(value) for name, value in asdict(one.quality).items()}}
            for one in measurements
        ],
        "failures": failures,
    }


def _percent(values: Sequence[float]) -> str:
    if any(map(math.isnan, values)):
        return _NONE
    spread = f" ({100 * (max(values) - min(values)):.1f})" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
