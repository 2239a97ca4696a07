"""The Python client returns the same results over REST and gRPC, and raises the same errors."""

import base64
import contextlib
import http.client
import io
import json
import os
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from urls import grpc_url, rest_url
from waiting import wait_until

from runtime.errors import UsageError
from schema.artifacts import RECORD_FILE
from schema.usual_sizes import UsualSizes
from serving.client import Login, Score, VersionStatus, model_status, score_images, wait_until_ready
from serving.errors import ServingError, Status
from serving.server.run import ServerAddress, running_server
from serving.server.settings import ListenError, ServerSettings


@pytest.fixture(params=["rest", "grpc"])
def server(request: pytest.FixtureRequest, image_server: ServerAddress) -> str:
    """The address of the same server for each protocol."""
    return rest_url(image_server) if request.param == "rest" else grpc_url(image_server)


def test_bytes_and_paths_are_scored_in_order(
    server: str, normal_png: bytes, anomalous_png: bytes, tmp_path: Path
) -> None:
    """One Score per image."""
    (tmp_path / "a.png").write_bytes(anomalous_png)
    normal, anomalous = score_images([normal_png, tmp_path / "a.png"], server=server)
    # From Python 3.13 on, scores with a p-value of NaN are not equal.
    assert replace(anomalous, p_value=0.0) == Score(0.25, 0.25, pytest.approx(0.05), True, 0.0)
    assert (normal.error, normal.is_anomaly) == (pytest.approx(0, abs=1e-9), False)
    assert score_images([], server=server) == []


def _stored_as(kind: str, image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_score_does_not_depend_on_how_the_image_is_stored(server: str, image_server: ServerAddress) -> None:
    """Each shows half black, half white: error 0.25. One is all black below its transparency."""
    halves = Image.new("RGB", (16, 16), "white")
    halves.paste("black", (0, 0, 8, 16))
    alpha = halves.convert("L").point(lambda value: 255 - value)
    transparent = _stored_as("PNG", Image.merge("LA", [Image.new("L", (16, 16)), alpha]))
    others = [_stored_as(kind, halves) for kind in ("TIFF", "WEBP", "GIF")]
    printed = _stored_as("JPEG", halves.convert("CMYK"))
    images = [transparent, *others, printed]
    assert [score.error for score in score_images(images, server=server)] == [pytest.approx(0.25, abs=0.01)] * 5
    encoded = [{"b64": base64.b64encode(image).decode()} for image in images]
    with urllib.request.urlopen(  # without the Python client
        f"{rest_url(image_server)}/v1/models/autoencoder:predict", json.dumps({"instances": encoded}).encode()
    ) as response:
        predictions = json.load(response)["predictions"]
    assert [each["error"] for each in predictions] == [pytest.approx(0.25, abs=0.01)] * 5


def test_maps_are_returned_on_request(server: str, anomalous_png: bytes) -> None:
    """The error is 0.25 everywhere, and the pixel threshold 0.2; the image is larger than the map."""
    large = _stored_as("PNG", Image.open(io.BytesIO(anomalous_png)).resize((64, 32), Image.Resampling.NEAREST))
    for image, (width, height) in ((anomalous_png, (16, 16)), (large, (64, 32))):
        (score,) = score_images([image], server=server, with_maps=True)
        assert score.anomaly_map == pytest.approx(np.full((16, 16), 1.25), rel=1e-3)
        [region] = score.regions
        assert (region.left, region.top, region.right, region.bottom) == (0, 0, width, height)
        assert (region.area_px, region.area_percent) == (width * height, 100)
        assert (region.peak, region.mean) == pytest.approx((1.25, 1.25), rel=1e-3)
    (score,) = score_images([anomalous_png], server=server)
    assert score.regions is None


def test_status_of_a_served_model(server: str) -> None:
    """Version 7 is available, without an error."""
    assert model_status(server) == [VersionStatus(7, "AVAILABLE", "")]
    assert wait_until_ready(server) == VersionStatus(7, "AVAILABLE", "")


def test_refusals_carry_status_and_message(server: str, normal_png: bytes) -> None:
    """The same status over either protocol."""
    with pytest.raises(ServingError, match=r"image_bytes\[1\]: not an image") as refusal:
        score_images([normal_png, b"?"], server=server)
    assert refusal.value.status is Status.INVALID_ARGUMENT
    with pytest.raises(ServingError, match="missing") as refusal:
        model_status(server, model_name="missing")
    assert refusal.value.status is Status.NOT_FOUND


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_unreachable_server_is_unavailable(scheme: str, normal_png: bytes) -> None:
    """Nothing listens on the port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ServingError) as refusal:
        score_images([normal_png], server=f"{scheme}://127.0.0.1:{port}")
    assert refusal.value.status is Status.UNAVAILABLE
    with pytest.raises(ServingError, match="not ready after 0.3 s") as refusal:
        wait_until_ready(f"{scheme}://127.0.0.1:{port}", timeout_s=0.3)
    assert refusal.value.status is Status.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    "server",
    [
        "127.0.0.1:8501", "ftp://host", "http://", "http://host:bad", "http://host:99999", "http://host:-1",
        "http://host:0", "grpc://host:bad", "http://[::1", "http://ho st:80", "http://a..b:80", "http://host:80/a b",
    ],
)  # fmt: skip
def test_a_malformed_address_is_refused(server: str, normal_png: bytes) -> None:
    """The error shows the expected form."""
    with pytest.raises(UsageError, match="http://host:port") as refusal:
        score_images([normal_png], server=server)
    assert server in str(refusal.value)


@pytest.mark.parametrize("token", ["two words", "line\n", "gehe\u00edm", ""])
def test_a_token_that_no_header_can_hold_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(UsageError, match="printable ASCII") as refusal:
        Login(token)
    assert not token or token not in str(refusal.value)


@pytest.mark.parametrize("content", ["", "no certificate"])
@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_a_file_without_certificates_is_refused(scheme: str, content: str, normal_png: bytes, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(content)
    with pytest.raises(UsageError, match="no PEM file with certificates"):
        score_images([normal_png], server=f"{scheme}://127.0.0.1:1", login=Login(ca_file=tmp_path / "ca.pem"))


def _begin_post(address: ServerAddress, size_bytes: int) -> socket.socket:
    """A connection whose request has begun: the server has read its headers and waits for a body of this size."""
    connection = socket.create_connection((address.host, address.rest_port or 0), timeout=20)
    head = f"Host: x\r\nContent-Length: {size_bytes}\r\nExpect: 100-continue\r\n\r\n"
    connection.sendall(b"POST /v1/models/autoencoder:predict HTTP/1.1\r\n" + head.encode())
    assert connection.recv(100).startswith(b"HTTP/1.1 100")
    return connection


def _refuses_connections(address: ServerAddress) -> bool:
    try:
        socket.create_connection((address.host, address.rest_port or 0), timeout=20).close()
    except ConnectionRefusedError:
        return True
    return False


def test_stop_finishes_running_requests(
    image_model: Path, settings_for: Callable[..., ServerSettings], normal_png: bytes
) -> None:
    """A request whose body is half sent when the server stops is answered; a later one is not."""
    encoded = base64.b64encode(normal_png).decode()
    body = json.dumps({"instances": [{"b64": encoded}]}).encode()
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(running_server(settings_for(image_model, stop_grace_s=20)))
        with _begin_post(address, len(body)) as connection:
            connection.sendall(body[:50])
            stopping = threading.Thread(target=stack.pop_all().close)
            stopping.start()
            wait_until(lambda: _refuses_connections(address))
            time.sleep(0.5)  # a server that did not wait would be gone
            connection.sendall(body[50:])
            with connection.makefile("rb") as answer:
                assert answer.readline().startswith(b"HTTP/1.1 200")
        stopping.join()
    for url in (rest_url(address), grpc_url(address)):
        with pytest.raises(ServingError):
            model_status(url)


def test_port_in_use_is_an_error(
    image_server: ServerAddress, image_model: Path, settings_for: Callable[..., ServerSettings]
) -> None:
    """Two servers never share a port."""
    for taken in ({"rest_port": image_server.rest_port}, {"grpc_port": image_server.grpc_port}):
        with (
            pytest.raises(ListenError, match="cannot listen on 127.0.0.1"),
            running_server(settings_for(image_model, **taken)),
        ):
            pass


def test_silent_connection_is_closed(image_model: Path, settings_for: Callable[..., ServerSettings]) -> None:
    """A client that never finishes its headers does not keep its connection."""
    with (
        running_server(settings_for(image_model, grpc_port=None, header_timeout_s=0.3)) as address,
        socket.create_connection((address.host, address.rest_port or 0), timeout=10) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        assert connection.recv(100) == b""


def test_missing_body_is_a_504(image_model: Path, settings_for: Callable[..., ServerSettings]) -> None:
    """A slow client gets an answer when the request's time limit has passed."""
    with (
        running_server(settings_for(image_model, grpc_port=None, request_timeout_s=0.3)) as address,
        socket.create_connection((address.host, address.rest_port or 0), timeout=20) as connection,
    ):
        connection.sendall(b"POST /v1/models/autoencoder:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        assert connection.recv(12) == b"HTTP/1.1 504"


def test_bodies_together_are_limited(
    image_model: Path, settings_for: Callable[..., ServerSettings], normal_png: bytes
) -> None:
    """503 while another client's half-sent body fills the budget, then 200."""

    def status() -> Status | None:
        try:
            score_images([normal_png], server=rest_url(address))
        except ServingError as error:
            assert "fill the server's memory" in str(error)  # noqa: PT017 (may also succeed)
            return error.status
        return None

    with running_server(settings_for(image_model, grpc_port=None, max_pending_bytes=1000)) as address:
        with _begin_post(address, 999) as connection:
            connection.sendall(b" " * 900)
            wait_until(lambda: status() is Status.UNAVAILABLE)
        wait_until(lambda: status() is None)


def test_connections_have_no_nagle_delay(image_server: ServerAddress) -> None:
    """TCP_NODELAY is set on the server's side; otherwise small answers on kept connections would wait for 40 ms."""
    connection = http.client.HTTPConnection(image_server.host, image_server.rest_port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/v1/models/autoencoder")
        connection.getresponse().read()
        with _accepted_from(connection.sock.getsockname()) as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def _accepted_from(client: object) -> socket.socket:
    """A duplicate of the connection that a server in this process has accepted from the address `client`."""
    for entry in Path("/proc/self/fd").iterdir():
        if entry.is_socket():
            found = socket.socket(fileno=os.dup(int(entry.name)))
            with contextlib.suppress(OSError):  # those that are not connected have no peer
                if found.getpeername() == client:
                    return found
            found.close()
    raise AssertionError(f"no connection from {client}")


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_file_of_several_pages_is_refused_if_each_is_an_image_to_the_model(
    image_model: Path, settings_for: Callable[..., ServerSettings], tmp_path: Path, protocol: str
) -> None:
    """A model of first pages scores the first, which differs from the second."""
    pages = [Image.fromarray(np.tile(np.array([0, 80], np.uint8), (16, 8))), Image.new("L", (16, 16))]
    stack = _stored_as("TIFF", pages[0], save_all=True, append_images=pages[1:])
    for page in ("first", "all"):
        base = shutil.copytree(image_model, tmp_path / page)
        (base / "7" / RECORD_FILE).write_text(json.dumps({"image": {"page": page}}))
        with running_server(settings_for(base)) as address:
            server = rest_url(address) if protocol == "rest" else grpc_url(address)
            if page == "first":
                [score] = score_images([stack], server=server)
                assert score.error == pytest.approx((40 / 255) ** 2, rel=1e-3)
            else:
                with pytest.raises(ServingError, match="the file has 2 pages.*send them one by one"):
                    score_images([stack], server=server)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_the_answer_warns_of_a_size_unlike_that_of_any_training_image(
    image_model: Path, settings_for: Callable[..., ServerSettings], tmp_path: Path, protocol: str, normal_png: bytes
) -> None:
    """Each image of a request has its own."""
    base = shutil.copytree(image_model, tmp_path / "model")
    usual = UsualSizes.of([(16, 16), (20, 20)])
    (base / "7" / RECORD_FILE).write_text(json.dumps({"sizes": asdict(usual)}))
    wide = _stored_as("PNG", Image.new("L", (40, 16), 128))
    turned = Image.Exif()
    turned[0x0112] = 6  # EXIF's orientation: a viewer turns it by 90 degrees
    high = _stored_as("JPEG", Image.new("L", (40, 16), 128), exif=turned)
    with running_server(settings_for(base)) as address:
        server = rest_url(address) if protocol == "rest" else grpc_url(address)
        for with_maps in (False, True):
            scores = score_images([normal_png, wide, high], server=server, with_maps=with_maps)
            assert [score.warning for score in scores] == ["", usual.warning(16, 40), usual.warning(40, 16)]
    assert "a ratio of 2.5" in usual.warning(16, 40)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_the_answer_warns_of_a_missing_region_of_few_bits_and_of_ignored_pages(
    image_model: Path, settings_for: Callable[..., ServerSettings], tmp_path: Path, protocol: str
) -> None:
    """The client, which converts most files, keeps what the server needs to know."""
    base = shutil.copytree(image_model, tmp_path / "model")
    counts = {"train": 5, "eval": 0, "test": 0, "with_region": 5}
    (base / "7" / RECORD_FILE).write_text(json.dumps({"images": counts, "image": {"alpha": "roi"}}))
    grey = Image.new("L", (16, 16), 128)
    partly = grey.copy()
    partly.putalpha(Image.linear_gradient("L").resize((16, 16)).point(lambda level: 255 * (level > 100)))
    few = Image.fromarray(np.full((16, 16), 4000, np.uint16))
    files = [
        _stored_as("WEBP", partly),
        _stored_as("TIFF", few),
        _stored_as("TIFF", partly, save_all=True, append_images=[partly]),
    ]
    with running_server(settings_for(base)) as address:
        server = rest_url(address) if protocol == "rest" else grpc_url(address)
        own, wide, stack = (score.warning for score in score_images(files, server=server))
    assert own == ""
    assert wide.startswith("the image has no transparent pixels, but each training image had a region of interest")
    assert "; the file of 16 bits uses only 12 of them, of which image.depth 8 keeps 16 grey levels" in wide
    assert stack.startswith("the file has 2 pages, and only the first was scored")


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_model_of_16_bits_sees_all_of_them(
    image_model: Path, settings_for: Callable[..., ServerSettings], tmp_path: Path, protocol: str
) -> None:
    """The error of this model is the variance of an image, which these files have in their lower byte only."""
    levels = np.tile(np.array([30_000, 30_080], np.uint16), (16, 8))
    files = [_stored_as(kind, Image.fromarray(levels)) for kind in ("PNG", "TIFF")]
    for depth in (8, 16):
        base = shutil.copytree(image_model, tmp_path / str(depth))
        record = {"image": {"depth": depth}}
        (base / "7" / RECORD_FILE).write_text(json.dumps(record))
        with running_server(settings_for(base)) as address:
            server = rest_url(address) if protocol == "rest" else grpc_url(address)
            errors = [score.error for score in score_images(files, server=server)]
        expected = np.var(levels / 65535) if depth == 16 else 0.0
        assert errors == pytest.approx([expected] * 2, rel=1e-3, abs=1e-12)
