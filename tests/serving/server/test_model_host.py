"""Versions come, go and break while requests run; whoever asks gets a whole and right answer."""

import itertools
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from schema.artifacts import RECORD_FILE
from serving.client import model_status
from serving.errors import ServingError, Status
from serving.model.prediction import Request
from serving.server.model_host import ModelHost
from serving.server.run import running_server
from serving.server.settings import ServerSettings

NAME = "autoencoder"
Write = Callable[..., Path]


@contextmanager
def _started(settings: ServerSettings) -> Iterator[ModelHost]:
    host = ModelHost(settings)
    host.start()
    try:
        yield host
    finally:
        host.stop()


def _ask(host: ModelHost, x: float = 2.0) -> tuple[int, float]:
    """The version that answered, and y."""
    with host.lease(NAME, None) as served:
        outputs = served.predictor.predict(Request({"x": np.array([x], np.float32)}))
        return served.number, float(outputs["y"][0])


def _wait_for(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def base(tmp_path: Path, write_half_plus: Write) -> Path:
    """A base folder with version 1: y = x / 2 + 1."""
    write_half_plus(tmp_path / "base" / "1", 1.0)
    return tmp_path / "base"


def _push(write: Write, base: Path, name: str, b: float) -> None:
    """As our Pusher does: written under a name that is no number, then renamed."""
    write(base / f".{name}.partial", b).rename(base / name)


def test_newest_version_is_served_and_zero_padding_is_no_obstacle(
    base: Path, write_half_plus: Write, settings_for: Callable[..., ServerSettings]
) -> None:
    """`00000002` is 2, and newer than 1."""
    write_half_plus(base / "00000002", 2.0)
    with _started(settings_for(base)) as host:
        assert _ask(host) == (2, 3.0)


def test_names_that_are_no_numbers_are_not_versions(
    base: Path, write_half_plus: Write, settings_for: Callable[..., ServerSettings]
) -> None:
    """What a push is written under is never served."""
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
def test_broken_newer_version_leaves_the_older_serving(
    base: Path,
    write_half_plus: Write,
    write_warmup: Callable[..., None],
    settings_for: Callable[..., ServerSettings],
    damage: str,
) -> None:
    """Its state is END with the reason; once repaired, it is served."""
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
        refused, available = host.states(NAME, None)
        assert (refused.version, refused.state, available.state) == (2, "END", "AVAILABLE")
        assert refused.error_message
        shutil.rmtree(broken)
        _push(write_half_plus, base, "2", 2.0)
        _wait_for(lambda: _ask(host) == (2, 3.0))


def test_version_with_a_broken_record_is_refused_once_and_its_model_closed(
    base: Path,
    write_half_plus: Write,
    settings_for: Callable[..., ServerSettings],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server that runs goes on with the version before, and does not load the other again at every poll."""
    loader, sessions = tf.compat.v1.saved_model.loader, {}
    load = loader.load

    def watched_load(session: tf.compat.v1.Session, tags: list[str], folder: str) -> object:
        sessions.setdefault(Path(folder).name, []).append(session)
        return load(session, tags, folder)

    monkeypatch.setattr(loader, "load", watched_load)
    with caplog.at_level("INFO", logger="serving"), running_server(settings_for(base)) as address:
        _write_record(write_half_plus(base / ".2.partial", 2.0), '{"calibration": null}').rename(base / "2")
        _wait_for(lambda: "version_refused" in caplog.messages)
        time.sleep(0.5)  # ten polls
        states = model_status(address.rest_url)
    assert [(state.version, state.state) for state in states] == [(2, "END"), (1, "AVAILABLE")]
    assert RECORD_FILE in states[0].error
    assert (caplog.messages.count("version_refused"), caplog.messages.count("poll_failed")) == (1, 0)
    (refused,) = sessions["2"]
    with pytest.raises(RuntimeError, match="closed Session"):
        refused.run([])


def test_state_of_a_version_in_a_folder_whose_name_is_no_text_is_told(
    tmp_path: Path, settings_for: Callable[..., ServerSettings]
) -> None:
    """By both protocols; the folder's bytes are escaped."""
    base = tmp_path / os.fsdecode(b"models\xff")
    (base / "1").mkdir(parents=True)
    with running_server(settings_for(base)) as address:
        for server in (address.rest_url, address.grpc_url):
            (state,) = model_status(server)
            assert "models\\udcff" in state.error


def test_removing_the_newest_version_goes_back_to_the_one_before(
    base: Path, write_half_plus: Write, settings_for: Callable[..., ServerSettings]
) -> None:
    """A rollback is a removal; with no version left the loaded one goes on serving."""
    write_half_plus(base / "2", 2.0)
    with _started(settings_for(base)) as host:
        assert _ask(host) == (2, 3.0)
        shutil.rmtree(base / "2")
        _wait_for(lambda: _ask(host) == (1, 2.0))
        shutil.rmtree(base)
        host.poll_once()
        assert _ask(host) == (1, 2.0)


def test_server_without_a_version_waits_for_one(
    tmp_path: Path, write_half_plus: Write, settings_for: Callable[..., ServerSettings]
) -> None:
    """NOT_FOUND until the first version arrives, even where the base folder does not exist yet."""
    base = tmp_path / "later"
    with _started(settings_for(base)) as host:
        with pytest.raises(ServingError) as refusal:
            _ask(host)
        assert refusal.value.status is Status.NOT_FOUND
        base.mkdir()
        _push(write_half_plus, base, "5", 5.0)
        _wait_for(lambda: bool(host.states(NAME, None)) if _is_up(host) else False)
        assert _ask(host) == (5, 6.0)


def _is_up(host: ModelHost) -> bool:
    try:
        return _ask(host)[0] > 0
    except ServingError:
        return False


def test_swaps_under_load_fail_no_request_and_mix_no_versions(
    base: Path, write_half_plus: Write, settings_for: Callable[..., ServerSettings]
) -> None:
    """Version n answers x / 2 + n: every answer fits the version that it says it is from."""
    stop = threading.Event()
    wrong: list[object] = []
    counts = [0] * 4

    def load(worker: int) -> None:
        for x in itertools.cycle([0.0, 2.0, 4.0, 6.0]):
            if stop.is_set():
                return
            try:
                version, y = _ask(host, x)
                if y != x / 2 + version:
                    wrong.append((version, x, y))
            except Exception as error:
                wrong.append(error)
            counts[worker] += 1

    with _started(settings_for(base)) as host:
        workers = [threading.Thread(target=load, args=(n,)) for n in range(4)]
        for worker in workers:
            worker.start()
        for version in range(2, 8):
            _push(write_half_plus, base, str(version), float(version))
            _wait_for(lambda version=version: _ask(host)[0] == version)
        stop.set()
        for worker in workers:
            worker.join()
    assert wrong == []
    assert min(counts) > 50


def test_replaced_model_is_released(
    base: Path, write_half_plus: Write, settings_for: Callable[..., ServerSettings]
) -> None:
    """A request in the old version ends there; afterwards nothing refers to it."""
    with _started(settings_for(base)) as host:
        with host.lease(NAME, None) as served:
            old = weakref.ref(served.predictor)
            _push(write_half_plus, base, "2", 2.0)
            _wait_for(lambda: _ask(host)[0] == 2)
            outputs = served.predictor.predict(Request({"x": np.array([2.0], np.float32)}))
            assert float(outputs["y"][0]) == 2.0
        del served
        _wait_for(lambda: old() is None)


def test_warmup_requests_are_replayed_before_serving(
    image_model: Path, settings_for: Callable[..., ServerSettings], caplog: pytest.LogCaptureFixture
) -> None:
    """The log says how many."""
    with caplog.at_level("INFO", logger="serving"), _started(settings_for(image_model)):
        available = [r for r in caplog.records if r.getMessage() == "version_available"]
    assert [record.fields for record in available] == [{"version": 7, "warmup_requests": 1}]
