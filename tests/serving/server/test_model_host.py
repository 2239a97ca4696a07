"""Versions come, go and break while requests run; every request gets a complete, correct answer."""

import itertools
import os
import shutil
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from urls import grpc_url, rest_url
from waiting import wait_until

from schema.artifacts import RECORD_FILE
from serving.client import model_status
from serving.errors import ServingError, Status
from serving.model.prediction import Request
from serving.server.model_host import Requested
from serving.server.run import running_server
from serving.server.served_models import ServedModels
from serving.server.settings import ServerSettings

NAME = "autoencoder"
Write = Callable[..., Path]


@contextmanager
def _started(settings: ServerSettings) -> Iterator[ServedModels]:
    host = ServedModels(settings)
    host.start()
    try:
        yield host
    finally:
        host.stop()


def _ask(host: ServedModels, x: float = 2.0) -> tuple[int, float]:
    """The version that answered, and its y."""
    with host.lease(Requested(NAME)) as served:
        outputs = served.predictor.predict(Request({"x": np.array([x], np.float32)}))
        return served.number, float(outputs["y"][0])


@pytest.fixture
def base(tmp_path: Path, write_half_plus: Write) -> Path:
    """A base folder with version 1: y = x / 2 + 1."""
    write_half_plus(tmp_path / "base" / "1", 1.0)
    return tmp_path / "base"


def _push(write: Write, base: Path, name: str, b: float) -> None:
    """Like the Pusher: write under a name that is not a number, then rename."""
    write(base / f".{name}.partial", b).rename(base / name)


def test_newest_version_is_served_even_if_zero_padded(
    base: Path, write_half_plus: Write, settings_for: Callable[..., ServerSettings]
) -> None:
    """`00000002` is 2, and newer than 1."""
    write_half_plus(base / "00000002", 2.0)
    with _started(settings_for(base)) as host:
        assert _ask(host) == (2, 3.0)


def test_names_that_are_not_numbers_are_not_versions(
    base: Path, write_half_plus: Write, settings_for: Callable[..., ServerSettings]
) -> None:
    """The temporary name of a push is never served."""
    for name in (".9.partial", "9.tmp", "v9", "-9", "٩"):
        write_half_plus(base / name, 9.0)
    with _started(settings_for(base)) as host:
        assert _ask(host)[0] == 1


BAD_RECORDS = {"no calibration in the record": '{"calibration": null}', "truncated record": '{"calibration": {"sco'}


def _write_record(version: Path, text: str) -> Path:
    record = version / RECORD_FILE
    record.parent.mkdir(exist_ok=True)
    record.write_text(text)
    return version


@pytest.mark.parametrize("damage", ["empty", "corrupt", "truncated variables", "bad warm-up", *BAD_RECORDS])
def test_broken_newer_version_leaves_the_older_in_service(
    base: Path,
    write_half_plus: Write,
    write_warmup: Callable[..., None],
    settings_for: Callable[..., ServerSettings],
    damage: str,
) -> None:
    """Its state is END with the reason; it is served once it has been repaired."""
    broken = base / "2"
    if damage == "empty":
        broken.mkdir()
    else:
        write_half_plus(broken, 2.0)
    if damage == "corrupt":
        (broken / "saved_model.pb").write_bytes(b"\x00 not a model")
    if damage == "truncated variables":
        for path in (broken / "variables").glob("variables.data*"):
            path.write_bytes(b"")
    if damage == "bad warm-up":
        write_warmup(broken, [b"x"], signature_name="none")
    if damage in BAD_RECORDS:
        _write_record(broken, BAD_RECORDS[damage])
    with _started(settings_for(base)) as host:
        assert _ask(host) == (1, 2.0)
        refused, available = host.states(Requested(NAME))
        assert (refused.version, refused.state, available.state) == (2, "END", "AVAILABLE")
        assert refused.error_message
        shutil.rmtree(broken)
        _push(write_half_plus, base, "2", 2.0)
        wait_until(lambda: _ask(host) == (2, 3.0))


def test_version_with_a_broken_record_is_loaded_once_and_closed(
    base: Path,
    write_half_plus: Write,
    settings_for: Callable[..., ServerSettings],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The previous version stays in service, and later polls do not load the broken one again."""
    loader, sessions = tf.compat.v1.saved_model.loader, {}
    load = loader.load

    def recording_load(session: tf.compat.v1.Session, tags: list[str], folder: str) -> object:
        sessions.setdefault(Path(folder).name, []).append(session)
        return load(session, tags, folder)

    monkeypatch.setattr(loader, "load", recording_load)
    with caplog.at_level("INFO", logger="serving"), _started(settings_for(base, poll_interval_s=3600)) as host:
        _write_record(write_half_plus(base / ".2.partial", 2.0), '{"calibration": null}').rename(base / "2")
        for _ in range(10):
            host.poll_once()
        states = host.states(Requested(NAME))
    assert [(state.version, state.state) for state in states] == [(2, "END"), (1, "AVAILABLE")]
    assert RECORD_FILE in states[0].error_message
    assert caplog.messages.count("version_refused") == 1
    (refused,) = sessions["2"]
    with pytest.raises(RuntimeError, match="closed Session"):
        refused.run([])


def test_state_of_a_version_in_a_folder_whose_name_is_not_text(
    tmp_path: Path, settings_for: Callable[..., ServerSettings]
) -> None:
    """Both protocols escape the bytes of the folder's name."""
    base = tmp_path / os.fsdecode(b"models\xff")
    (base / "1").mkdir(parents=True)
    with running_server(settings_for(base)) as address:
        for server in (rest_url(address), grpc_url(address)):
            (state,) = model_status(server)
            assert "models\\udcff" in state.error


def test_removing_the_newest_version_restores_the_previous_one(
    base: Path, write_half_plus: Write, settings_for: Callable[..., ServerSettings]
) -> None:
    """If no version is left, the loaded one stays in service."""
    write_half_plus(base / "2", 2.0)
    with _started(settings_for(base)) as host:
        assert _ask(host) == (2, 3.0)
        shutil.rmtree(base / "2")
        wait_until(lambda: _ask(host) == (1, 2.0))
        shutil.rmtree(base)
        host.poll_once()
        assert _ask(host) == (1, 2.0)


def test_server_without_a_version_waits_for_one(
    tmp_path: Path, write_half_plus: Write, settings_for: Callable[..., ServerSettings]
) -> None:
    """NOT_FOUND until the first version arrives, even if the base folder does not exist yet."""
    base = tmp_path / "later"
    with _started(settings_for(base)) as host:
        with pytest.raises(ServingError) as refusal:
            _ask(host)
        assert refusal.value.status is Status.NOT_FOUND
        base.mkdir()
        _push(write_half_plus, base, "5", 5.0)
        wait_until(lambda: _is_up(host))
        assert _ask(host) == (5, 6.0)


def _is_up(host: ServedModels) -> bool:
    try:
        return _ask(host)[0] > 0
    except ServingError:
        return False


def test_swaps_under_load_fail_no_request_and_mix_no_versions(
    base: Path, write_half_plus: Write, settings_for: Callable[..., ServerSettings]
) -> None:
    """Version n answers x / 2 + n: every answer matches the version it comes from, and every version answers."""
    stop = threading.Event()
    wrong: list[object] = []
    answers: list[Counter[int]] = [Counter() for _ in range(4)]

    def load(worker: int) -> None:
        for x in itertools.cycle([0.0, 2.0, 4.0, 6.0]):
            if stop.is_set():
                return
            try:
                version, y = _ask(host, x)
                if y != x / 2 + version:
                    wrong.append((version, x, y))
                answers[worker][version] += 1
            except Exception as error:
                wrong.append(error)

    with _started(settings_for(base)) as host:
        workers = [threading.Thread(target=load, args=(n,)) for n in range(4)]
        for worker in workers:
            worker.start()
        try:
            for version in range(2, 8):
                _push(write_half_plus, base, str(version), float(version))
                wait_until(lambda version=version: all(counts[version] >= 10 for counts in answers))
        finally:
            stop.set()
            for worker in workers:
                worker.join()
    assert wrong == []


def test_replaced_model_is_released(
    base: Path, write_half_plus: Write, settings_for: Callable[..., ServerSettings]
) -> None:
    """A request on the old version finishes there; afterwards nothing refers to the old model."""
    with _started(settings_for(base)) as host:
        with host.lease(Requested(NAME)) as served:
            old = weakref.ref(served.predictor)
            _push(write_half_plus, base, "2", 2.0)
            wait_until(lambda: _ask(host)[0] == 2)
            outputs = served.predictor.predict(Request({"x": np.array([2.0], np.float32)}))
            assert float(outputs["y"][0]) == 2.0
        del served
        wait_until(lambda: old() is None)


def test_warmup_requests_are_replayed_before_serving(
    image_model: Path, settings_for: Callable[..., ServerSettings], caplog: pytest.LogCaptureFixture
) -> None:
    """Their number is logged."""
    with caplog.at_level("INFO", logger="serving"), _started(settings_for(image_model)):
        available = [r for r in caplog.records if r.getMessage() == "version_available"]
    assert [record.fields for record in available] == [{"model": NAME, "version": 7, "warmup_requests": 1}]
