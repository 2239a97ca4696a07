"""Formats comparisons as a table for people and a document for programs."""

import importlib.metadata
import os
import platform
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from bench.comparison import Comparison

_PACKAGES = ("tfx", "tensorflow", "tf-keras", "apache-beam", "tensorflow-model-analysis", "numpy")


def table_of(comparisons: list[Comparison], *, title: str) -> Table:
    """One row per comparison, in the given order."""
    table = Table(title=title, title_justify="left")
    for name, justify in {"area": "left", "what": "left", "ours": "right", "images/s": "right"}.items():
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("reference")
    for name in ("reference time", "ratio", "target", "holds"):
        table.add_column(name, justify="right")
    for comparison in comparisons:
        table.add_row(*row_of(comparison))
    return table


def row_of(comparison: Comparison) -> tuple[str, ...]:
    """The cells of one row, with medians."""
    ours = median(comparison.ours_s)
    return (
        comparison.area,
        comparison.what,
        amount(ours, comparison.unit),
        f"{comparison.items / ours:,.0f}" if comparison.items else "",
        comparison.reference,
        amount(median(comparison.reference_s), comparison.unit),
        f"{comparison.ratio:.2f}",
        f"<= {comparison.max_ratio:.3g}",
        "yes" if comparison.holds else "NO",
    )


def document_of(
    comparisons: list[Comparison], failures: dict[str, str], *, size: str, repetitions: int
) -> dict[str, Any]:
    """All measurements, with versions and machine; `failures`: area -> why it could not be measured."""
    return {
        "size": size,
        "repetitions": repetitions,
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "comparisons": [
            {**asdict(comparison), "ratio": comparison.ratio, "holds": comparison.holds} for comparison in comparisons
        ],
        "failures": failures,
    }


def machine() -> dict[str, Any]:
    """The machine; a load above the number of cores means that other programs were running."""
    cpu = [line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "system": platform.platform(),
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load": [round(load, 1) for load in os.getloadavg()],
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def amount(value: float, unit: str) -> str:
    """Seconds or milliseconds, or megabytes if the unit is MB, to read."""
    if unit == "MB":
        return f"{value:,.0f} MB"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:,.1f} s"
