"""Delivers waiting events to one receiver, in order, in a thread of its own."""

import random
import sqlite3
import threading
from typing import Final

from serving.server.logs import log_event
from serving.watching.metrics import WatchMetrics
from serving.watching.sinks import DeliveryError, RefusedError, Sink
from serving.watching.state import DELIVERED, REFUSED, Event, State

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 30.0


class Delivery:
    """Takes the oldest event until it is delivered; waits twice as long after each failure, up to half a minute."""

    def __init__(self, sink: Sink, state: State, metrics: WatchMetrics) -> None:
        self.sink = sink
        self._state = state
        self._metrics = metrics
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._delivered: int | None = None
        self._thread = threading.Thread(target=self._run, name=f"delivery to {sink.name}", daemon=True)

    def start(self) -> None:
        """Start with the events that an earlier process left."""
        self._thread.start()

    def wake(self) -> None:
        """There are new events."""
        self._news.set()

    def stop(self, grace_s: float) -> None:
        """Deliver what waits for up to `grace_s`, or until the first failure; the rest stays in the queue."""
        self._stopping.set()
        self._news.set()
        self._thread.join(grace_s)
        if not self._thread.is_alive():
            self.sink.close()

    def _run(self) -> None:
        failures = 0
        while True:
            self._news.clear()
            try:
                has_worked = self._deliver_next()
                if failures and has_worked:
                    log_event("deliveries_resumed", sink=self.sink.name, failures=failures)
                    failures = 0
            except Exception as error:  # whatever it is, the events must not wait forever
                failures += 1
                self._report(error, failures)
                wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(failures - 1, 10)) * random.uniform(0.8, 1.2)
                if self._stopping.wait(wait_s):
                    return
                continue
            if has_worked:
                continue
            if self._stopping.is_set():
                return
            self._news.wait()

    def _deliver_next(self) -> bool:
        """Whether there was an event. Raises DeliveryError, or sqlite3.Error if the state cannot be written."""
        event = self._state.next_event(self.sink.name)
        if event is None:
            return False
        outcome = DELIVERED if event.number == self._delivered else self._outcome(event)
        self._delivered = event.number  # if the next line fails, the event is not sent again
        self._state.finish(event, outcome)
        self._metrics.count_event(self.sink.name, outcome)
        return True

    def _outcome(self, event: Event) -> str:
        try:
            self.sink.deliver(event)
        except RefusedError as error:
            log_event("event_refused", sink=self.sink.name, number=event.number, reason=str(error))
            return REFUSED
        return DELIVERED

    def _report(self, error: Exception, failures: int) -> None:
        self._metrics.count_failure(self.sink.name)
        if failures & (failures - 1) == 0:  # the 1st, 2nd, 4th, 8th, ...
            expected = isinstance(error, (DeliveryError, sqlite3.Error))
            reason = str(error) if expected else f"{type(error).__name__}: {error}"
            log_event("delivery_failed", sink=self.sink.name, failures=failures, reason=reason)
