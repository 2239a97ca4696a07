"""Requests are batched only while the model is busy; each gets its own rows or its own error."""

import threading

import numpy as np
import pytest
from waiting import wait_until

from serving.errors import ServingError, invalid_argument
from serving.model.batching import Batcher
from serving.model.loaded_model import Arrays


class Doubler:
    """Doubles x once `may_run` is set, refuses negative numbers, and records the size of every batch."""

    def __init__(self) -> None:
        self.may_run = threading.Event()
        self.sizes: list[int] = []

    def __call__(self, inputs: Arrays) -> Arrays:
        self.sizes.append(len(inputs["x"]))
        assert self.may_run.wait(20)
        if (inputs["x"] < 0).any():
            raise invalid_argument("negative")
        return {"y": 2 * inputs["x"]}


def _call_together(doubler: Doubler, requests: list[list[float]], max_batch_size: int = 64) -> list[list[float] | str]:
    """The answer to each request: the first finds the model idle, the others arrive while it is busy."""
    batcher = Batcher(doubler, max_batch_size=max_batch_size)
    answers: list[list[float] | str] = [[]] * len(requests)

    def call(index: int) -> None:
        try:
            answers[index] = batcher({"x": np.array(requests[index])})["y"].tolist()
        except ServingError as error:
            answers[index] = error.message

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(requests))]
    for index, thread in enumerate(threads):
        thread.start()
        wait_until(lambda expected=index: len(doubler.sizes) + len(batcher._queue) == expected + 1)
    doubler.may_run.set()
    for thread in threads:
        thread.join()
    return answers


def test_lone_request_runs_immediately() -> None:
    """As a batch of its own."""
    doubler = Doubler()
    assert _call_together(doubler, [[1.0, 2.0]]) == [[2.0, 4.0]]
    assert doubler.sizes == [2]


def test_waiting_requests_are_joined_and_split_again() -> None:
    """Whatever their sizes, including an empty one."""
    doubler = Doubler()
    answers = _call_together(doubler, [[1.0], [2.0], [3.0, 4.0], [], [5.0]])
    assert answers == [[2.0], [4.0], [6.0, 8.0], [], [10.0]]
    assert doubler.sizes == [1, 4]


def test_batches_do_not_exceed_the_maximum_size() -> None:
    """A request that does not fit joins the next batch; one that fills a batch by itself does not wait."""
    doubler = Doubler()
    answers = _call_together(doubler, [[1.0], [2.0, 2.0], [3.0, 3.0], [4.0]], max_batch_size=3)
    assert answers == [[2.0], [4.0, 4.0], [6.0, 6.0], [8.0]]
    assert doubler.sizes == [1, 3, 2]


def test_error_affects_only_the_request_at_fault() -> None:
    """The joined batch fails; each request is then run by itself."""
    doubler = Doubler()
    assert _call_together(doubler, [[1.0], [2.0], [-3.0], [4.0]]) == [[2.0], [4.0], "negative", [8.0]]
    assert doubler.sizes == [1, 3, 1, 1, 1]


def test_unexpected_exception_wakes_all_waiting_requests() -> None:
    """No request waits forever, and the next one runs."""

    class Defect(Doubler):
        def __call__(self, inputs: Arrays) -> Arrays:
            super().__call__(inputs)
            raise RuntimeError("defect")

    defect = Defect()
    batcher = Batcher(defect, max_batch_size=8)
    defect.may_run.set()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="defect"):
            batcher({"x": np.array([1.0])})
