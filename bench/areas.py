"""What the benchmark consists of; each area is measured in a process of its own."""

import importlib
import logging
import os
import warnings

from bench.comparison import Comparison

AREAS = ("startup", "ingestion", "training", "serving", "local_runners", "whole_pipeline", "scaling")
"""Modules of this package, in the table's order; each has `compare(size, repetitions) -> list[Comparison]`."""


def measure(area: str, size: str, repetitions: int) -> list[Comparison]:
    """What one area's module measures. For a process of its own: its standard output is sent to standard error."""
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    logging.getLogger("absl").setLevel(logging.ERROR)
    comparisons: list[Comparison] = importlib.import_module(f"bench.{area}").compare(size, repetitions)
    return comparisons
