"""Batches the requests that arrive while the model is busy; an idle model runs a request immediately.

There is no timer: a lone client never waits, and under load a batch holds what arrived during the previous run.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serving.errors import ServingError, Status
from serving.model.loaded_model import Arrays

Run = Callable[[Arrays], Arrays]


@dataclass
class _Ticket:
    """A queued request: its inputs, and after the run its outputs or its error."""

    inputs: Arrays
    size: int
    woken: threading.Event = field(default_factory=threading.Event)
    must_lead: bool = False
    outputs: Arrays | None = None
    error: ServingError | None = None


class Batcher:
    """Joins concurrent calls of one function along the first dimension, one batch at a time.

    The caller that finds the function idle runs it for itself and for the callers queued behind it, then hands
    over to the next in the queue. Needs no thread of its own, and a lone caller no hand-over.
    """

    def __init__(self, run: Run, *, max_batch_size: int) -> None:
        self._run = run
        self._max_batch_size = max_batch_size
        self._lock = threading.Lock()
        self._queue: list[_Ticket] = []
        self._is_busy = False

    def __call__(self, inputs: Arrays) -> Arrays:
        """The outputs for `inputs`, which share their first dimension; raises ServingError only for these inputs."""
        size = len(next(iter(inputs.values())))
        if size >= self._max_batch_size:  # full already: joining others would only delay them
            return self._run(inputs)
        ticket = self._join(_Ticket(inputs, size))
        if not ticket.must_lead:
            ticket.woken.wait()
        if ticket.must_lead:
            self._lead()
        if ticket.error is not None:
            raise ticket.error
        assert ticket.outputs is not None
        return ticket.outputs

    def _join(self, ticket: _Ticket) -> _Ticket:
        with self._lock:
            self._queue.append(ticket)
            if not self._is_busy:
                self._is_busy = ticket.must_lead = True
        return ticket

    def _lead(self) -> None:
        """Run the batch at the head of the queue, which includes the caller's request, then wake the next leader."""
        batch = self._take_batch()
        try:
            self._answer(batch)
        except Exception as error:  # a bug here must not leave the others waiting forever
            for ticket in batch:
                ticket.error = ServingError(Status.INTERNAL, f"{type(error).__name__} while running a batch")
            raise
        finally:
            for ticket in batch:
                ticket.woken.set()
            self._hand_over()

    def _take_batch(self) -> list[_Ticket]:
        with self._lock:
            first = self._queue.pop(0)
            batch, total, left = [first], first.size, []
            for ticket in self._queue:
                if total + ticket.size <= self._max_batch_size and _can_join(first.inputs, ticket.inputs):
                    batch.append(ticket)
                    total += ticket.size
                else:
                    left.append(ticket)
            self._queue = left
        return batch

    def _hand_over(self) -> None:
        with self._lock:
            if not self._queue:
                self._is_busy = False
                return
            following = self._queue[0]
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
                ticket.outputs = self._run(ticket.inputs)
            except ServingError as error:
                ticket.error = error


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
        ticket.outputs = part
