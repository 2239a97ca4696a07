"""All served models: keeps them up to date with their folders and with the configuration file."""

import gc
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from runtime.errors import UsageError
from runtime.memory import return_free_memory
from serving.errors import ServingError, Status
from serving.server.access import Watched
from serving.server.load_counts import LoadCounts
from serving.server.loaded_memory import LoadedMemory
from serving.server.logs import RepeatedFailure, log_event
from serving.server.model_config import ModelSettings, models_of, read_model_config
from serving.server.model_host import (
    AVAILABLE,
    END,
    START,
    ModelHost,
    Requested,
    ServedVersion,
    VersionState,
    not_served,
)
from serving.server.settings import ServerSettings

RECORD_INTERVAL_S: Final = 60.0


class ServedModels:
    """The models by name, each with its own versions, queue and state; one that fails leaves the others alone.

    Each has a thread that looks for new versions and loads them, so that a model whose folder hangs or that takes long
    to load delays no other.
    """

    def __init__(self, settings: ServerSettings) -> None:
        """Raises UsageError if the configuration file cannot be used."""
        self._settings = settings
        self._memory = LoadedMemory(settings.max_loaded_bytes)
        self._watched = Watched(settings.model_config_file) if settings.model_config_file else None
        self._hosts: dict[str, ModelHost] = {}
        self._leaving: list[ModelHost] = []
        """Models that are no longer served, but still have requests."""
        self._applying = threading.Lock()
        self._is_started = False
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._poll_until_stopped, name="poller", daemon=True)
        self._apply(self._configured())

    @property
    def names(self) -> Sequence[str]:
        """The models' names, in the order of the configuration."""
        return [*self._hosts]

    def serves(self, name: str) -> bool:
        """Whether there is a model of this name."""
        return name in self._hosts

    def base_path(self, name: str) -> Path:
        """The folder of a served model's versions."""
        return self._hosts[name].model.base_path

    @property
    def loaded_bytes(self) -> int:
        """The estimated memory of the loaded versions."""
        return self._memory.used_bytes

    def start(self) -> None:
        """Look for versions now, and then at every poll interval.

        A single model is loaded at once. Several are loaded one after the other while requests are answered already.
        """
        # Imported objects live as long as the process. Excluding them from garbage collection avoids pauses of a
        # quarter of a second; models loaded later are still collected.
        gc.collect()
        gc.freeze()
        with self._applying:
            self._is_started = True
            for host in self._hosts.values():
                host.start()
        if not self._settings.has_several_models:
            self.poll_once()
        self._poller.start()

    def stop(self) -> None:
        """Stop looking for versions, and release all models after their last requests."""
        self._stop.set()
        self._poller.join()
        until_s = time.monotonic() + self._settings.stop_grace_s
        hosts = [*self._hosts.values(), *self._leaving]
        for host in hosts:
            host.record_scores()  # first, since closing many models takes seconds
        for host in hosts:
            host.close()
        for host in hosts:
            host.join(max(0.0, until_s - time.monotonic()))
            host.reap(max(0.001, until_s - time.monotonic()))
        self._hosts = {}

    def poll_once(self, until_s: float | None = None) -> list[str]:
        """Bring every model up to date with its folder, and free what is no longer used.

        Returns the names of models for which that takes longer than until `until_s` on the monotonic clock.
        """
        updates = {name: host.update_soon() for name, host in self._hosts.items()}
        late = [
            name
            for name, done in updates.items()
            if not done.wait(None if until_s is None else max(0.0, until_s - time.monotonic()))
        ]
        self._reap()
        return late

    def admission(self, requested: Requested) -> AbstractContextManager[None]:
        """Counts a request for a model during the block; see ModelHost."""
        return self._host(requested).admission()

    def lease(self, requested: Requested, until_s: float | None = None) -> AbstractContextManager[ServedVersion]:
        """The version that an admitted request asks for, which stays loaded while the block runs; see ModelHost."""
        return self._host(requested).lease(requested, until_s)

    def _host(self, requested: Requested) -> ModelHost:
        host = self._hosts.get(requested.name)
        if host is None:
            raise not_served(requested, requested.version)
        return host

    def states(self, requested: Requested) -> list[VersionState]:
        """The states of all known versions, newest first, or of one version; NOT_FOUND if there is none."""
        host = self._hosts.get(requested.name)
        if host is None:
            raise ServingError(Status.NOT_FOUND, f"Could not find any versions of model {requested.name}")
        return host.states(requested)

    def version_counts(self) -> Mapping[str, Mapping[str, int]]:
        """Model -> state -> versions in that state."""
        return {name: _counts(host) for name, host in self._hosts.items()}

    def load_counts(self) -> Mapping[str, LoadCounts]:
        """What the loads of each model have cost so far."""
        return {name: host.counts for name, host in self._hosts.items()}

    @property
    def is_ready(self) -> bool:
        """Whether every model was tried, and at least one can be used: a broken model must not take the others away."""
        hosts = [*self._hosts.values()]
        counts = [_counts(host) for host in hosts]
        return all(host.was_updated for host in hosts) and any(count[AVAILABLE] or count[START] for count in counts)

    def reload(self, config: Any, until_s: float | None = None) -> None:
        """Serve the models of a ModelServerConfig instead, and return once their versions are loaded.

        Raises ServingError: INVALID_ARGUMENT if the configuration cannot be used and nothing has changed,
        FAILED_PRECONDITION if it is in use, but a model or a label has no version, DEADLINE_EXCEEDED if it is in use,
        but models were not loaded until `until_s` on the monotonic clock.
        """
        try:
            models = models_of(config, origin="ReloadConfigRequest")
        except UsageError as error:
            raise ServingError(Status.INVALID_ARGUMENT, str(error)) from None
        self._apply(models)
        if late := self.poll_once(until_s):
            message = f"the configuration is in use, but these models are still being loaded: {', '.join(late)}"
            raise ServingError(Status.DEADLINE_EXCEEDED, message)
        if problems := [problem for host in [*self._hosts.values()] for problem in _problems(host)]:
            raise ServingError(Status.FAILED_PRECONDITION, f"the configuration is in use, but {'; '.join(problems)}")

    def _configured(self) -> tuple[ModelSettings, ...]:
        settings = self._settings
        if settings.model_config_file is not None:
            return read_model_config(settings.model_config_file)
        assert settings.model_base_path is not None
        return (ModelSettings(settings.model_base_path, settings.model_name),)

    def _apply(self, models: tuple[ModelSettings, ...]) -> None:
        """Serve these models; those that stay keep their loaded versions."""
        with self._applying:
            hosts = {}
            for rank, model in enumerate(models):
                host = self._hosts.get(model.name)
                if host is None:
                    host = ModelHost(model, self._settings, self._memory)
                    if self._is_started:
                        host.start()
                host.model, host.rank = model, rank
                hosts[model.name] = host
            removed = [host for name, host in self._hosts.items() if name not in hosts]
            self._hosts = hosts
        for host in removed:
            host.close()
            log_event("model_removed", model=host.model.name)
        with self._applying:  # after they are closed: until then, `_reap` would find nothing to wait for
            self._leaving += removed

    def _poll_until_stopped(self) -> None:
        failure = RepeatedFailure("poll_failed")
        recorded_at_s = looked_at_s = time.monotonic()
        while not self._stop.wait(self._settings.poll_interval_s):
            try:
                every_s = self._settings.model_config_poll_s
                if every_s is not None and time.monotonic() - looked_at_s >= every_s:
                    looked_at_s = time.monotonic()
                    self._reload_if_changed()
                self._reap()
                if time.monotonic() - recorded_at_s > RECORD_INTERVAL_S:
                    recorded_at_s = time.monotonic()
                    for host in self._hosts.values():
                        host.record_scores()
                failure.has_ended()
            except Exception as error:  # does not affect the loaded versions
                failure.has_occurred(error)

    def _reload_if_changed(self) -> None:
        if self._watched is None or not self._watched.changed():
            return
        try:
            models = self._configured()
        except UsageError as error:
            log_event("model_config_not_reloaded", level=logging.ERROR, reason=str(error))
            return
        self._apply(models)
        for host in self._hosts.values():
            host.update_soon()
        log_event("model_config_reloaded", models=len(models))

    def _reap(self) -> None:
        with self._applying:
            freed = sum(host.reap() for host in (*self._hosts.values(), *self._leaving))
            self._leaving = [host for host in self._leaving if host.is_in_use]
        if freed:
            gc.collect()
            return_free_memory()


def _counts(host: ModelHost) -> Counter[str]:
    try:
        return Counter(state.state for state in host.states(Requested(host.model.name)))
    except ServingError:
        return Counter()


def _problems(host: ModelHost) -> Iterator[str]:
    """Why a model or a label cannot be used."""
    name = host.model.name
    try:
        states = host.states(Requested(name))
    except ServingError:
        yield f"{name} has no version in {host.model.base_path}"
        return
    if all(state.state == END for state in states):
        yield f"{name} cannot be loaded: {states[0].error_message}"
    yield from (
        f"{name} has no version {number} for the label {label}" for label, number in host.unassigned_labels.items()
    )
