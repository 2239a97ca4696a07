"""Batches the requests that arrive while the model is busy; otherwise a request runs immediately.

There is no timer: a lone client never waits, and under load a batch holds what arrived during the previous run.

A request is answered in steps, so that one thread can answer several: it prepares each, runs the model once for those
that ask for the same, and completes each.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from serving.errors import ServingError, Status
from serving.model.loaded_model import Arrays

Answer = TypeVar("Answer")
Run = Callable[[Arrays], Arrays]
RunAll = Callable[[Sequence[Arrays]], "list[Arrays | Exception]"]
"""Runs several requests: the outputs or the error of each."""
Steps = Generator[Any, Any, Answer]
"""How a request is answered: yields at most once a RunAll and its inputs, receives their outputs or error, and returns
the answer.
"""


def answered(requests: Iterable[Steps[Answer]]) -> "list[Answer | Exception]":
    """The answer or the error of each request; the model runs once for those that yield the same `RunAll`."""
    results: list[Answer | Exception] = []
    waiting: dict[RunAll, list[tuple[int, Steps[Answer], Arrays]]] = {}
    for index, steps in enumerate(requests):
        try:
            run_all, inputs = next(steps)
        except StopIteration as end:
            results.append(end.value)
        except Exception as error:
            results.append(error)
        else:
            results.append(RuntimeError("not run"))
            waiting.setdefault(run_all, []).append((index, steps, inputs))
    for run_all, group in waiting.items():
        outcomes = run_all([inputs for _, _, inputs in group])
        for (index, steps, _), outcome in zip(group, outcomes, strict=True):
            results[index] = _completed(steps, outcome)
    return results


def _completed(steps: Steps[Answer], outcome: "Arrays | Exception") -> "Answer | Exception":
    try:
        if isinstance(outcome, Exception):
            steps.throw(outcome)
        else:
            steps.send(outcome)
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    except Exception as error:
        return error
    return RuntimeError("a request asked for a second run")


def answered_alone(steps: Steps[Answer]) -> Answer:
    """The answer of one request; raises its error."""
    [answer] = answered([steps])
    if isinstance(answer, Exception):
        raise answer
    return answer


def each_alone(run: Run) -> RunAll:
    """Runs requests one after the other."""

    def run_all(requests: Sequence[Arrays]) -> list[Arrays | Exception]:
        return [_outcome(run, inputs) for inputs in requests]

    return run_all


def _outcome(run: Run, inputs: Arrays) -> Arrays | Exception:
    try:
        return run(inputs)
    except Exception as error:
        return error


@dataclass
class _Ticket:
    """A queued request: its inputs, and after the run its outputs or its error."""

    inputs: Arrays
    size: int
    woken: threading.Event = field(default_factory=threading.Event)
    must_lead: bool = False
    outcome: Arrays | Exception | None = None


class Batcher:
    """Joins concurrent calls of one function, and the requests of each, along the first dimension.

    The caller that finds the function idle runs it for itself and for the callers queued behind it, then hands
    over to the next in the queue. Needs no thread of its own, and a lone caller no hand-over.

    As long as no two calls were joined, `runs_at_once` calls may run side by side, each on a core of its own. With more
    callers, one large batch after the other takes less time.
    """

    def __init__(self, run: Run, *, max_batch_size: int, runs_at_once: int) -> None:
        self._run = run
        self._max_batch_size = max_batch_size
        self._lock = threading.Lock()
        self._queue: list[_Ticket] = []
        self._runs_at_once = self._free_runs = runs_at_once
        self._joined_lately = deque([1, 1], maxlen=2)
        """Calls in each of the latest batches: of few callers, one is often alone after a batch of all others."""

    def __call__(self, requests: Sequence[Arrays]) -> list[Arrays | Exception]:
        """The outputs or the error of each request, whose inputs share their first dimension."""
        tickets = [_Ticket(inputs, len(next(iter(inputs.values())))) for inputs in requests]
        self._join([ticket for ticket in tickets if ticket.size < self._max_batch_size])
        return [self._outcome_of(ticket) for ticket in tickets]

    def _outcome_of(self, ticket: _Ticket) -> Arrays | Exception:
        if ticket.size >= self._max_batch_size:  # full already: joining others would only delay them
            return _outcome(self._run, ticket.inputs)
        if not ticket.must_lead:
            ticket.woken.wait()
        if ticket.outcome is None:
            self._lead(ticket)
        assert ticket.outcome is not None
        return ticket.outcome

    def _join(self, tickets: Sequence[_Ticket]) -> None:
        with self._lock:
            self._queue += tickets
            if tickets and self._may_run():
                self._free_runs -= 1
                tickets[0].must_lead = True

    def _may_run(self) -> bool:
        """Whether a batch may start now; if not, another is running, and will hand over."""
        is_idle = self._free_runs == self._runs_at_once
        return is_idle or (self._free_runs > 0 and max(self._joined_lately) == 1)

    def _lead(self, leader: _Ticket) -> None:
        """Run the caller's request together with those that wait behind it, then wake the next leader."""
        batch = self._take_batch(leader)
        try:
            self._answer(batch)
        except Exception as error:  # a bug here must not leave the others waiting forever
            for ticket in batch:
                ticket.outcome = ServingError(Status.INTERNAL, f"{type(error).__name__} while running a batch")
            leader.outcome = error
        finally:
            for ticket in batch:
                ticket.woken.set()
            self._hand_over()

    def _take_batch(self, leader: _Ticket) -> list[_Ticket]:
        with self._lock:
            batch, total, left = [leader], leader.size, []
            for ticket in self._queue:
                if ticket is leader:
                    continue
                fits = total + ticket.size <= self._max_batch_size and _can_join(leader.inputs, ticket.inputs)
                if fits and not ticket.must_lead:
                    batch.append(ticket)
                    total += ticket.size
                else:
                    left.append(ticket)
            self._queue = left
            self._joined_lately.append(len(batch))
        return batch

    def _hand_over(self) -> None:
        with self._lock:
            self._free_runs += 1
            following = next((ticket for ticket in self._queue if not ticket.must_lead), None)
            if following is None or not self._may_run():
                return
            self._free_runs -= 1
            following.must_lead = True
            following.woken.set()

    def _answer(self, batch: Sequence[_Ticket]) -> None:
        if len(batch) > 1:
            try:
                _share_out(self._run(_joined(batch)), batch)
                return
            except ServingError:
                pass  # run each by itself, so that only the request at fault fails
        for ticket in batch:
            try:
                ticket.outcome = self._run(ticket.inputs)
            except ServingError as error:
                ticket.outcome = error


def _can_join(a: Arrays, b: Arrays) -> bool:
    return all(a[name].shape[1:] == b[name].shape[1:] for name in a)


def _joined(batch: Sequence[_Ticket]) -> Arrays:
    return {name: np.concatenate([ticket.inputs[name] for ticket in batch]) for name in batch[0].inputs}


def _share_out(outputs: Arrays, batch: Sequence[_Ticket]) -> None:
    stops = np.cumsum([ticket.size for ticket in batch])
    if any(len(array) != stops[-1] for array in outputs.values()):
        raise ServingError(Status.INTERNAL, "the model's outputs do not have its inputs' batch size")
    for ticket, stop in zip(batch, stops, strict=True):
        part: dict[str, Any] = {name: array[stop - ticket.size : stop] for name, array in outputs.items()}
        ticket.outcome = part
