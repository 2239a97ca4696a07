"""One server, several models: each answers under its own name, whatever happens to the others."""

import http.client
import itertools
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from urls import grpc_url
from waiting import wait_until

from runtime.errors import UsageError
from serving.errors import ServingError
from serving.server import loaded_memory
from serving.server.loaded_memory import LoadedMemory, NoRoomError, estimated_bytes
from serving.server.model_config import ModelSettings
from serving.server.model_host import ModelHost, Requested
from serving.server.run import ServerAddress, running_server
from serving.server.served_models import ServedModels
from serving.server.settings import ServerSettings

Write = Callable[..., Path]
Bases = Mapping[str, Path]
TIMEOUT_S = 20


def _entry(name: str, base: Path, more: str = "") -> str:
    return f"config {{ name: '{name}' base_path: '{base}' model_platform: 'tensorflow' {more} }}"


def _listed(*entries: str) -> str:
    return f"model_config_list {{ {' '.join(entries)} }}"


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory, write_half_plus: Write) -> Write:
    """Write y = x / 2 + b: (folder, b). Each model is made once, and copied."""
    made: dict[float, Path] = {}

    def copy(folder: Path, b: float) -> Path:
        if b not in made:
            made[b] = write_half_plus(tmp_path_factory.mktemp("made") / "1", b)
        return Path(shutil.copytree(made[b], folder))

    return copy


@pytest.fixture
def bases(tmp_path: Path, write: Write) -> Bases:
    """Folders of versions: `cap` answers x / 2 + 1, `lid` x / 2 + 10, and `bad` holds no model."""
    folders = {name: tmp_path / "models" / name for name in ("cap", "lid", "bad")}
    write(folders["cap"] / "1", 1.0)
    write(folders["lid"] / "1", 10.0)
    (folders["bad"] / "1").mkdir(parents=True)
    (folders["bad"] / "1" / "saved_model.pb").write_bytes(b"\x00 not a model")
    return folders


@pytest.fixture
def settings(tmp_path: Path, bases: Bases) -> ServerSettings:
    """Settings for a server of all three."""
    file = tmp_path / "models.config"
    file.write_text(_listed(*(_entry(name, base) for name, base in bases.items())))
    return _settings(file)


def _settings(file: Path, **others: Any) -> ServerSettings:
    timing = {"poll_interval_s": 0.05, "model_config_poll_s": 0.05}
    return ServerSettings(**{"model_config_file": file, "grpc_port": 0, "rest_port": 0, **timing, **others})


class Api:
    """A running server."""

    def __init__(self, address: ServerAddress) -> None:
        self._address = address
        self.channel = grpc.insecure_channel(grpc_url(address).removeprefix("grpc://"))

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and document, or text, of one HTTP request."""
        connection = http.client.HTTPConnection(self._address.host, self._address.rest_port, timeout=TIMEOUT_S)
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, json.loads(text) if text[:1] == "{" else text

    def y(self, path: str) -> float:
        """The answer for x = 2 over REST: 1 + b."""
        status, document = self.call("POST", f"/v1/models/{path}:predict", {"instances": [2.0]})
        assert status == 200, document
        return float(document["predictions"][0])

    def states(self, name: str) -> dict[int, str]:
        _, document = self.call("GET", f"/v1/models/{name}")
        return {int(row["version"]): row["state"] for row in document.get("model_version_status", [])}

    def predict(self, *, timeout_s: float = TIMEOUT_S, **spec: Any) -> predict_pb2.PredictResponse:
        """The answer for x = 2 over gRPC."""
        request = predict_pb2.PredictRequest(model_spec=spec)
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([2.0], dtype=tf.float32))
        return prediction_service_pb2_grpc.PredictionServiceStub(self.channel).Predict(request, timeout_s)

    def reload(self, text: str) -> None:
        request = model_management_pb2.ReloadConfigRequest()
        text_format.Parse(text, request.config)
        model_service_pb2_grpc.ModelServiceStub(self.channel).HandleReloadConfigRequest(request, TIMEOUT_S)


@contextmanager
def _serving(settings: ServerSettings) -> Iterator[Api]:
    with running_server(settings) as address:
        api = Api(address)
        wait_until(lambda: api.call("GET", "/readyz")[0] == 200)
        yield api
        api.channel.close()


def _push(write: Write, base: Path, version: int, b: float) -> None:
    write(base / f".{version}.partial", b).rename(base / str(version))


def test_each_model_answers_under_its_name_and_a_broken_one_is_reported(settings: ServerSettings) -> None:
    with _serving(settings) as api:
        assert api.call("GET", "/v1/models") == (200, {"models": ["cap", "lid", "bad"]})
        assert (api.y("cap"), api.y("lid")) == (2.0, 11.0)
        response = api.predict(name="lid")
        assert (response.outputs["y"].float_val[0], response.model_spec.name) == (11.0, "lid")
        _, document = api.call("GET", "/v1/models/bad")
        (state,) = document["model_version_status"]
        assert (state["state"], "SavedModel" in state["status"]["error_message"]) == ("END", True)
        assert api.call("POST", "/v1/models/bad:predict", {"instances": [2.0]})[0] == 404
        assert api.call("POST", "/v1/models/none:predict", {"instances": [2.0]})[0] == 404
        page = api.call("GET", "/monitoring/prometheus/metrics")[1]
    assert 'autoencoder_model_versions{model_name="cap",state="AVAILABLE"} 1.0' in page
    assert 'autoencoder_model_versions{model_name="bad",state="END"} 1.0' in page
    assert ':tensorflow:serving:request_count{model_name="lid",status="OK"} 2.0' in page


def test_a_push_during_load_fails_no_request_of_any_model(settings: ServerSettings, bases: Bases, write: Write) -> None:
    """Every answer is one of a version that exists, the broken model is repaired meanwhile, and all are served."""
    stop = threading.Event()
    wrong: list[object] = []
    answers = Counter[tuple[str, float]]()

    def load(api: Api, model: str) -> None:
        while not stop.is_set():
            try:
                answers[model, api.y(model)] += 1
            except Exception as error:
                wrong.append(error)

    with _serving(settings) as api:
        workers = [threading.Thread(target=load, args=(api, model)) for model in ("cap", "lid", "cap", "lid")]
        for worker in workers:
            worker.start()
        try:
            _push(write, bases["cap"], 2, 2.0)
            _push(write, bases["bad"], 2, 5.0)
            wait_until(lambda: answers["cap", 3.0] >= 10 and api.states("bad").get(2) == "AVAILABLE")
            assert api.y("bad") == 6.0
        finally:
            stop.set()
            for worker in workers:
                worker.join()
    assert wrong == []
    assert {*answers} == {("cap", 2.0), ("cap", 3.0), ("lid", 11.0)}


def test_versions_are_served_by_policy_number_and_label(bases: Bases, tmp_path: Path, write: Write) -> None:
    """Over both protocols; a label moves once its version is served."""
    for number in (2, 3):
        write(bases["cap"] / str(number), float(number))
    file = tmp_path / "models.config"
    labels = "version_labels {{ key: 'stable' value: {} }} version_labels {{ key: 'canary' value: 3 }}"
    policy = "model_version_policy { specific { versions: 1 versions: 3 } }"
    file.write_text(_listed(_entry("cap", bases["cap"], policy + labels.format(1))))
    with _serving(_settings(file)) as api:
        assert api.states("cap") == {3: "AVAILABLE", 1: "AVAILABLE"}
        paths = ("cap", "cap/versions/1", "cap/labels/stable", "cap/labels/canary")
        assert [api.y(path) for path in paths] == [4.0, 2.0, 2.0, 4.0]
        assert api.predict(name="cap", version_label="stable").model_spec.version.value == 1
        assert api.call("GET", "/v1/models/cap/labels/stable")[1]["model_version_status"][0]["version"] == "1"
        status, document = api.call("POST", "/v1/models/cap/labels/beta:predict", {"instances": [2.0]})
        assert (status, document["error"]) == (400, "Unrecognized servable version label: beta")
        assert api.call("POST", "/v1/models/cap/versions/2:predict", {"instances": [2.0]})[0] == 404
        file.write_text(_listed(_entry("cap", bases["cap"], policy + labels.format(2))))
        wait_until(lambda: api.call("GET", "/v1/models/cap/versions/2")[0] == 404 and api.y("cap/labels/stable") == 2.0)
        file.write_text(_listed(_entry("cap", bases["cap"], labels.format(2) + policy.replace("1", "2"))))
        wait_until(lambda: api.y("cap/labels/stable") == 3.0)
        wait_until(lambda: api.states("cap") == {3: "AVAILABLE", 2: "AVAILABLE"})


def test_the_file_and_grpc_change_what_is_served_and_a_mistake_changes_nothing(
    settings: ServerSettings, bases: Bases, caplog: pytest.LogCaptureFixture
) -> None:
    cap, lid, bad = (_entry(name, base) for name, base in bases.items())
    assert settings.model_config_file is not None
    with caplog.at_level("INFO", logger="serving"), _serving(settings) as api:
        settings.model_config_file.write_text(_listed(cap) + "{")
        wait_until(lambda: "model_config_not_reloaded" in caplog.messages)
        assert (api.y("cap"), api.y("lid")) == (2.0, 11.0)
        settings.model_config_file.write_text(_listed(cap))
        wait_until(lambda: api.call("GET", "/v1/models")[1] == {"models": ["cap"]})
        assert api.call("GET", "/v1/models/lid")[0] == 404
        api.reload(_listed(cap, lid))
        assert api.y("lid") == 11.0
        with pytest.raises(grpc.RpcError) as refusal:
            api.reload(_listed(cap, cap))
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "'cap' is listed twice" in refusal.value.details()
        with pytest.raises(grpc.RpcError) as problem:
            api.reload(_listed(cap, bad, _entry("new", bases["cap"].parent / "new")))
        assert problem.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "bad cannot be loaded" in problem.value.details()
        assert "new has no version in" in problem.value.details()
        assert api.y("cap") == 2.0
        assert api.call("GET", "/v1/models")[1] == {"models": ["cap", "bad", "new"]}


def test_an_update_that_waits_until_its_model_has_left_loads_nothing(settings: ServerSettings, bases: Bases) -> None:
    memory = LoadedMemory(None)
    host = ModelHost(ModelSettings(bases["cap"], "cap"), settings, memory)
    host.close()
    host.update()
    assert memory.used_bytes == 0
    with pytest.raises(ServingError, match="Could not find any versions"):
        host.states(Requested("cap"))


@contextmanager
def _hanging(monkeypatch: pytest.MonkeyPatch, base: Path) -> Iterator[None]:
    """Listing `base` hangs during the block, as on a network share that is gone."""
    released, listing = threading.Event(), Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder == base:
            released.wait()
        return listing(folder)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", iterdir)
        try:
            yield
        finally:
            released.set()


def test_a_folder_that_hangs_delays_neither_other_models_nor_changes_nor_the_end(
    settings: ServerSettings, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own requests fail at their deadline; the model can be removed, and the server stops."""
    assert settings.model_config_file is not None
    with _hanging(monkeypatch, bases["cap"]):
        with running_server(_settings(settings.model_config_file, stop_grace_s=0.5)) as address:
            api = Api(address)
            wait_until(lambda: api.states("lid") == {1: "AVAILABLE"})
            with pytest.raises(grpc.RpcError) as late:
                api.predict(name="cap", timeout_s=0.3)
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            settings.model_config_file.write_text(_listed(_entry("lid", bases["lid"]), _entry("new", bases["lid"])))
            wait_until(lambda: api.states("new") == {1: "AVAILABLE"})
            assert api.call("GET", "/v1/models")[1] == {"models": ["lid", "new"]}
            began_s = time.monotonic()
            api.channel.close()
        assert time.monotonic() - began_s < 10


def test_a_failing_folder_is_logged_once_and_again_when_it_is_readable(
    settings: ServerSettings, bases: Bases, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    listing, tries = Path.iterdir, Counter[Path]()

    def iterdir(folder: Path) -> Iterator[Path]:
        tries[folder] += 1
        if folder == bases["cap"] and tries[folder] < 6:
            raise PermissionError(f"{folder}: not now")
        return listing(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with caplog.at_level("INFO", logger="serving"), _serving(settings) as api:
        wait_until(lambda: api.states("cap") == {1: "AVAILABLE"})
    assert (caplog.messages.count("poll_failed"), caplog.messages.count("poll_failed_no_more")) == (1, 1)


class _Sized:
    size_bytes = 10

    def last_used(self) -> tuple[bool, float]:
        return False, 0.0


def test_loads_that_requests_wait_for_come_first_the_oldest_ahead() -> None:
    """Two run at a time; then those that are requested, by time, and the others by rank."""
    memory, began = LoadedMemory(None), list[str]()
    wanted = {
        "a": (0, None),
        "b": (1, None),
        "late": (5, 9.0),
        "early": (6, 8.0),
        "second": (3, None),
        "first": (2, None),
    }
    finish = {name: threading.Event() for name in wanted}

    def load(name: str, rank: int, since_s: float | None) -> None:
        with memory.room(10, rank=rank, urgent_since=lambda: since_s):
            began.append(name)
            finish[name].wait()

    threads = [threading.Thread(target=load, args=(name, *order)) for name, order in wanted.items()]
    for count, thread in enumerate(threads, 1):
        thread.start()
        wait_until(lambda count=count: len(began) + len(memory._queue) == count)
    for count in range(2, len(wanted) + 1):
        wait_until(lambda count=count: len(began) == count)
        finish[began[count - 2]].set()
    finish[began[-1]].set()
    for thread in threads:
        thread.join()
    assert {*began[:2]} == {"a", "b"}
    assert began[2:] == ["early", "late", "first", "second"]


def test_loads_that_hang_do_not_keep_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in two folders of a network share that is gone."""
    memory, released, began = LoadedMemory(None), threading.Event(), list[str]()

    def load(name: str) -> None:
        with memory.room(10, rank=0, urgent_since=lambda: None):
            began.append(name)
            released.wait()

    monkeypatch.setattr(loaded_memory, "HANGING_AFTER_S", 2.0)
    threads = [threading.Thread(target=load, args=(name,)) for name in ("gone", "gone too", "next")]
    for count, thread in enumerate(threads, 1):
        thread.start()
        wait_until(lambda count=count: len(began) + len(memory._queue) == count)
    assert began == ["gone", "gone too"]
    wait_until(lambda: len(began) == 3)
    released.set()
    for thread in threads:
        thread.join()
    assert memory.used_bytes == 0
    assert memory._loading == {}


def test_a_loaded_version_is_counted_without_a_gap_and_only_urgent_ones_replace_it() -> None:
    memory, unloaded = LoadedMemory(15), list[str]()
    with memory.room(10, rank=0, urgent_since=lambda: None) as keep:
        assert memory.used_bytes == 10
        keep(_Sized(), lambda: unloaded.append("first"))
        assert memory.used_bytes == 10
    assert memory.used_bytes == 10
    with pytest.raises(NoRoomError), memory.room(10, rank=1, urgent_since=lambda: None):
        pass
    with memory.room(10, rank=1, urgent_since=lambda: 0.0):
        assert (unloaded, memory.used_bytes) == (["first"], 10)
    assert memory.used_bytes == 0


def test_requests_for_one_cold_model_share_a_load_and_the_metrics_count_it(bases: Bases, tmp_path: Path) -> None:
    """Room for one of two models: eight requests at once for the other one need a single load."""
    file = tmp_path / "models.config"
    file.write_text(_listed(*(_entry(name, bases[name]) for name in ("cap", "lid"))))
    room = round(1.5 * estimated_bytes(bases["cap"] / "1"))
    with _serving(_settings(file, max_loaded_bytes=room, poll_interval_s=3600.0)) as api:
        [cold] = [name for name in ("cap", "lid") if api.states(name) == {1: "START"}]
        [warm] = {"cap", "lid"} - {cold}
        with ThreadPoolExecutor(8) as clients:
            answers = {*clients.map(lambda _: api.y(cold), range(8))}
        page = api.call("GET", "/monitoring/prometheus/metrics")[1]
    assert len(answers) == 1
    assert f'autoencoder_loads_total{{model_name="{cold}"}} 1.0' in page
    assert f'autoencoder_evictions_total{{model_name="{warm}"}} 1.0' in page
    assert f'autoencoder_load_waits_total{{model_name="{warm}"}} 0.0' in page
    [waits] = [
        line for line in page.splitlines() if line.startswith(f'autoencoder_load_waits_total{{model_name="{cold}"')
    ]
    assert 1 <= float(waits.split()[1]) <= 8


def test_a_runs_folder_is_no_folder_of_versions_and_the_message_names_that(
    settings: ServerSettings, bases: Bases
) -> None:
    """The log has the message, as `poll_failed`; reading the configuration lists no folders, since one may hang."""
    run = bases["cap"].parent
    bases["cap"].rename(run / "serving")
    host = ModelHost(ModelSettings(run, "cap"), settings, LoadedMemory(None))
    with pytest.raises(UsageError, match=r"base_path '.*/models' is a run's folder: its versions are in its serving/"):
        host.update()


def test_a_single_model_cannot_be_exchanged_over_grpc(
    bases: Bases, settings_for: Callable[..., ServerSettings]
) -> None:
    with running_server(settings_for(bases["cap"])) as address:
        api = Api(address)
        with pytest.raises(grpc.RpcError) as refusal:
            api.reload(_listed(_entry("cap", bases["lid"])))
        assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "--model_config_file" in refusal.value.details()


def test_the_least_recently_used_model_makes_way_and_returns_on_demand(
    bases: Bases, tmp_path: Path, write: Write
) -> None:
    """Room for two of three: the third is loaded by its first request, and a push to a loaded model is served."""
    write(bases["cap"].parent / "box" / "1", 20.0)
    file = tmp_path / "models.config"
    names = ("cap", "lid", "box")
    file.write_text(_listed(*(_entry(name, bases["cap"].parent / name) for name in names)))
    room = round(2.5 * estimated_bytes(bases["cap"] / "1"))
    with _serving(_settings(file, max_loaded_bytes=room)) as api:
        assert Counter(api.states(name)[1] for name in names) == {"AVAILABLE": 2, "START": 1}
        for name, y in itertools.islice(itertools.cycle([("cap", 2.0), ("lid", 11.0), ("box", 21.0)]), 6):
            assert api.y(name) == y
        assert [api.states(name)[1] for name in names] == ["START", "AVAILABLE", "AVAILABLE"]
        assert api.y("lid") == 11.0
        _push(write, bases["lid"], 2, 12.0)
        wait_until(lambda: api.states("lid") == {2: "AVAILABLE"})
        assert (api.y("lid"), api.y("cap")) == (13.0, 2.0)
        page = api.call("GET", "/monitoring/prometheus/metrics")[1]
    loaded = next(line for line in page.splitlines() if line.startswith("autoencoder_loaded_bytes "))
    assert float(loaded.split()[1]) <= room


def test_a_broken_version_that_is_loaded_on_demand_gives_way_to_the_previous_one(bases: Bases, tmp_path: Path) -> None:
    """The request that tries it gets the previous version's answer."""
    size_bytes = (bases["lid"] / "1" / "saved_model.pb").stat().st_size
    (bases["lid"] / "2").mkdir()
    (bases["lid"] / "2" / "saved_model.pb").write_bytes(b"\x00" * size_bytes)
    file = tmp_path / "models.config"
    file.write_text(_listed(_entry("lid", bases["lid"])))
    with _serving(_settings(file, max_loaded_bytes=1, poll_interval_s=3600.0)) as api:
        assert api.states("lid") == {2: "START"}
        assert api.y("lid") == 11.0
        assert api.states("lid") == {2: "END", 1: "AVAILABLE"}


def test_requests_for_one_model_leave_threads_for_the_others(settings: ServerSettings) -> None:
    """Beyond half of all requests, a model's are refused."""
    models = ServedModels(settings)
    models.start()
    with ExitStack() as held:
        for _ in range(settings.max_requests_per_model):
            held.enter_context(models.admission(Requested("cap")))
        with pytest.raises(ServingError, match="too many requests for cap"), models.admission(Requested("cap")):
            pass
        with models.admission(Requested("lid")):
            pass
    with models.admission(Requested("cap")):
        pass
    models.stop()
    assert settings.threads >= settings.max_requests_per_model + 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either a folder of versions or --model_config_file"),
        ({"model_base_path": Path(), "model_config_file": Path()}, "give either a folder of versions"),
        ({"model_base_path": Path(), "max_loaded_bytes": 1}, "--max-loaded-mb needs --model_config_file"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ServerSettings(**arguments)
