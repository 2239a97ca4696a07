"""The Python client says the same by REST and by gRPC, and fails with one kind of error."""

import base64
import contextlib
import http.client
import io
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.client import Score, VersionStatus, model_status, score_images, wait_until_ready
from serving.errors import ServingError, Status
from serving.server.run import ServerAddress, running_server
from serving.server.settings import ServerSettings


@pytest.fixture(params=["rest", "grpc"])
def server(request: pytest.FixtureRequest, image_server: ServerAddress) -> str:
    """The address of the same server in either protocol."""
    return image_server.rest_url if request.param == "rest" else image_server.grpc_url


def test_bytes_and_paths_are_scored_in_order(
    server: str, normal_png: bytes, anomalous_png: bytes, tmp_path: Path
) -> None:
    """One Score an image."""
    (tmp_path / "a.png").write_bytes(anomalous_png)
    normal, anomalous = score_images([normal_png, tmp_path / "a.png"], server=server)
    assert anomalous == Score(0.25, 0.25, pytest.approx(0.05), True)
    assert (normal.error, normal.is_anomaly) == (pytest.approx(0, abs=1e-9), False)
    assert score_images([], server=server) == []


def _stored_as(kind: str, image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_what_an_image_shows_is_scored_however_it_is_stored(server: str, image_server: ServerAddress) -> None:
    """Half black, half white to a viewer: an error of a quarter. What lies below one's transparency is all black."""
    halves = Image.new("RGB", (16, 16), "white")
    halves.paste("black", (0, 0, 8, 16))
    alpha = halves.convert("L").point(lambda value: 255 - value)
    see_through = _stored_as("PNG", Image.merge("LA", [Image.new("L", (16, 16)), alpha]))
    others = [_stored_as(kind, halves) for kind in ("TIFF", "WEBP", "GIF")]
    printed = _stored_as("JPEG", halves.convert("CMYK"))
    images = [see_through, *others, printed]
    assert [score.error for score in score_images(images, server=server)] == [pytest.approx(0.25, abs=0.01)] * 5
    encoded = [{"b64": base64.b64encode(image).decode()} for image in images]
    with urllib.request.urlopen(  # as from a browser or by curl, without our client
        f"{image_server.rest_url}/v1/models/autoencoder:predict", json.dumps({"instances": encoded}).encode()
    ) as response:
        predictions = json.load(response)["predictions"]
    assert [each["error"] for each in predictions] == [pytest.approx(0.25, abs=0.01)] * 5


def test_maps_come_when_asked_for(server: str, anomalous_png: bytes) -> None:
    """The reconstruction is the mean, the error a quarter everywhere."""
    (score,) = score_images([anomalous_png], server=server, with_maps=True)
    assert np.array_equal(score.reconstruction, np.full((16, 16, 1), 0.5))
    assert np.array_equal(score.error_map, np.full((16, 16), 0.25))


def test_status_of_a_served_model(server: str) -> None:
    """Version 7, without an error."""
    assert model_status(server) == [VersionStatus(7, "AVAILABLE", "")]
    assert wait_until_ready(server) == VersionStatus(7, "AVAILABLE", "")


def test_refusals_carry_status_and_message(server: str, normal_png: bytes) -> None:
    """The same status by either protocol."""
    with pytest.raises(ServingError, match=r"image_bytes\[1\]: not an image") as refusal:
        score_images([normal_png, b"?"], server=server)
    assert refusal.value.status is Status.INVALID_ARGUMENT
    with pytest.raises(ServingError, match="missing") as refusal:
        model_status(server, model_name="missing")
    assert refusal.value.status is Status.NOT_FOUND


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nobody_there_is_unavailable(scheme: str, normal_png: bytes) -> None:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ServingError) as refusal:
        score_images([normal_png], server=f"{scheme}://127.0.0.1:{port}")
    assert refusal.value.status is Status.UNAVAILABLE
    with pytest.raises(ServingError, match="not ready after 0.3 s") as refusal:
        wait_until_ready(f"{scheme}://127.0.0.1:{port}", timeout_s=0.3)
    assert refusal.value.status is Status.DEADLINE_EXCEEDED


@pytest.mark.parametrize("server", ["127.0.0.1:8501", "ftp://host", "http://"])
def test_address_without_a_known_scheme_is_refused(server: str, normal_png: bytes) -> None:
    """The error quotes it and says what one looks like."""
    with pytest.raises(ValueError, match="http://host:port"):
        score_images([normal_png], server=server)


def test_stop_finishes_requests_that_are_under_way(
    image_model: Path, settings_for: Callable[..., ServerSettings], normal_png: bytes
) -> None:
    """A request whose body is half sent when the server is told to stop is answered; a later one is not."""
    encoded = base64.b64encode(normal_png).decode()
    body = json.dumps({"instances": [{"b64": encoded}]}).encode()
    head = f"POST /v1/models/autoencoder:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(running_server(settings_for(image_model)))
        connection = socket.create_connection((address.host, address.rest_port or 0), timeout=20)
        connection.sendall(head.encode() + body[:50])
        time.sleep(0.3)  # the server has read what there is
        stopping = threading.Thread(target=stack.pop_all().close)
        stopping.start()
        time.sleep(0.3)  # and has been told to stop
        connection.sendall(body[50:])
        with connection, connection.makefile("rb") as answer:
            assert answer.readline().startswith(b"HTTP/1.1 200")
        stopping.join()
    for url in (address.rest_url, address.grpc_url):
        with pytest.raises(ServingError):
            model_status(url)


def test_port_in_use_is_an_error(
    image_server: ServerAddress, image_model: Path, settings_for: Callable[..., ServerSettings]
) -> None:
    """Two servers never share a port in silence."""
    for taken in ({"rest_port": image_server.rest_port}, {"grpc_port": image_server.grpc_port}):
        with (
            pytest.raises(OSError, match="cannot listen on 127.0.0.1"),
            running_server(settings_for(image_model, **taken)),
        ):
            pass


def test_silent_connection_is_closed(
    image_model: Path, settings_for: Callable[..., ServerSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that never finishes its headers does not keep its connection."""
    from serving.server.http_protocol import ImpatientProtocol

    monkeypatch.setattr(ImpatientProtocol, "header_timeout_s", 0.3)
    with (
        running_server(settings_for(image_model, grpc_port=None)) as address,
        socket.create_connection((address.host, address.rest_port or 0), timeout=10) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        assert connection.recv(100) == b""


def test_body_that_does_not_come_is_a_504(image_model: Path, settings_for: Callable[..., ServerSettings]) -> None:
    """A slow sender is answered after the time that a request may take."""
    with (
        running_server(settings_for(image_model, grpc_port=None, request_timeout_s=0.3)) as address,
        socket.create_connection((address.host, address.rest_port or 0), timeout=20) as connection,
    ):
        connection.sendall(b"POST /v1/models/autoencoder:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        assert connection.recv(12) == b"HTTP/1.1 504"


def test_bodies_together_are_limited(
    image_model: Path, settings_for: Callable[..., ServerSettings], normal_png: bytes
) -> None:
    """While others' half-sent bodies fill the budget, a request is refused with 503; then it is served."""
    half_sent = b"POST /v1/models/autoencoder:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n" + b" " * 900
    with running_server(settings_for(image_model, grpc_port=None, max_pending_bytes=1000)) as address:
        with socket.create_connection((address.host, address.rest_port or 0), timeout=20) as connection:
            connection.sendall(half_sent)
            time.sleep(0.3)  # the server has read it
            with pytest.raises(ServingError, match="fill the server's memory") as refusal:
                score_images([normal_png], server=address.rest_url)
        assert refusal.value.status is Status.UNAVAILABLE
        time.sleep(0.3)  # and has noticed that the sender is gone
        assert len(score_images([normal_png], server=address.rest_url)) == 1


def test_small_answers_are_sent_at_once(image_server: ServerAddress) -> None:
    """An answer on a kept connection does not wait 40 ms for an acknowledgement (Nagle's algorithm)."""
    times_s = []
    connection = http.client.HTTPConnection(image_server.host, image_server.rest_port, timeout=20)
    with contextlib.closing(connection):
        for _ in range(15):
            started = time.perf_counter()
            connection.request("GET", "/v1/models/autoencoder")
            connection.getresponse().read()
            times_s.append(time.perf_counter() - started)
    assert sorted(times_s)[7] < 0.03
