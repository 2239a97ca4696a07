"""The model being served: finds new versions, loads, warms and swaps them in, and lets go of the old ones."""

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
    """What became of one version: AVAILABLE, or END with the reason it could not be loaded."""

    version: int
    state: str
    error_code: int = 0
    error_message: str = ""


class ServedVersion:
    """A loaded version and how many requests are using it."""

    def __init__(self, folder: VersionFolder, predictor: Predictor) -> None:
        """Raises ScoresError where the record of the model's calibration cannot be read."""
        self.number = folder.number
        self.folder = folder
        self.predictor = predictor
        calibration = read_calibration(folder.path)
        self.score_log = None if calibration is None else ScoreLog(calibration)
        self._loaded_at_s = int(time.time())
        self._users = 0
        self._condition = threading.Condition()

    def acquire(self) -> None:
        """Count one more request in."""
        with self._condition:
            self._users += 1

    def release(self) -> None:
        """Count one request out."""
        with self._condition:
            self._users -= 1
            self._condition.notify_all()

    def record_scores(self, target: Path) -> None:
        """Write the scores counted since it was loaded to a file of its own in the folder `target`, if any were."""
        if self.score_log is not None and self.score_log.counts().images:
            self.score_log.write(target / f"{self.number}-{self._loaded_at_s}.json")

    def close_when_idle(self, timeout_s: float) -> None:
        """Wait for the requests in it, then give its memory back; let it be where they do not end in time."""
        with self._condition:
            is_idle = self._condition.wait_for(lambda: self._users == 0, timeout_s)
        if is_idle:
            self.predictor.close()
        log_event("version_unloaded" if is_idle else "version_still_in_use", version=self.number)


class ModelHost:
    """Serves the newest loadable version below `settings.model_base_path`.

    A version that is empty, broken, has a broken record or fails its warm-up is remembered and left alone
    until its files change; the one before it goes on serving. If every version folder disappears the loaded
    one goes on serving, too.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._current: ServedVersion | None = None
        self._broken: dict[int, tuple[object, VersionState]] = {}
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._poll_until_stopped, name="version-poller", daemon=True)

    def start(self) -> None:
        """Look for a version now, and from now on at every poll interval."""
        # What the imports made lives as long as the process: collections need not look at it again. They
        # would stall requests for a quarter of a second; the models that come and go stay collectable.
        gc.collect()
        gc.freeze()
        self.poll_once()
        self._poller.start()

    def stop(self) -> None:
        """Stop looking for versions and release the model once its last request is answered."""
        self._stop.set()
        self._poller.join()
        with self._lock:
            last, self._current = self._current, None
        if last is not None:
            last.close_when_idle(self.settings.stop_grace_s)
            self._record_scores(last)

    def poll_once(self) -> None:
        """Load the newest version that can be loaded and swap it in, unless it is being served already."""
        folders = version_folders(self.settings.model_base_path)
        self._forget_missing(folders)
        for folder in folders:
            if self._current is not None and folder == self._current.folder:
                return
            if not self._is_known_broken(folder) and self._try(folder):
                return

    @contextmanager
    def lease(self, model_name: str, version: int | None) -> Iterator[ServedVersion]:
        """The version to answer a request with (None: the newest); it stays loaded while the block runs."""
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
        """The states of the versions seen, newest first, or of one of them; NOT_FOUND where there is none."""
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
            except Exception as error:  # the loaded version is fine, whatever the file system says
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
        except Exception as error:  # TensorFlow's loader raises many kinds; none of them may stop the server
            state = VersionState(folder.number, "END", 2, sendable(f"{type(error).__name__}: {error}"))
            with self._lock:
                self._broken[folder.number] = (seen, state)
            log_event("version_refused", version=folder.number, error=state.error_message)
            return False
        self._swap_in(served)
        log_event("version_available", version=folder.number, warmup_requests=replayed)
        return True

    def _load(self, folder: VersionFolder) -> tuple[ServedVersion, int]:
        predictor = Predictor(folder.path, self.settings)
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
