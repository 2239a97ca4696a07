"""Small requests that arrive while others are answered form a group; each has its own answer, error and deadline."""

import asyncio
import base64
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import wait_until

from serving.errors import ServingError
from serving.model.batching import Steps
from serving.server import groups
from serving.server.groups import Groups
from serving.server.run import ServerAddress, running_server
from serving.server.settings import ServerSettings

TIMEOUT_S = 20


class Client:
    """Sends requests to a server at the same time."""

    def __init__(self, address: ServerAddress) -> None:
        self._address = address
        self._threads = ThreadPoolExecutor(16)

    def send(self, document: Any, model: str = "images") -> "Future[tuple[int, Any]]":
        """The status and the document of the answer, later."""
        return self._threads.submit(self._exchange, "POST", f"/v1/models/{model}:predict", json.dumps(document))

    def _exchange(self, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
        with closing(http.client.HTTPConnection(self._address.host, self._address.rest_port, timeout=30)) as connection:
            connection.request(method, path, body)
            response = connection.getresponse()
            text = response.read().decode()
            return response.status, json.loads(text) if text[:1] == "{" else text

    def metric(self, name: str) -> float:
        _, page = self._exchange("GET", "/monitoring/prometheus/metrics")
        return sum(float(line.split()[1]) for line in page.splitlines() if line.startswith(name))

    def wait_for(self, requests: int) -> None:
        """Until so many are answered or wait."""
        wait_until(lambda: self.metric("autoencoder_requests_in_progress ") == requests)


def scores_of(*images: bytes, **others: Any) -> dict[str, Any]:
    return {"instances": [{"b64": base64.b64encode(image).decode()} for image in images], **others}


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch, image_model: Path) -> Iterator[threading.Event]:
    """Until it is set, `images` is not loaded, so that the first request for it waits, and the others wait for that."""
    released, listing = threading.Event(), Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder == image_model:
            released.wait()
        return listing(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    monkeypatch.setattr(groups, "PATIENCE_S", 3 * TIMEOUT_S)
    yield released
    released.set()


@pytest.fixture
def serving(tmp_path: Path, image_model: Path, half_plus_two: Path) -> Callable[..., Any]:
    """Serves `images` and `half`; (other settings)."""
    file = tmp_path / "models.config"
    entries = (
        f"config {{ name: '{name}' base_path: '{base}' model_platform: 'tensorflow' }}"
        for name, base in (("images", image_model), ("half", half_plus_two))
    )
    file.write_text(f"model_config_list {{ {' '.join(entries)} }}")

    @contextmanager
    def start(**others: Any) -> Iterator[Client]:
        settings = {"model_config_file": file, "grpc_port": 0, "rest_port": 0, "poll_interval_s": 0.05, **others}
        with running_server(ServerSettings(**settings)) as address:
            client = Client(address)
            wait_until(lambda: client.send({"instances": [2.0]}, "half").result()[0] == 200)
            yield client

    return start


def test_each_request_of_a_group_has_its_own_answer_or_error(
    serving: Callable[..., Any],
    release: threading.Event,
    normal_png: bytes,
    anomalous_png: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of several signatures and sizes, some broken; as if each were alone, also in the metrics and the log."""
    pixels = np.random.default_rng(1).random((2, 16, 16, 1)).round(3).tolist()
    documents = [
        scores_of(normal_png),
        scores_of(b"no image"),
        scores_of(anomalous_png, normal_png, anomalous_png),
        scores_of(normal_png, b"no image"),
        scores_of(anomalous_png, signature_name="locate"),
        {"signature_name": "encode", "inputs": pixels},
        {"signature_name": "decode", "instances": [[0.25]]},
        {"signature_name": "none", "instances": []},
        {"instances": [3]},
        scores_of(*[anomalous_png] * 70),
        scores_of(anomalous_png),
    ]
    with caplog.at_level("INFO", logger="serving"), serving() as client:
        answers = [client.send(document) for document in documents]
        client.wait_for(len(documents))
        assert client.send({"instances": [2.0]}, "half").result(TIMEOUT_S) == (200, {"predictions": [3.0]})
        release.set()
        together = [answer.result(TIMEOUT_S) for answer in answers]
        client.wait_for(0)
        refused = [record.fields["error"] for record in caplog.records if record.getMessage() == "request_refused"]  # type: ignore[attr-defined]
        counts = [
            client.metric(f':tensorflow:serving:request_count{{model_name="images",status="{status}"')
            for status in ("OK", "INVALID_ARGUMENT")
        ]
        alone = [client.send(document).result(TIMEOUT_S) for document in documents]
    assert [status for status, _ in alone] == [200, 400, 200, 400, 200, 200, 200, 400, 400, 200, 200]
    assert [status for status, _ in together] == [status for status, _ in alone]
    for (_, got), (_, expected) in zip(together, alone, strict=True):
        assert got == pytest.approx(expected) if "error" in expected else _flat(got) == pytest.approx(_flat(expected))
    assert together[3][1]["error"].startswith("image_bytes[1]: not an image in a supported format")
    assert sorted(refused) == sorted(answer["error"] for status, answer in together if status == 400)
    assert counts == [7, 4]


def _flat(value: Any) -> Any:
    """All numbers in it, in order."""
    if isinstance(value, dict):
        value = [value[name] for name in sorted(value)]
    return [number for item in value for number in _flat(item)] if isinstance(value, list) else [value]


def test_deadlines_pass_in_a_group(serving: Callable[..., Any], release: threading.Event, normal_png: bytes) -> None:
    """Those that wait are given up, and counted."""
    with serving(request_timeout_s=0.5) as client:
        answers = [client.send(scores_of(normal_png)) for _ in range(4)]
        for answer in answers:
            assert answer.result(TIMEOUT_S)[0] == 504
        client.wait_for(0)
        late = ':tensorflow:serving:request_count{model_name="images",status="DEADLINE_EXCEEDED"'
        assert client.metric(late) == 4
        release.set()
        wait_until(lambda: client.send(scores_of(normal_png)).result()[0] == 200)


def test_requests_over_the_limit_are_refused_although_they_would_wait_in_a_group(
    serving: Callable[..., Any], release: threading.Event, normal_png: bytes
) -> None:
    """One model's leave room for those of another."""
    with serving(worker_threads=2, max_waiting_requests=4) as client:
        answers = [client.send(scores_of(normal_png)) for _ in range(3)]
        client.wait_for(3)
        status, document = client.send(scores_of(normal_png)).result(TIMEOUT_S)
        assert (status, "too many requests for images" in document["error"]) == (503, True)
        assert client.send({"instances": [2.0]}, "half").result(TIMEOUT_S)[0] == 200
        release.set()
        assert [answer.result(TIMEOUT_S)[0] for answer in answers] == [200] * 3


def test_a_client_that_leaves_takes_no_other_with_it(
    serving: Callable[..., Any], release: threading.Event, normal_png: bytes
) -> None:
    with serving() as client:
        answers = [client.send(scores_of(normal_png)) for _ in range(2)]
        gone = http.client.HTTPConnection(client._address.host, client._address.rest_port, timeout=30)
        gone.request("POST", "/v1/models/images:predict", json.dumps(scores_of(normal_png)))
        client.wait_for(3)
        gone.close()
        answers.append(client.send(scores_of(normal_png)))
        client.wait_for(4)
        release.set()
        assert [answer.result(TIMEOUT_S)[0] for answer in answers] == [200] * 3
        client.wait_for(0)


class Recorded:
    """Requests without a model, which record what happens to them."""

    def __init__(self) -> None:
        self.threads: dict[int, int] = {}
        self.closed: list[int] = []
        self.may_end = threading.Event()

    def steps(self, number: int, *, waits: bool = False) -> Steps[bytes]:
        try:
            yield None
        except GeneratorExit:
            self.closed.append(number)
            raise
        self.threads[number] = threading.get_ident()
        if waits:
            assert self.may_end.wait(TIMEOUT_S)
        return str(number).encode()


def test_requests_that_wait_are_answered_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the size of a group; cancelled ones are not begun, and those that do not join have their own threads."""
    monkeypatch.setattr(groups, "PATIENCE_S", TIMEOUT_S)
    recorded = Recorded()

    async def run() -> list[Any]:
        group = Groups(threads=4, max_requests=8, max_joined=3)
        asks = [asyncio.create_task(group.answer(recorded.steps(0, waits=True), joins="a"))]
        await asyncio.sleep(0)
        asks += [asyncio.create_task(group.answer(recorded.steps(number), joins="a")) for number in range(1, 6)]
        await asyncio.sleep(0)
        asks[2].cancel()
        assert await group.answer(recorded.steps(6), joins=None) == b"6"
        assert await group.answer(recorded.steps(7), joins="b") == b"7"
        assert {*recorded.threads} == {0, 6, 7}
        asks += [asyncio.create_task(group.answer(recorded.steps(number), joins="a")) for number in range(8, 12)]
        await asyncio.sleep(0)
        recorded.may_end.set()
        return await asyncio.gather(*asks, return_exceptions=True)

    answers = asyncio.run(run())
    assert recorded.closed == [2]
    assert [answer for answer in answers if isinstance(answer, bytes)] == [
        b"0",
        b"1",
        b"3",
        b"4",
        b"5",
        b"8",
        b"9",
        b"10",
    ]
    refused = [answer for answer in answers if isinstance(answer, ServingError)]
    assert [error.message.split(";")[0] for error in refused] == ["too many requests are already waiting"]
    for group in ((0, 1, 3), (4, 5, 8)):
        assert len({recorded.threads[number] for number in group}) == 1


def test_a_slow_group_delays_the_next_only_shortly() -> None:
    """A small file may hold many pixels."""
    recorded = Recorded()

    async def run() -> None:
        group = Groups(threads=4, max_requests=8, max_joined=3)
        slow = asyncio.create_task(group.answer(recorded.steps(0, waits=True), joins="a"))
        await asyncio.sleep(0)
        began_s = time.monotonic()
        assert await group.answer(recorded.steps(1), joins="a") == b"1"
        assert time.monotonic() - began_s < TIMEOUT_S / 2
        assert await group.answer(recorded.steps(2), joins="a") == b"2"
        recorded.may_end.set()
        assert await slow == b"0"
        assert await group.answer(recorded.steps(3), joins="a") == b"3"

    asyncio.run(run())
