"""Requests as real clients send them: offers of HTTP/2, large headers, compressed bodies, MIME, KServe's probes."""

import base64
import gzip
import http.client
import json
import socket
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from served_models import MeanImage
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from urls import grpc_url, rest_url

from schema.artifacts import RECORD_FILE
from schema.calibration_record import CalibrationRecord
from serving.client import score_images
from serving.drift import drift_of
from serving.score_log import ScoreCounts
from serving.server.run import ServerAddress, running_server

PATH = "/v1/models/autoencoder:predict"


def body_of(*images: bytes, encode: Any = base64.b64encode) -> bytes:
    return json.dumps({"instances": [{"b64": encode(image).decode()} for image in images]}).encode()


def call(
    address: ServerAddress, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection(address.host, address.rest_port, timeout=30)) as connection:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def exchanged(address: ServerAddress, *parts: bytes) -> bytes:
    """Everything that the server answers to these bytes, sent part by part, until it closes the connection."""
    with socket.create_connection((address.host, address.rest_port), timeout=10) as connection:
        answer = b""
        with suppress(ConnectionError):  # the server does not read what it refuses
            for part in parts:
                connection.sendall(part)
            while received := connection.recv(1 << 16):
                answer += received
        return answer


def request(body: bytes, *headers: str, keep: bool = False) -> bytes:
    lines = [f"POST {PATH} HTTP/1.1", "Host: x", *headers, f"Content-Length: {len(body)}"]
    if not keep and not any(line.lower().startswith("connection:") for line in headers):
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + body


H2C = ("Connection: close, Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")


@pytest.mark.parametrize(
    "offer",
    [H2C, ("connection: close, upgrade", "UPGRADE: x"), ("Connection: close", "Upgrade: h2c")],
)
def test_an_offer_of_http_2_is_answered_by_http_1_1(
    image_server: ServerAddress, normal_png: bytes, offer: tuple[str, ...]
) -> None:
    """Also if it arrives byte by byte, and on a connection that is used again."""
    message = request(body_of(normal_png), *offer)
    head_bytes = message.index(b"\r\n\r\n") + 4
    one_by_one = [message[at : at + 1] for at in range(head_bytes)] + [message[head_bytes:]]
    for parts in ([message], one_by_one, [message[:head_bytes], message[head_bytes:]]):
        answer = exchanged(image_server, *parts)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b'"is_anomaly":0' in answer
    kept = dict(line.replace("close, ", "").split(": ") for line in offer)
    with closing(http.client.HTTPConnection(image_server.host, image_server.rest_port, timeout=30)) as connection:
        for _ in range(2):
            connection.request("POST", PATH, body_of(normal_png), kept)
            response = connection.getresponse()
            assert (response.status, b'"is_anomaly":0' in response.read()) == (200, True)


@pytest.mark.parametrize("header_bytes", [70_000, 200_000])
def test_headers_over_the_limit_are_refused(image_server: ServerAddress, normal_png: bytes, header_bytes: int) -> None:
    """In one packet with the body, and in many; the limit is 64 KiB."""
    body = body_of(normal_png)
    large = request(body, f"X-Filler: {'x' * header_bytes}")
    assert exchanged(image_server, large)[:12] in (b"HTTP/1.1 431", b"")
    pipelined = exchanged(image_server, request(body, keep=True) + large)
    assert pipelined.count(b"200 OK") <= 1
    assert exchanged(image_server, request(body, f"X-Filler: {'x' * 60_000}")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\0\x01\0", b"\0\0\0\0", b"(&\r\n\r\n"])
def test_what_is_not_http_is_refused_immediately(image_server: ServerAddress, garbage: bytes) -> None:
    """Such as the first bytes of TLS; nothing waits for the end of a header."""
    assert exchanged(image_server, garbage).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "encode",
    [base64.encodebytes, lambda data: base64.b64encode(data).replace(b"A", b" A\t").replace(b"B", b"\r\nB")],
)
def test_base64_may_contain_white_space(image_server: ServerAddress, normal_png: bytes, encode: Any) -> None:
    """As MIME and `base64 FILE` write it."""
    status, answer = call(image_server, "POST", PATH, body_of(normal_png, encode=encode))
    assert (status, answer["predictions"][0]["is_anomaly"]) == (200, 0)


def test_gzip_bodies_are_unzipped(image_server: ServerAddress, normal_png: bytes) -> None:
    """Damaged, truncated and expanding ones are refused."""
    zipped, headers = gzip.compress(body_of(normal_png)), {"Content-Encoding": "gzip"}
    assert call(image_server, "POST", PATH, zipped, headers)[0] == 200
    assert call(image_server, "POST", PATH, zipped[:-9], headers) == (400, {"error": "the gzip body is truncated"})
    status, answer = call(image_server, "POST", PATH, b"not gzip", headers)
    assert (status, "not valid gzip" in answer["error"]) == (400, True)
    bomb = gzip.compress(bytes(65 << 20), 9)
    assert call(image_server, "POST", PATH, bomb, headers) == (413, {"error": "Request body is too large"})
    assert call(image_server, "POST", PATH, zipped, {"Content-Encoding": "br"})[0] == 415


def test_kserves_clients_find_the_model(image_server: ServerAddress) -> None:
    """A browser gets the page at the same address."""
    assert call(image_server, "GET", "/", headers={"Accept": "application/json"}) == (200, {"status": "alive"})
    assert call(image_server, "GET", "/v1/models") == (200, {"models": ["autoencoder"]})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("signature", "name", "shape"), [("pixels", "image", (16, 16, 1)), ("decode", "latent", (1,))])
def test_input_that_is_not_finite_is_refused_with_its_place(
    image_server: ServerAddress, value: float, signature: str, name: str, shape: tuple[int, ...]
) -> None:
    """Over both protocols."""
    values = np.zeros((2, *shape), np.float32)
    values[1].flat[-1] = value
    body = json.dumps({"signature_name": signature, "inputs": {name: values.tolist()}}).encode()
    status, answer = call(image_server, "POST", PATH, body)
    place = "".join(f"[{size - 1}]" for size in values.shape)
    assert (status, answer["error"]) == (400, f"input {name}{place}: {value:g} is not a finite number")
    message = predict_pb2.PredictRequest(inputs={name: tf.make_tensor_proto(values)})
    message.model_spec.name, message.model_spec.signature_name = "autoencoder", signature
    with grpc.insecure_channel(grpc_url(image_server).removeprefix("grpc://")) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as raised:
            stub.Predict(message, timeout=30)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details() == answer["error"]


class ScoreAt(MeanImage):
    """With `score_at`, whose threshold falls with the rate."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="image_bytes"),
            tf.TensorSpec([None], tf.float32, name="false_alarm_rate"),
        ]
    )
    def score_at(self, image_bytes: tf.Tensor, false_alarm_rate: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = self.serving_default(image_bytes)
        return {**scores, "is_anomaly": tf.cast(false_alarm_rate > 0.5, tf.int64), "threshold": 0 * scores["score"] - 1}


def test_alarms_at_another_rate_do_not_count_as_drift(tmp_path: Path, settings_for: Any, normal_png: bytes) -> None:
    """Scores are recorded by the model's own threshold; a rate outside (0, 1) is refused."""
    module = ScoreAt()
    signatures = {"serving_default": module.serving_default, "score_at": module.score_at}
    tf.saved_model.save(module, str(tmp_path / "models/7"), signatures=signatures)
    calibration = CalibrationRecord(threshold=0.05, false_alarm_rate=0.01, images=200, scores=(0.0,) * 200)
    (tmp_path / "models/7" / RECORD_FILE).parent.mkdir(exist_ok=True)
    (tmp_path / "models/7" / RECORD_FILE).write_text(json.dumps({"calibration": calibration.to_json()}))
    settings = settings_for(tmp_path / "models", grpc_port=None, record_scores=tmp_path / "scores")
    image = {"b64": base64.b64encode(normal_png).decode()}
    with running_server(settings) as address:
        for rate, expected in ((0.9, 200), (0.999, 200), (0.0, 400), (1.0, 400), (5.0, 400), (-1.0, 400)):
            instances = [{"image_bytes": image, "false_alarm_rate": rate}] * 100
            body = json.dumps({"signature_name": "score_at", "instances": instances}).encode()
            status, answer = call(address, "POST", PATH, body)
            assert status == expected, answer
            if expected == 200:
                assert answer["predictions"][0]["is_anomaly"] == 1
            else:
                assert answer["error"] == f"input false_alarm_rate[0]: {rate:g} is not between 0 and 1"
    [recorded] = (tmp_path / "scores").iterdir()
    counts = ScoreCounts(**json.loads(recorded.read_text()))
    assert (counts.images, counts.above_threshold) == (200, 0)
    assert not drift_of(counts, calibration).should_retrain


def test_damaged_files_are_refused_by_the_client_alike(image_server: ServerAddress) -> None:
    """Before anything is sent."""
    from serving.errors import ServingError, Status

    for server in (rest_url(image_server), grpc_url(image_server)):
        with pytest.raises(ServingError, match=r"image_bytes\[0\]: not an image in a supported format") as raised:
            score_images([b"no image"], server=server)
        assert raised.value.status is Status.INVALID_ARGUMENT
