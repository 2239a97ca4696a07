"""One served model: finds its versions, loads and warms them up, swaps them in and releases the old ones."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import UsageError
from serving.errors import ServingError, Status, sendable
from serving.model.prediction import Predictor
from serving.model.versions import RUN_SUBFOLDER, VersionFolder, fingerprint, holds_saved_model, version_folders
from serving.model.warmup import replay_warmup
from serving.score_log import ScoreLog, read_calibration
from serving.server.load_counts import LoadCounts
from serving.server.loaded_memory import LoadedMemory, NoRoomError, estimated_bytes
from serving.server.logs import RepeatedFailure, log_event
from serving.server.model_config import ModelSettings
from serving.server.settings import ServerSettings

DRAIN_TIMEOUT_S = 600.0
AVAILABLE, START, END = "AVAILABLE", "START", "END"


@dataclass(frozen=True)
class Requested:
    """What a request names: a model, and one of its versions by number or label (neither: the newest)."""

    name: str
    version: int | None = None
    label: str | None = None


@dataclass(frozen=True)
class VersionState:
    """The state of a version: AVAILABLE, START if the first request loads it, or END with the reason why it cannot."""

    version: int
    state: str
    error_code: int = 0
    error_message: str = ""


def not_served(requested: Requested, version: int | None) -> ServingError:
    """The error for a request whose model or version is not served."""
    which = f"Latest({requested.name})" if version is None else f"Specific({requested.name}, {version})"
    return ServingError(Status.NOT_FOUND, f"Servable not found for request: {which}")


def _too_late(requested: Requested, reason: str) -> ServingError:
    return ServingError(Status.DEADLINE_EXCEEDED, f"no answer from {requested.name}: {reason}")


class ServedVersion:
    """A loaded version and the number of requests that are using it."""

    def __init__(self, folder: VersionFolder, predictor: Predictor, size_bytes: int, model_name: str) -> None:
        """Raises ScoresError if the model's calibration record cannot be read."""
        self.number = folder.number
        self.folder = folder
        self.predictor = predictor
        self.size_bytes = size_bytes
        self.model_name = model_name
        calibration = read_calibration(folder.path)
        self.score_log = None if calibration is None else ScoreLog(calibration)
        self._loaded_at_s = int(time.time())
        self._used_at_s = time.monotonic()
        self._users = 0
        self._condition = threading.Condition()

    def acquire(self) -> None:
        """Register a request that uses this version."""
        with self._condition:
            self._users += 1
            self._used_at_s = time.monotonic()

    def release(self) -> None:
        """Unregister a request."""
        with self._condition:
            self._users -= 1
            self._condition.notify_all()

    def last_used(self) -> tuple[bool, float]:
        """Whether a request is using it, and when one last began to."""
        with self._condition:
            return self._users > 0, self._used_at_s

    def record_scores(self, target: Path) -> None:
        """Write the score counts since loading, if there are any, to this version's own file in the folder `target`."""
        if self.score_log is not None and self.score_log.counts().images:
            self.score_log.write(target / f"{self.number}-{self._loaded_at_s}.json")

    def close_if_idle(self, timeout_s: float = 0.0) -> bool:
        """Free the memory if no request uses this version, at the latest after `timeout_s`; whether that is so."""
        with self._condition:
            is_idle = self._condition.wait_for(lambda: self._users == 0, timeout_s)
        if is_idle:
            self.predictor.close()
            log_event("version_unloaded", model=self.model_name, version=self.number)
        return is_idle


@dataclass(eq=False)
class _Wait:
    """A request that waits for a version to be loaded; `served` is acquired for it."""

    since_s: float = field(default_factory=time.monotonic)
    is_over: threading.Event = field(default_factory=threading.Event)
    served: ServedVersion | None = None


class ModelHost:
    """Serves the versions of one model that its policy asks for and that can be loaded.

    A version that is empty or broken, has a broken record or fails its warm-up is not retried until its files
    change; the previous version stays in service. The loaded versions stay in service even if all version folders
    disappear. A version for which there is no room is loaded by the first request for it.

    Folders are read and versions are loaded by a thread of its own, once `start` is called, so that a folder that hangs
    delays only requests for versions that are not loaded, and those until their deadlines.
    """

    def __init__(self, model: ModelSettings, settings: ServerSettings, memory: LoadedMemory, rank: int = 0) -> None:
        self.model = model
        self.rank = rank
        """The place in the configuration, in whose order versions are loaded."""
        self.was_updated = False
        """Whether every version has been tried once, or has no room."""
        self.counts = LoadCounts()
        self._settings = settings
        self._memory = memory
        self._lock = threading.Lock()
        """Guards the tables of versions; never held while a version is loaded."""
        self._is_closed = False
        self._loaded: dict[int, ServedVersion] = {}
        self._unloaded: dict[int, VersionFolder] = {}
        """Versions to be served that are not loaded yet."""
        self._waits: dict[int, list[_Wait]] = {}
        """The requests for them."""
        self._broken: dict[int, tuple[object, VersionState]] = {}
        self._labels: dict[str, int] = {}
        self._unassigned: dict[str, int] = {}
        self._retired: list[tuple[ServedVersion, float]] = []
        """Versions that are closed once no request uses them, and when to stop waiting for that."""
        self._requests = 0
        self._was_discovered = threading.Event()
        self._work = threading.Event()
        """Set when the thread has something to do before the next poll."""
        self._updates: list[threading.Event] = []
        """Set after the next update."""
        self._thread = threading.Thread(target=self._work_until_closed, name=f"model {model.name}", daemon=True)

    def start(self) -> None:
        """Look for versions, now and at every poll interval, and load what requests wait for."""
        self._thread.start()

    def update_soon(self) -> threading.Event:
        """An event that is set when the thread has updated the versions, or the model has left."""
        done = threading.Event()
        with self._lock:
            if self._is_closed:
                done.set()
            self._updates.append(done)
        self._work.set()
        return done

    def update(self) -> None:
        """Load the versions that the policy asks for, unless they are loaded, and release all others; not once closed.

        Without room for more, they wait for their first request, except for a new version of a model in use. Called by
        one thread only.
        """
        self._discover()
        base = self.model.base_path
        folders = version_folders(base)
        if not folders and version_folders(base / RUN_SUBFOLDER):
            raise UsageError(f"base_path {str(base)!r} is a run's folder: its versions are in its {RUN_SUBFOLDER}/")
        self._forget_missing(folders)
        kept: dict[int, VersionFolder] = {}
        for folder in self.model.policy.candidates(folders):
            if self._is_closed or len(kept) == self.model.policy.at_most:
                break
            if self._is_loaded(folder) or (not self._is_known_broken(folder) and self._load_or_wait(folder)):
                kept[folder.number] = folder
        self._release_others(kept)
        self._assign_labels()
        self._end_waits()
        self.was_updated = True

    def close(self) -> None:
        """Stop serving; `reap` frees the memory after the last requests. Does not wait for the thread."""
        with self._lock:
            self._is_closed = True
            released, self._loaded, self._unloaded = list(self._loaded.values()), {}, {}
            updates, self._updates = self._updates, []
        self._retire(released)
        self._end_waits()
        for event in (self._was_discovered, self._work, *updates):
            event.set()

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended, at most `timeout_s`: it may be in a folder that hangs."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def reap(self, timeout_s: float = 0.0) -> int:
        """Free released versions that no request uses any more, waiting `timeout_s`; returns their number."""
        with self._lock:
            retired, self._retired = self._retired, []
        freed = 0
        for version, until_s in retired:
            if version.close_if_idle(timeout_s):
                freed += 1
                self._record(version)
            elif time.monotonic() > until_s or timeout_s:
                log_event("version_still_in_use", model=self.model.name, version=version.number)
            else:
                with self._lock:
                    self._retired.append((version, until_s))
        return freed

    @property
    def is_in_use(self) -> bool:
        """Whether released versions still have requests."""
        with self._lock:
            return bool(self._retired)

    @contextlib.contextmanager
    def admission(self) -> Iterator[None]:
        """Counts a request during the block, in which it may wait or lease a version; UNAVAILABLE if too many do."""
        limit = self._settings.max_requests_per_model
        with self._lock:
            if self._requests >= limit:
                raise ServingError(
                    Status.UNAVAILABLE, f"too many requests for {self.model.name} are already waiting; try again later"
                )
            self._requests += 1
        try:
            yield
        finally:
            with self._lock:
                self._requests -= 1

    @contextlib.contextmanager
    def lease(self, requested: Requested, until_s: float | None = None) -> Iterator[ServedVersion]:
        """The version that an admitted request asks for, which stays loaded while the block runs.

        If it is not loaded, waits for that until `until_s` on the monotonic clock, by default as long as a request may
        take; then raises DEADLINE_EXCEEDED.
        """
        if until_s is None:
            until_s = time.monotonic() + self._settings.request_timeout_s
        served = self._acquired(requested, until_s)
        try:
            yield served
        finally:
            served.release()

    def states(self, requested: Requested) -> list[VersionState]:
        """The states of all known versions, newest first, or of one version; NOT_FOUND if there is none."""
        with self._lock:
            states = {number: state for number, (_, state) in self._broken.items()}
            states |= {number: VersionState(number, START) for number in self._unloaded}
            states |= {number: VersionState(number, AVAILABLE) for number in self._loaded}
            version = self._labelled(requested) if requested.label else requested.version
        if not states:
            raise ServingError(Status.NOT_FOUND, f"Could not find any versions of model {requested.name}")
        if version is None:
            return [states[number] for number in sorted(states, reverse=True)]
        if version not in states:
            raise ServingError(Status.NOT_FOUND, f"Could not find version {version} of model {requested.name}")
        return [states[version]]

    @property
    def unassigned_labels(self) -> dict[str, int]:
        """Labels in the settings whose versions are not served, so that they keep their previous versions."""
        with self._lock:
            return self._unassigned

    def record_scores(self) -> None:
        """Write the score counts of the loaded versions, if they are to be recorded."""
        with self._lock:
            loaded = list(self._loaded.values())
        for version in loaded:
            self._record(version)

    def _acquired(self, requested: Requested, until_s: float) -> ServedVersion:
        if not self._was_discovered.wait(until_s - time.monotonic()):
            raise _too_late(requested, f"its folder {self.model.base_path} could not be listed in time")
        while True:
            with self._lock:
                number = self._number(requested)
                if number in self._loaded:
                    self._loaded[number].acquire()
                    return self._loaded[number]
                wait = _Wait()
                self._waits.setdefault(number, []).append(wait)
                self.counts.waits += 1
            self._work.set()
            wait.is_over.wait(until_s - time.monotonic())
            with self._lock:
                self.counts.waited_s += time.monotonic() - wait.since_s
                if wait.served is not None:
                    return wait.served
                if not wait.is_over.is_set():
                    self._waits[number].remove(wait)
                    raise _too_late(requested, "it was not loaded in time; see --max-loaded-mb")

    def _requested_since(self, number: int) -> float | None:
        """When the oldest request that waits for a version came; None if none waits."""
        with self._lock:
            return min((wait.since_s for wait in self._waits.get(number, [])), default=None)

    def _end_waits(self) -> None:
        """Have the requests for versions that are not to be loaded any more look for another, or fail."""
        with self._lock:
            for number in {*self._waits} - {*self._unloaded}:
                for wait in self._waits.pop(number):
                    wait.is_over.set()

    def _number(self, requested: Requested) -> int:
        """The version that a request asks for, loaded or waiting; NOT_FOUND if there is none."""
        served = {*self._loaded, *self._unloaded}
        wanted = self._labelled(requested) if requested.label else requested.version
        if not served or (wanted is not None and wanted not in served):
            raise not_served(requested, wanted)
        return max(served) if wanted is None else wanted

    def _labelled(self, requested: Requested) -> int:
        label = requested.label or ""
        if label not in self._labels:
            raise ServingError(Status.FAILED_PRECONDITION, f"Unrecognized servable version label: {label}")
        return self._labels[label]

    def _work_until_closed(self) -> None:
        failure = RepeatedFailure("poll_failed", model=self.model.name)
        update_at_s = time.monotonic()
        while not self._is_closed:
            self._work.clear()
            with self._lock:
                updates, self._updates = self._updates, []
            try:
                self._load_requested()
                if updates or time.monotonic() >= update_at_s:
                    self.update()
                    update_at_s = time.monotonic() + self._settings.poll_interval_s
                failure.has_ended()
            except Exception as error:  # an unreadable folder; the model keeps what it serves
                failure.has_occurred(error)
                update_at_s = time.monotonic() + self._settings.poll_interval_s
                self.was_updated = True  # the others must not wait for it
            self._was_discovered.set()
            self._end_waits()
            for done in updates:
                done.set()
            self._work.wait(max(0.0, update_at_s - time.monotonic()))

    def _discover(self) -> None:
        """Find the versions to be served without loading any, so that requests for them need not wait for others."""
        if self._was_discovered.is_set():
            return
        wanted = self.model.policy.candidates(version_folders(self.model.base_path))[: self.model.policy.at_most]
        with self._lock:
            if not self._is_closed:
                self._unloaded = {folder.number: folder for folder in wanted}
        self._assign_labels()
        self._was_discovered.set()

    def _load_requested(self) -> None:
        """Load the versions that requests wait for; if one cannot be loaded, another may take its place."""
        while (folder := self._most_urgent()) is not None:
            with contextlib.suppress(NoRoomError):  # nobody waits any more
                if not self._try(folder, may_unload=False):
                    self.update()

    def _most_urgent(self) -> VersionFolder | None:
        with self._lock:
            since_s = {
                number: min(wait.since_s for wait in waits)
                for number, waits in self._waits.items()
                if waits and number in self._unloaded
            }
            return self._unloaded[min(since_s, key=since_s.__getitem__)] if since_s else None

    def _load_or_wait(self, folder: VersionFolder) -> bool:
        """Load a version, or let it wait for its first request; false if it cannot be loaded."""
        with self._lock:
            replaces_loaded = folder.number >= max(self._loaded, default=folder.number + 1)
        try:
            return self._try(folder, may_unload=replaces_loaded)
        except NoRoomError:
            with self._lock:
                if not self._is_closed:
                    self._unloaded[folder.number] = folder
            return True

    def _try(self, folder: VersionFolder, *, may_unload: bool) -> bool:
        """Load a version; false if it cannot be loaded.

        If requests wait for it, or with `may_unload`, other versions are unloaded for it. Otherwise raises NoRoomError.
        """
        seen, began_s = fingerprint(folder.path), time.monotonic()

        def urgent_since() -> float | None:
            requested_s = self._requested_since(folder.number)
            return min(began_s, requested_s or began_s) if may_unload else requested_s

        try:
            if not holds_saved_model(folder.path):
                raise FileNotFoundError(f"{folder.path} holds no SavedModel")
            size_bytes = estimated_bytes(folder.path)
            with self._memory.room(size_bytes, rank=self.rank, urgent_since=urgent_since) as keep:
                if self._is_closed:  # while it waited for its turn
                    return False
                served, replayed = self._load(folder, size_bytes)
                if not self._swap_in(served):
                    return False
                keep(served, self._unloading(served))
        except NoRoomError:
            raise
        except Exception as error:  # TensorFlow's loader raises many types; none of them may stop the server
            state = VersionState(folder.number, END, 2, sendable(f"{type(error).__name__}: {error}"))
            with self._lock:
                self._broken[folder.number] = (seen, state)
                self._unloaded.pop(folder.number, None)
            reason = {"error": state.error_message}
            log_event("version_refused", level=logging.ERROR, model=self.model.name, version=folder.number, **reason)
            return False
        if self._is_closed:  # since it was swapped in
            self._memory.remove(served)
        log_event("version_available", model=self.model.name, version=folder.number, warmup_requests=replayed)
        return True

    def _load(self, folder: VersionFolder, size_bytes: int) -> tuple[ServedVersion, int]:
        predictor = Predictor(
            folder.path,
            max_batch_size=self._settings.max_batch_size if self._settings.enable_batching else None,
            max_image_pixels=self._settings.max_image_pixels,
            max_request_pixels=self._settings.max_request_pixels,
        )
        try:
            served = ServedVersion(folder, predictor, size_bytes, self.model.name)
            return served, replay_warmup(predictor, folder.path) if self._settings.enable_model_warmup else 0
        except BaseException:
            predictor.close()
            raise

    def _swap_in(self, served: ServedVersion) -> bool:
        """Serve the version, first to the requests that wait for it; false if the model has left meanwhile."""
        with self._lock:
            is_late = self._is_closed
            replaced = self._loaded.get(served.number)
            if not is_late:
                self.counts.loads += 1
                self._loaded[served.number] = served
                self._unloaded.pop(served.number, None)
                self._broken.pop(served.number, None)
                for wait in self._waits.pop(served.number, []):
                    served.acquire()  # before another model can take the room
                    wait.served = served
                    wait.is_over.set()
        if is_late:
            served.predictor.close()
        elif replaced is not None:
            self._retire([replaced])
        return not is_late

    def _unloading(self, served: ServedVersion) -> Callable[[], None]:
        def unload() -> None:
            """Release the version until its next request."""
            with self._lock:
                if self._loaded.get(served.number) is not served:
                    return
                del self._loaded[served.number]
                self._unloaded[served.number] = served.folder
                self.counts.evictions += 1
            log_event("version_makes_way", model=self.model.name, version=served.number)
            self._retire([served])
            self.reap()

        return unload

    def _release_others(self, kept: dict[int, VersionFolder]) -> None:
        """Release versions that the policy does not ask for, once another one is served."""
        if not kept:
            return
        with self._lock:
            released = [self._loaded.pop(number) for number in {*self._loaded} - {*kept}]
            self._unloaded = {number: folder for number, folder in self._unloaded.items() if number in kept}
        self._retire(released)

    def _retire(self, released: list[ServedVersion]) -> None:
        until_s = time.monotonic() + DRAIN_TIMEOUT_S
        for version in released:
            self._memory.remove(version)
        with self._lock:
            self._retired += [(version, until_s) for version in released]

    def _assign_labels(self) -> None:
        """Give each label its version once that is served; until then, the label keeps its previous one."""
        wanted = self.model.labels
        with self._lock:
            served = {*self._loaded, *self._unloaded}
            kept = {label: number for label, number in self._labels.items() if label in wanted}
            self._labels = kept | {label: number for label, number in wanted.items() if number in served}
            unassigned = {label: number for label, number in wanted.items() if self._labels.get(label) != number}
            is_new, self._unassigned = unassigned != self._unassigned, unassigned
        if is_new and unassigned:
            log_event("labels_wait_for_versions", level=logging.WARNING, model=self.model.name, labels=unassigned)

    def _record(self, version: ServedVersion) -> None:
        target = self._settings.scores_folder(self.model.name)
        if target is None:
            return
        try:
            version.record_scores(target)
        except OSError as error:  # a full disk must not stop the server
            log_event("scores_not_recorded", model=self.model.name, error=str(error))

    def _is_loaded(self, folder: VersionFolder) -> bool:
        with self._lock:
            loaded = self._loaded.get(folder.number)
        return loaded is not None and loaded.folder == folder

    def _is_known_broken(self, folder: VersionFolder) -> bool:
        known = self._broken.get(folder.number)
        return known is not None and known[0] == fingerprint(folder.path)

    def _forget_missing(self, folders: list[VersionFolder]) -> None:
        present = {folder.number for folder in folders}
        with self._lock:
            self._broken = {number: seen for number, seen in self._broken.items() if number in present}
