"""Finds new versions of the served model, loads and warms them up, swaps them in and releases the old ones."""

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serving.errors import ServingError, Status, sendable
from serving.model.prediction import Predictor
from serving.model.versions import VersionFolder, fingerprint, holds_saved_model, version_folders
from serving.model.warmup import replay_warmup
from serving.score_log import ScoreLog, read_calibration
from serving.server.logs import log_event
from serving.server.settings import ServerSettings

DRAIN_TIMEOUT_S = 600.0
RECORD_INTERVAL_S = 60.0


@dataclass(frozen=True)
class VersionState:
    """The state of a version: AVAILABLE, or END with the reason why it could not be loaded."""

    version: int
    state: str
    error_code: int = 0
    error_message: str = ""


class ServedVersion:
    """A loaded version and the number of requests that are using it."""

    def __init__(self, folder: VersionFolder, predictor: Predictor) -> None:
        """Raises ScoresError if the model's calibration record cannot be read."""
        self.number = folder.number
        self.folder = folder
        self.predictor = predictor
        calibration = read_calibration(folder.path)
        self.score_log = None if calibration is None else ScoreLog(calibration)
        self._loaded_at_s = int(time.time())
        self._users = 0
        self._condition = threading.Condition()

    def acquire(self) -> None:
        """Register a request that uses this version."""
        with self._condition:
            self._users += 1

    def release(self) -> None:
        """Unregister a request."""
        with self._condition:
            self._users -= 1
            self._condition.notify_all()

    def record_scores(self, target: Path) -> None:
        """Write the score counts since loading, if there are any, to this version's own file in the folder `target`."""
        if self.score_log is not None and self.score_log.counts().images:
            self.score_log.write(target / f"{self.number}-{self._loaded_at_s}.json")

    def close_when_idle(self, timeout_s: float) -> None:
        """Free the memory once no request uses this version; keep it if one still does after `timeout_s`."""
        with self._condition:
            is_idle = self._condition.wait_for(lambda: self._users == 0, timeout_s)
        if is_idle:
            self.predictor.close()
        log_event("version_unloaded" if is_idle else "version_still_in_use", version=self.number)


class ModelHost:
    """Serves the newest loadable version in `settings.model_base_path`.

    A version that is empty or broken, has a broken record or fails its warm-up is not retried until its files
    change; the previous version stays in service. The loaded version stays in service even if all version folders
    disappear.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._current: ServedVersion | None = None
        self._broken: dict[int, tuple[object, VersionState]] = {}
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._poll_until_stopped, name="version-poller", daemon=True)

    def start(self) -> None:
        """Look for a version immediately, and then at every poll interval."""
        # Imported objects live as long as the process. Excluding them from garbage collection avoids pauses of a
        # quarter of a second; models loaded later are still collected.
        gc.collect()
        gc.freeze()
        self.poll_once()
        self._poller.start()

    def stop(self) -> None:
        """Stop looking for versions, and release the model after its last request."""
        self._stop.set()
        self._poller.join()
        with self._lock:
            last, self._current = self._current, None
        if last is not None:
            last.close_when_idle(self.settings.stop_grace_s)
            self._record_scores(last)

    def poll_once(self) -> None:
        """Load the newest loadable version and swap it in, unless it is already being served."""
        folders = version_folders(self.settings.model_base_path)
        self._forget_missing(folders)
        for folder in folders:
            if self._current is not None and folder == self._current.folder:
                return
            if not self._is_known_broken(folder) and self._try(folder):
                return

    @contextmanager
    def lease(self, model_name: str, version: int | None) -> Iterator[ServedVersion]:
        """The version that a request asks for (None: the newest), which stays loaded while the block runs."""
        with self._lock:
            served = self._current
            if served is None or model_name != self.settings.model_name or version not in (None, served.number):
                which = f"Latest({model_name})" if version is None else f"Specific({model_name}, {version})"
                raise ServingError(Status.NOT_FOUND, f"Servable not found for request: {which}")
            served.acquire()
        try:
            yield served
        finally:
            served.release()

    def states(self, model_name: str, version: int | None) -> list[VersionState]:
        """The states of all known versions, newest first, or of one version; NOT_FOUND if there is none."""
        with self._lock:
            states = {number: state for number, (_, state) in self._broken.items()}
            if self._current is not None:
                states[self._current.number] = VersionState(self._current.number, "AVAILABLE")
        if model_name != self.settings.model_name or not states:
            raise ServingError(Status.NOT_FOUND, f"Could not find any versions of model {model_name}")
        if version is None:
            return [states[number] for number in sorted(states, reverse=True)]
        if version not in states:
            raise ServingError(Status.NOT_FOUND, f"Could not find version {version} of model {model_name}")
        return [states[version]]

    def _poll_until_stopped(self) -> None:
        recorded_at_s = time.monotonic()
        while not self._stop.wait(self.settings.poll_interval_s):
            try:
                self.poll_once()
                if self._current is not None and time.monotonic() - recorded_at_s > RECORD_INTERVAL_S:
                    recorded_at_s = time.monotonic()
                    self._record_scores(self._current)
            except Exception as error:  # does not affect the loaded version
                log_event("poll_failed", error=f"{type(error).__name__}: {error}")

    def _record_scores(self, served: ServedVersion) -> None:
        if self.settings.record_scores is None:
            return
        try:
            served.record_scores(self.settings.record_scores)
        except OSError as error:  # a full disk must not stop the server
            log_event("scores_not_recorded", error=str(error))

    def _try(self, folder: VersionFolder) -> bool:
        seen = fingerprint(folder.path)
        try:
            if not holds_saved_model(folder.path):
                raise FileNotFoundError(f"{folder.path} holds no SavedModel")
            served, replayed = self._load(folder)
        except Exception as error:  # TensorFlow's loader raises many types; none of them may stop the server
            state = VersionState(folder.number, "END", 2, sendable(f"{type(error).__name__}: {error}"))
            with self._lock:
                self._broken[folder.number] = (seen, state)
            log_event("version_refused", version=folder.number, error=state.error_message)
            return False
        self._swap_in(served)
        log_event("version_available", version=folder.number, warmup_requests=replayed)
        return True

    def _load(self, folder: VersionFolder) -> tuple[ServedVersion, int]:
        predictor = Predictor(
            folder.path,
            max_batch_size=self.settings.max_batch_size if self.settings.enable_batching else None,
            max_image_pixels=self.settings.max_image_pixels,
            max_request_pixels=self.settings.max_request_pixels,
        )
        try:
            served = ServedVersion(folder, predictor)
            return served, replay_warmup(predictor, folder.path) if self.settings.enable_model_warmup else 0
        except BaseException:
            predictor.close()
            raise

    def _swap_in(self, served: ServedVersion) -> None:
        with self._lock:
            old, self._current = self._current, served
            self._broken.pop(served.number, None)
        if old is not None:
            old.close_when_idle(DRAIN_TIMEOUT_S)
            self._record_scores(old)
            del old
            gc.collect()

    def _is_known_broken(self, folder: VersionFolder) -> bool:
        known = self._broken.get(folder.number)
        return known is not None and known[0] == fingerprint(folder.path)

    def _forget_missing(self, folders: list[VersionFolder]) -> None:
        present = {folder.number for folder in folders}
        with self._lock:
            self._broken = {number: seen for number, seen in self._broken.items() if number in present}
