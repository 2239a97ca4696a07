"""The areas of the benchmark, each measured in its own process."""

import importlib
import logging
import os
import warnings

from bench.comparison import Comparison

AREAS = (
    "startup", "small_run", "ingestion", "features", "training", "serving", "local_runners", "whole_pipeline",
    "scaling", "tiles", "export", "many_models",
)  # fmt: skip
"""Modules of this package, in the order of the table; each has `compare(size, repetitions) -> list[Comparison]`."""


def measure(area: str, size: str, repetitions: int) -> list[Comparison]:
    """Run one area's comparisons. Call it in a separate process: it redirects standard output to standard error."""
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    logging.getLogger("absl").setLevel(logging.ERROR)
    comparisons: list[Comparison] = importlib.import_module(f"bench.{area}").compare(size, repetitions)
    return comparisons
