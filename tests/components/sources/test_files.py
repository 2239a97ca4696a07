"""Reading ahead on several threads: the order of one core, a bounded number of results, the reader's own errors."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from repository import REPOSITORY

from components.sources.files import read_ahead

ITEMS = range(200)


@pytest.mark.parametrize("workers", [1, 2, 7, None])
def test_results_come_in_the_order_of_the_items(workers):
    def slow_at_first(item):
        time.sleep(0.02 if item % 50 == 0 else 0)
        return -item

    assert list(read_ahead(slow_at_first, ITEMS, Path("/"), workers=workers)) == [-item for item in ITEMS]


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (2, 17), (100, 65)])
def test_only_a_few_items_are_read_ahead(workers, most):
    started = []
    results = read_ahead(
        lambda item: item, (started.append(item) or item for item in ITEMS), Path("/"), workers=workers
    )
    assert next(results) == 0
    assert len(started) <= most
    results.close()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_as_many_items_are_read_at_a_time_as_there_are_workers(workers):
    together = threading.Barrier(workers, timeout=10)
    assert list(read_ahead(lambda item: together.wait() >= 0, range(2 * workers), Path("/"), workers=workers))


def test_by_default_there_is_a_thread_for_each_core_of_the_process():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        used = set(read_ahead(lambda item: threading.get_ident(), ITEMS, Path("/")))
    finally:
        os.sched_setaffinity(0, before)
    assert used == {threading.get_ident()}


def test_an_error_of_the_reader_is_raised_in_its_turn():
    def fails(item):
        if item == 5:
            raise ValueError(f"no {item}")
        return item

    results = read_ahead(fails, ITEMS, Path("/"), workers=3)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="no 5"):
        next(results)


def test_a_folder_read_by_processes_is_the_same_as_by_one_core(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(1000):
        path = folder / f"{number:04d}.{('png', 'jpg', 'bmp')[number % 3]}"
        Image.fromarray(random.integers(0, 256, (9, 8, 3), np.uint8)).save(path)
        if number % 10 == 0:
            path.write_bytes(path.read_bytes()[: -random.integers(1, 200)])
    script = f"""
import sys
import tensorflow
from components.settings import DataSettings
from components.sources.registry import plan_source
from runtime import reader_processes
reader_processes.prepare()
read, asked = reader_processes.read_all, []
reader_processes.read_all = lambda *arguments, **named: asked.append(named) or read(*arguments, **named)
found = []
for workers in (1, 3):
    settings = DataSettings(source="folder", path={str(folder)!r}, workers=workers)
    found.append([image for shard in plan_source(settings).shards for image in shard.read()])
assert found[0] == found[1]
assert asked == [{{"processes": 3}}]
print(len(found[0]), sum(type(image).__name__ == "Reject" for image in found[0]))
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    count, rejected = map(int, done.stdout.split())
    assert count == 1000
    assert 0 < rejected < 100
