"""Compares Beam's default mode on one machine with its other modes."""

import tempfile
from pathlib import Path

from bench.comparison import Comparison
from bench.images import write_synthetic_images
from bench.scaling import one_epoch_on
from bench.timing import run_here

_OTHERS = {
    "multi_threading, 2 workers": ("--direct_running_mode=multi_threading", "--direct_num_workers=2"),
    "multi_processing, 2 workers": ("--direct_running_mode=multi_processing", "--direct_num_workers=2"),
}
_COUNTS = {"tiny": 1_400, "small": 4_000, "full": 70_000}


def compare(size: str, repetitions: int) -> list[Comparison]:
    """Whole runs of one epoch; the default mode should be the fastest."""
    count = _COUNTS[size]
    seconds: dict[str, list[float]] = {"default": [], **{name: [] for name in _OTHERS}}
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        write_synthetic_images(images, count, seed=0)
        if size != "tiny":
            run_here(one_epoch_on(images, root=f"{folder}/warm-up", count=count))
        for repetition in range(repetitions):
            for name in seconds:
                settings = one_epoch_on(images, root=f"{folder}/{repetition}-{name}", count=count)
                beam = {"beam": {"args": _OTHERS[name]}} if name in _OTHERS else {}
                seconds[name].append(run_here({**settings, **beam})[0])
    return [
        Comparison(
            "local runner", f"{count:,} images, one epoch", name, tuple(seconds["default"]), tuple(seconds[name]), 1.0
        )
        for name in _OTHERS
    ]
