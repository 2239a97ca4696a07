"""Tokens and TLS, tried with curl, our client and gRPC's own; certificates come from openssl."""

import json
import logging
import re
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc
from waiting import wait_until

from runtime.errors import UsageError
from serving.client import Login, model_status, score_images
from serving.errors import ServingError, Status
from serving.server import access
from serving.server.logs import LOGGER
from serving.server.run import ServerAddress, running_server
from serving.server.settings import ServerSettings

TOKEN, SECOND = "first-token-7f3a", "second-token-91cc"
Settings = Callable[..., ServerSettings]


def _certify(folder: Path, serial: int) -> tuple[Path, Path]:
    """A new self-signed certificate for 127.0.0.1, and its key."""
    certificate, key = folder / "tls.crt", folder / "tls.key"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-set_serial", str(serial)]
    files = ["-keyout", key.with_suffix(".new"), "-out", certificate.with_suffix(".new.crt")]
    new_key = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run([*new_key, "-days", "1", *subject, *files], check=True, capture_output=True)
    key.with_suffix(".new").replace(key)
    certificate.with_suffix(".new.crt").replace(certificate)
    return certificate, key


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "CHECK_INTERVAL_S", 0.05)


@pytest.fixture
def protected(image_model: Path, settings_for: Settings, tmp_path: Path) -> Iterator[tuple[ServerAddress, Path]]:
    """A server with tokens and TLS, and the folder of its files."""
    (tmp_path / "tokens").write_text(TOKEN + "\n")
    certificate, key = _certify(tmp_path, serial=1)
    options = {"token_file": tmp_path / "tokens", "tls_cert": certificate, "tls_key": key}
    with running_server(settings_for(image_model, **options)) as address:
        yield address, tmp_path


def _urls(address: ServerAddress) -> tuple[str, str]:
    return f"https://127.0.0.1:{address.rest_port}", f"grpcs://127.0.0.1:{address.grpc_port}"


def _curl(address: ServerAddress, folder: Path, path: str, *options: str) -> tuple[int, str, str]:
    """(status, headers, body); skips the test where there is no curl."""
    if not shutil.which("curl"):
        pytest.skip("needs curl (Debian's package of that name)")
    url = f"https://127.0.0.1:{address.rest_port}{path}"
    command = ["curl", "--silent", "--include", "--http1.1", "--cacert", str(folder / "tls.crt"), *options, url]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    head, _, body = answer.partition("\n\n")
    return int(head.split()[1]), head.lower(), body


def _with(token: str) -> tuple[str, str]:
    return "--header", f"Authorization: Bearer {token}"


def test_curl_needs_the_token_for_everything_but_the_page_and_the_readiness(
    protected: tuple[ServerAddress, Path],
) -> None:
    address, folder = protected
    for path in ("/v1/models/autoencoder", "/v1/models/autoencoder/metadata", "/monitoring/prometheus/metrics", "/x"):
        status, head, body = _curl(address, folder, path)
        assert (status, "www-authenticate: bearer" in head) == (401, True), path
        assert "a valid bearer token is required" in json.loads(body)["error"]
    for path in ("/v1/models/autoencoder", "/monitoring/prometheus/metrics"):
        assert _curl(address, folder, path, *_with(TOKEN))[0] == 200
    assert _curl(address, folder, "/")[0] == 200
    for path in ("/readyz", "/livez"):
        status, _, body = _curl(address, folder, path)
        assert (status, body) == (200, "")


@pytest.mark.parametrize(
    "header",
    ["Authorization: Bearer wrong", f"Authorization: Basic {TOKEN}", f"Authorization: Bearer {TOKEN}x", "X: y"],
)
def test_curl_with_another_token_is_refused(protected: tuple[ServerAddress, Path], header: str) -> None:
    address, folder = protected
    assert _curl(address, folder, "/v1/models/autoencoder", "--header", header)[0] == 401


def test_our_client_scores_over_both_protocols_with_the_token(
    protected: tuple[ServerAddress, Path], anomalous_png: bytes
) -> None:
    address, folder = protected
    for url in _urls(address):
        [score] = score_images([anomalous_png], server=url, login=Login(TOKEN, folder / "tls.crt"))
        assert score.error == pytest.approx(0.25)
        for wrong in (Login(None, folder / "tls.crt"), Login("wrong", folder / "tls.crt")):
            with pytest.raises(ServingError, match="a valid bearer token is required") as caught:
                score_images([anomalous_png], server=url, login=wrong)
            assert caught.value.status is Status.UNAUTHENTICATED


def test_our_client_does_not_trust_an_unknown_certificate(protected: tuple[ServerAddress, Path]) -> None:
    for url in _urls(protected[0]):
        with pytest.raises(ServingError) as caught:
            model_status(url, login=Login(TOKEN))
        assert caught.value.status is Status.UNAVAILABLE


def test_grpcs_own_client_is_answered_unauthenticated(protected: tuple[ServerAddress, Path]) -> None:
    address, folder = protected
    credentials = grpc.ssl_channel_credentials((folder / "tls.crt").read_bytes())
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "autoencoder"
    with grpc.secure_channel(f"127.0.0.1:{address.grpc_port}", credentials) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetModelStatus(request)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
        answer = stub.GetModelStatus(request, metadata=(("authorization", f"Bearer {TOKEN}"),))
        assert answer.model_version_status[0].version == 7


def test_rotated_tokens_are_picked_up_and_two_can_be_valid(protected: tuple[ServerAddress, Path]) -> None:
    address, folder = protected
    url = _urls(address)[0]

    def accepts(token: str) -> bool:
        try:
            return bool(model_status(url, login=Login(token, folder / "tls.crt")))
        except ServingError as error:
            if error.status is not Status.UNAUTHENTICATED:
                raise
            return False

    assert not accepts(SECOND)
    (folder / "tokens").write_text(f"{TOKEN}\n{SECOND}\n")
    wait_until(lambda: accepts(SECOND), 5)
    assert accepts(TOKEN)
    (folder / "tokens").write_text(f"{SECOND}\n")
    wait_until(lambda: not accepts(TOKEN), 5)
    assert accepts(SECOND)
    (folder / "tokens").write_text("\n")  # a mistake must not lock everybody out, nor let everybody in
    time.sleep(4 * access.CHECK_INTERVAL_S)
    assert _curl(address, folder, "/v1/models/autoencoder", *_with(""))[0] == 401
    assert accepts(SECOND)


def _serial(port: int | None) -> str:
    pem = ssl.get_server_certificate(("127.0.0.1", port or 0))
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-serial"], input=pem, check=True, capture_output=True, text=True
    )
    return shown.stdout.strip()


def test_a_rotated_certificate_is_used_by_both_protocols(protected: tuple[ServerAddress, Path]) -> None:
    address, folder = protected
    ports = (address.rest_port, address.grpc_port)
    assert {_serial(port) for port in ports} == {"serial=01"}
    _certify(folder, serial=2)
    for port in ports:
        wait_until(lambda port=port: _serial(port) == "serial=02", 5)  # type: ignore[misc]


def test_no_connection_fails_while_certificates_are_rotated(protected: tuple[ServerAddress, Path]) -> None:
    address, folder = protected
    rotated, failed = threading.Event(), []

    def connect(port: int | None) -> None:
        while not rotated.is_set():
            try:
                ssl.get_server_certificate(("127.0.0.1", port or 0))
            except OSError as error:
                failed.append(error)

    ports = (address.rest_port, address.grpc_port)
    clients = [threading.Thread(target=connect, args=[port]) for port in ports]
    for client in clients:
        client.start()
    for serial in range(2, 22):
        _certify(folder, serial)
    for port in ports:
        wait_until(lambda port=port: _serial(port) == "serial=15", 5)
    rotated.set()
    for client in clients:
        client.join()
    assert not failed


def test_tokens_are_never_logged(
    protected: tuple[ServerAddress, Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = protected
    monkeypatch.setattr(LOGGER, "propagate", True)
    with caplog.at_level(logging.DEBUG):
        _curl(address, folder, "/v1/models/autoencoder", *_with(TOKEN))
        _curl(address, folder, "/v1/models/autoencoder", *_with("guessed-token"))
        (folder / "tokens").write_text(f"{TOKEN}\n{SECOND}\n")
        wait_until(lambda: _curl(address, folder, "/v1/models/autoencoder", *_with(SECOND))[0] == 200, 5)
    logged = " ".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "tokens_reloaded" in logged
    assert not re.search(f"{TOKEN}|{SECOND}|guessed-token", logged)
    assert TOKEN not in repr(Login(TOKEN))


def test_every_token_is_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokens").write_text(f"{TOKEN}\n{SECOND}\n")
    tokens = access.Tokens(tmp_path / "tokens")
    compared: list[bytes] = []
    real = access.hmac.compare_digest

    def record(given: Any, token: Any) -> bool:
        compared.append(token)
        return real(given, token)

    monkeypatch.setattr(access.hmac, "compare_digest", record)
    tokens.check(f"Bearer {TOKEN}")
    assert compared == [TOKEN.encode(), SECOND.encode()]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"token_file": "missing"}, "--token-file .*missing: cannot be read: No such file"),
        ({"token_file": "empty"}, "--token-file .*empty: is empty; write one token per line"),
        ({"tls_cert": "tls.crt", "tls_key": "empty"}, "--tls-cert .*tls.crt, --tls-key .*empty: cannot be used"),
        ({"tls_cert": "tls.crt"}, "--tls-cert and --tls-key belong together"),
    ],
)
def test_unusable_files_are_reported_before_the_server_listens(
    image_model: Path, settings_for: Settings, tmp_path: Path, options: dict[str, str], reason: str
) -> None:
    (tmp_path / "empty").write_text("\n")
    _certify(tmp_path, serial=1)
    paths = {name: tmp_path / file for name, file in options.items()}
    with pytest.raises(UsageError, match=reason), running_server(settings_for(image_model, **paths)):
        pass
