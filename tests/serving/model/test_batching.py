"""Requests are joined when the model is busy, and only then; each gets its own rows, or its own error."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from serving.errors import ServingError, invalid_argument
from serving.model.batching import Batcher
from serving.model.loaded_model import Arrays


class Doubler:
    """Doubles x once it may, refuses negative numbers, and remembers the size of every batch."""

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
    """The answer to each request: the first finds the model idle, the others come while it is busy."""
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
        _wait_for(lambda expected=index: len(doubler.sizes) + len(batcher._queue) == expected + 1)
    doubler.may_run.set()
    for thread in threads:
        thread.join()
    return answers


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_lone_request_is_run_at_once() -> None:
    """Alone, as it is."""
    doubler = Doubler()
    assert _call_together(doubler, [[1.0, 2.0]]) == [[2.0, 4.0]]
    assert doubler.sizes == [2]


def test_requests_that_wait_are_joined_and_taken_apart_again() -> None:
    """Whatever their sizes; an empty one among them."""
    doubler = Doubler()
    answers = _call_together(doubler, [[1.0], [2.0], [3.0, 4.0], [], [5.0]])
    assert answers == [
        [2.0],
        [4.0],
        [6.0, 8.0],
        [],
        [10.0],
    ]
    assert doubler.sizes == [1, 4]


def test_no_batch_is_larger_than_allowed() -> None:
    """What does not fit goes with the next; what fills a batch by itself does not wait."""
    doubler = Doubler()
    answers = _call_together(doubler, [[1.0], [2.0, 2.0], [3.0, 3.0], [4.0]], max_batch_size=3)
    assert answers == [[2.0], [4.0, 4.0], [6.0, 6.0], [8.0]]
    assert doubler.sizes == [1, 3, 2]


def test_one_senders_error_is_no_other_senders() -> None:
    """The joined batch fails; alone, only the request at fault does."""
    doubler = Doubler()
    assert _call_together(doubler, [[1.0], [2.0], [-3.0], [4.0]]) == [[2.0], [4.0], "negative", [8.0]]
    assert doubler.sizes == [1, 3, 1, 1, 1]


def test_defect_in_the_model_wakes_everyone() -> None:
    """An exception that is no refusal: nobody waits for ever, and the next request is run."""

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
