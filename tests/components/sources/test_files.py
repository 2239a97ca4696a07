"""Reading ahead on several threads: the order of one core, a bounded number of results, the reader's own errors."""

import os
import threading
import time
from pathlib import Path

import pytest

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
