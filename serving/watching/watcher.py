"""Scores each new image once, records it, and hands anomalies to the receivers."""

import errno
import io
import itertools
import json
import sqlite3
import threading
import time
import uuid
from collections import Counter
from datetime import datetime, timezone
from typing import Any, Final

import numpy as np

from images.decoding import UnreadableImageError
from runtime.errors import UserError
from runtime.object_store import AnyPath, RemotePath
from serving.overlays import write_overlay
from serving.scoring import BATCH_SIZE, FileScore, row_of, score_files
from serving.server.logs import log_event
from serving.watching.delivery import Delivery
from serving.watching.found import Found, is_gone, look_if_possible
from serving.watching.metrics import WatchMetrics
from serving.watching.model_in_use import ModelInUse
from serving.watching.results import Results
from serving.watching.settings import WatchSettings
from serving.watching.source import Source
from serving.watching.state import DROPPED, State, is_temporary

_TRIES: Final = 3
"""An image that cannot be decoded may be incomplete."""
_LONGEST_WAIT_S: Final = 30.0
_MEASURE_INTERVAL_S: Final = 1.0
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def watch_until_stopped(settings: WatchSettings, stop: threading.Event) -> Counter[str]:
    """Watch until `stop` is set, then score the complete images, deliver events for a while, and return all counts."""
    state = State(settings.state, str(settings.place))
    try:
        watcher = Watcher(settings, state, ModelInUse(settings.model, record_scores=settings.record_scores))
        watcher.run(stop)
        return state.counts()
    finally:
        state.close()


class Watcher:
    """One watch of one place."""

    def __init__(self, settings: WatchSettings, state: State, model: ModelInUse) -> None:
        self._settings = settings
        self._state = state
        self._model = model
        self._metrics = WatchMetrics()
        self._results = Results(settings.results, state.position(), max_bytes=settings.max_results_bytes)
        self._source = Source(settings.place, known=self._knows, poll_s=settings.poll_s)
        self._deliveries = [Delivery(sink, state, self._metrics) for sink in settings.sinks]
        self._tries: Counter[Found] = Counter()
        self._next_measure_s = 0.0

    def run(self, stop: threading.Event) -> None:
        """Raises UserError if results cannot be recorded at the end, or the model fails."""
        if self._settings.metrics_port is not None:
            self._metrics.serve(self._settings.metrics_host, self._settings.metrics_port)
        self._state.forget_removed(self._is_gone)
        how = self._source.start()
        waiting = self._state.waiting_events()
        log_event(
            "watching", place=str(self._settings.place), by=how, model=self._model.version, events=sum(waiting.values())
        )
        for sink in set(waiting) - {delivery.sink.name for delivery in self._deliveries}:
            log_event("events_without_receiver", sink=sink, events=waiting[sink])
        for delivery in self._deliveries:
            delivery.start()
        try:
            while (batch := self._source.batch(BATCH_SIZE, stop)) or not stop.is_set():
                self._model.refresh()
                self._score(batch, stop)
                self._measure()
        finally:
            self._source.close()
            self._model.write_score_counts()
            self._finish()

    def _score(self, batch: list[Found], stop: threading.Event) -> None:
        paths = [self._settings.place / found.name for found in batch]
        found_at = dict(zip(paths, batch, strict=True))
        by_path = itertools.groupby(score_files(paths, self._model.score, reading=self._model.reading), _path_of)
        of_files = [(found_at[path], list(of_file)) for path, of_file in by_path]
        kept = [(found, one) for found, of_file in of_files if self._is_final(found, of_file) for one in of_file]
        if not kept:
            return
        time_now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        rows = [{"time": time_now, **row_of(result), "model": self._model.version} for _, result in kept]
        self._record(kept, rows, stop)
        for found, result in kept:
            self._source.done(found)
            self._tries.pop(found, None)
            if result.score is not None:
                ratio = np.array([result.score.score]) / np.float64(result.score.threshold)
                self._metrics.count_scores(ratio, version=self._model.version)
        for (found, _), row in zip(kept, rows, strict=True):
            self._metrics.count_image(row["verdict"], time.time() - found.mtime_ns / 1e9)
            if row["verdict"] != "normal":
                log_event(row["verdict"], path=row["path"], score=row["score"], reason=row["problem"])

    def _is_final(self, found: Found, of_file: list[FileScore]) -> bool:
        """Whether to record the results of a file's pages: it was complete, and is not to be tried again."""
        failed = [result for result in of_file if result.score is None]
        if not failed and isinstance(self._settings.place, RemotePath):
            return True  # an object never changes while it is read
        if failed and is_gone(self._settings.place, found.name):
            self._source.done(found)  # removed or renamed before it was read
            return False
        now = look_if_possible(self._settings.place, found.name)
        if now is not None and now != found:
            self._source.changed(now)
            return False
        self._tries[found] += 1
        is_unread = any(result.is_unread for result in failed)
        if is_unread and self._tries[found] == _TRIES:
            log_event("cannot_read", path=str(failed[0].path), reason=failed[0].problem)
        if is_unread or (failed and self._tries[found] < _TRIES):
            self._source.retry(found, self._tries[found])
            return False
        return True

    def _record(self, kept: list[tuple[Found, FileScore]], rows: list[dict[str, Any]], stop: threading.Event) -> None:
        """Write results, state and events together; while a disk is full, wait."""
        images = [(found, row["verdict"]) for (found, _), row in zip(kept, rows, strict=True)]
        anomalies = [(row, result) for (_, result), row in zip(kept, rows, strict=True) if row["verdict"] == "anomaly"]
        events = self._events(anomalies)
        wait_s = 1.0
        while isinstance(dropped := self._try_to_record(rows, images, events), str):
            if stop.is_set():
                raise UserError(
                    f"{len(rows)} results could not be written beside {self._settings.state}; make space there "
                    "and start again: these images are scored again"
                )
            if wait_s == 1.0:
                log_event("cannot_record", file=str(self._settings.state), images=len(rows), reason=dropped)
            self._metrics.is_stalled.set(1)
            stop.wait(wait_s)
            wait_s = min(_LONGEST_WAIT_S, 2 * wait_s)
        if wait_s > 1.0:
            log_event("recorded_again", file=str(self._settings.state))
        for sink, number in dropped.items():
            if number:
                self._metrics.count_event(sink, DROPPED, number)
                log_event("events_dropped", sink=sink, number=number, reason="the queue is full")
        for delivery in self._deliveries:
            delivery.wake()

    def _try_to_record(
        self, rows: list[dict[str, Any]], images: list[tuple[Found, str]], events: list[tuple[str, str, bytes]]
    ) -> Counter[str] | str:
        """The number of dropped events by receiver, or why nothing can be written for now."""
        try:
            with self._results.appended(rows) as position:
                return self._state.record(images, events, position, max_queued_bytes=self._settings.max_queued_bytes)
        except (OSError, sqlite3.Error) as error:
            if not (is_temporary(error) or getattr(error, "errno", None) in _FULL):
                raise
            return str(error)

    def _events(self, anomalies: list[tuple[dict[str, Any], FileScore]]) -> list[tuple[str, str, bytes]]:
        events = []
        for row, result in anomalies if self._deliveries else ():
            values = {name: value for name, value in row.items() if name not in ("verdict", "problem")}
            event = {"event": "anomaly", "id": uuid.uuid4().hex, **values}
            overlay = _overlay(result)
            events += [(delivery.sink.name, json.dumps(event), overlay) for delivery in self._deliveries]
        return events

    def _measure(self) -> None:
        if time.monotonic() < self._next_measure_s:
            return
        self._next_measure_s = time.monotonic() + _MEASURE_INTERVAL_S
        waiting = self._state.waiting_events()
        for delivery in self._deliveries:
            self._metrics.events_waiting.labels(delivery.sink.name).set(waiting.get(delivery.sink.name, 0))
        self._metrics.images_waiting.set(self._source.waiting)
        self._metrics.is_stalled.set(float(self._source.is_lost))

    def _finish(self) -> None:
        """Deliver what waits, all receivers at the same time, and report."""
        stoppers = [threading.Thread(target=each.stop, args=[self._settings.grace_s]) for each in self._deliveries]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join()
        counts = self._state.counts()
        log_event("finished", events_waiting=sum(self._state.waiting_events().values()), **counts)

    def _knows(self, found: Found) -> bool:
        return self._state.knows(found, is_gone=self._is_gone)

    def _is_gone(self, name: str) -> bool:
        return is_gone(self._settings.place, name)


def _path_of(result: FileScore) -> AnyPath:
    return result.path


def _overlay(result: FileScore) -> bytes:
    """A PNG file with the image, its regions and its map; empty if the model has no maps, or the file is gone."""
    if result.score is None or result.score.anomaly_map is None:
        return b""
    picture = io.BytesIO()
    try:
        write_overlay(result.path, result.score, picture, page=result.page)
    except (OSError, UnreadableImageError):
        return b""
    return picture.getvalue()
