"""Requests are batched only while the model is busy; each gets its own rows or its own error."""

import threading
from typing import Any

import numpy as np
from waiting import wait_until

from serving.errors import ServingError, invalid_argument
from serving.model.batching import Batcher, Steps, answered, each_alone
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
    batcher = Batcher(doubler, max_batch_size=max_batch_size, runs_at_once=1)
    answers: list[list[float] | str] = [[]] * len(requests)

    def call(index: int) -> None:
        [answers[index]] = _shown(batcher([{"x": np.array(requests[index])}]))

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(requests))]
    for index, thread in enumerate(threads):
        thread.start()
        wait_until(lambda expected=index: len(doubler.sizes) + len(batcher._queue) == expected + 1)
    doubler.may_run.set()
    for thread in threads:
        thread.join()
    return answers


def _shown(outcomes: list[Arrays | Exception]) -> list[list[float] | str]:
    return [str(outcome) if isinstance(outcome, Exception) else outcome["y"].tolist() for outcome in outcomes]


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
    batcher = Batcher(defect, max_batch_size=8, runs_at_once=1)
    defect.may_run.set()
    for _ in range(2):
        own, joined = batcher([{"x": np.array([1.0])}, {"x": np.array([2.0])}])
        assert isinstance(own, RuntimeError)
        assert (type(joined), str(joined)) == (ServingError, "RuntimeError while running a batch")


def test_requests_of_one_caller_are_joined() -> None:
    """Up to the maximum size; one that is full by itself runs alone, and an error is only that of its request."""
    doubler = Doubler()
    doubler.may_run.set()
    batcher = Batcher(doubler, max_batch_size=3, runs_at_once=1)
    requests = [[1.0], [2.0, 3.0], [4.0], [-5.0], [6.0, 7.0, 8.0], [9.0]]
    outcomes = batcher([{"x": np.array(values)} for values in requests])
    assert _shown(outcomes) == [[2.0], [4.0, 6.0], [8.0], "negative", [12.0, 14.0, 16.0], [18.0]]
    assert doubler.sizes == [3, 3, 1, 1, 1, 3]


def test_one_run_answers_the_requests_that_ask_for_the_same() -> None:
    """Others run by themselves; whatever fails, in whichever step, is the answer of that request only."""
    doubler = Doubler()
    doubler.may_run.set()
    batcher = Batcher(doubler, max_batch_size=64, runs_at_once=1)
    alone = each_alone(doubler)

    def steps(x: float, run: Any = batcher, defect: str = "") -> Steps[str]:
        if defect == "before":
            raise ValueError("before")
        outputs = yield run, {"x": np.array([x])}
        if defect == "after":
            raise ValueError("after")
        return f"{outputs['y'][0]:g}"

    def immediate() -> Steps[str]:
        yield from ()
        return "no run"

    requests = [steps(1), steps(2, defect="before"), steps(3, alone), immediate(), steps(4, defect="after"), steps(5)]
    assert [str(answer) for answer in answered(requests)] == ["2", "before", "6", "no run", "after", "10"]
    assert doubler.sizes == [3, 1]


def test_two_requests_run_side_by_side_until_there_are_enough_to_join() -> None:
    """After a joined batch, one batch runs at a time until two in a row had nothing to join."""
    may_end, sizes, answers = threading.Semaphore(0), [], {}

    def double(inputs: Arrays) -> Arrays:
        sizes.append(len(inputs["x"]))
        assert may_end.acquire(timeout=20)
        return {"y": 2 * inputs["x"]}

    batcher = Batcher(double, max_batch_size=64, runs_at_once=2)

    def call(number: float) -> None:
        [answers[number]] = _shown(batcher([{"x": np.array([number])}]))

    def ask(number: float, *, running: list[int], waiting: int) -> None:
        threading.Thread(target=call, args=(number,)).start()
        wait_until(lambda: (sizes, len(batcher._queue)) == (running, waiting))

    def end_one(*, answered: int, running: list[int]) -> None:
        may_end.release()
        wait_until(lambda: (len(answers), sizes) == (answered, running))

    ask(1, running=[1], waiting=0)
    ask(2, running=[1, 1], waiting=0)
    ask(3, running=[1, 1], waiting=1)
    ask(4, running=[1, 1], waiting=2)
    end_one(answered=1, running=[1, 1, 2])
    may_end.release()
    end_one(answered=4, running=[1, 1, 2])

    ask(5, running=[1, 1, 2, 1], waiting=0)
    ask(6, running=[1, 1, 2, 1], waiting=1)
    end_one(answered=5, running=[1, 1, 2, 1, 1])
    ask(7, running=[1, 1, 2, 1, 1, 1], waiting=0)
    may_end.release()
    end_one(answered=7, running=[1, 1, 2, 1, 1, 1])
    assert answers == {number: [2.0 * number] for number in range(1, 8)}
