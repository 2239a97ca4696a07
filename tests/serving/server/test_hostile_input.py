"""Malformed requests are refused as client errors, and the next request is served."""

import base64
import http.client
import io
import json
import socket
import struct
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow_serving.apis import predict_pb2
from urls import grpc_url, rest_url
from waiting import wait_until

from serving.client import score_images
from serving.server.rest import LIVE_PATH
from serving.server.run import ServerAddress

PREDICT = "/v1/models/autoencoder:predict"
GRPC_PREDICT = "/tensorflow.serving.PredictionService/Predict"
CLIENT_ERRORS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
quietly = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@pytest.fixture(autouse=True)
def still_serving(image_server: ServerAddress, normal_png: bytes) -> Iterator[None]:
    """After every test the server still answers over both protocols."""
    yield
    for server in (rest_url(image_server), grpc_url(image_server)):
        assert score_images([normal_png], server=server)[0].is_anomaly is False


def _post(address: ServerAddress, body: bytes, path: str = PREDICT) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address.host, address.rest_port, timeout=30)
    try:
        connection.request("POST", path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _assert_answered_or_refused(status: int, text: bytes) -> None:
    assert status in (200, 400), text
    assert status == 200 or set(json.loads(text)) == {"error"}


def _grpc_code(address: ServerAddress, message: bytes) -> grpc.StatusCode:
    with grpc.insecure_channel(grpc_url(address).removeprefix("grpc://")) as channel:
        try:
            channel.unary_unary(GRPC_PREDICT)(message, timeout=30)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([{"b64": "AAAA"}, {"b64": "!"}, {"image_bytes": {"b64": ""}}, 10**400]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["b64", "image_bytes", "image", "latent", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "signature_name": st.sampled_from(["serving_default", "pixels", "decode", "", "\u0000"]) | json_values,
        "instances": json_values,
        "inputs": json_values,
    },
)


@quietly
@given(document=requests | json_values)
def test_any_json_is_answered_or_refused(image_server: ServerAddress, document: Any) -> None:
    """200, or 400 with a JSON error."""
    _assert_answered_or_refused(*_post(image_server, json.dumps(document).encode()))


@quietly
@given(body=st.binary(max_size=200))
def test_any_bytes_are_refused(image_server: ServerAddress, body: bytes) -> None:
    """400 with a JSON error: no request that this model answers is as short as that."""
    status, text = _post(image_server, body)
    assert status == 400, text
    assert set(json.loads(text)) == {"error"}


DEEP = b"[" * 1000 + b"]" * 1000
"""The parser's maximum depth, which exceeds that of Python's encoder."""


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances":' + b"[" * 200_000,
        b'{"instances":' + b"[" * 500 + b"]" * 500 + b"}",
        DEEP,
        b'{"instances": [], "signature_name":' + DEEP + b"}",
        b'{"instances": [{"x":' + DEEP + b"}]}",
        b'{"signature_name": "pixels", "inputs": {"image": [{"x": 1, "y":' + DEEP + b"}]}}",
        b'{"inputs": {"image": ' + b"[" * 40 + b"1" + b"]" * 40 + b'}, "signature_name": "pixels"}',
        b'{"instances": [' + b"9" * 10_000 + b"]}",
        b'{"signature_name": "pixels", "instances": [1e999]}',
        b'{"signature_name": "decode", "instances": [[-1e308]]}',
        b'{"instances": ["\\ud800"]}',
        b'{"signature_name": "\\ud800", "instances": []}',
        b"\xff\xfe{\x00}\x00",
    ],
    ids=[
        "unclosed",
        "deep",
        "deeper",
        "deep name",
        "deep element",
        "deep value",
        "rank 40",
        "digits",
        "huge",
        "lossy",
        "surrogate",
        "surrogate as a name",
        "utf-16",
    ],
)
def test_known_attacks_on_parsers_are_refused(image_server: ServerAddress, body: bytes) -> None:
    """Depth, size and encodings."""
    status, text = _post(image_server, body)
    assert status == 400
    assert set(json.loads(text)) == {"error"}


def _encoded(form: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(out, format=form)
    return out.getvalue()


SEEDS = {form: _encoded(form) for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")}


@quietly
@given(
    form=st.sampled_from(sorted(SEEDS)),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    kept=st.floats(0, 1),
)
def test_any_damaged_image_is_scored_or_refused(
    image_server: ServerAddress, form: str, damage: list[tuple[float, int]], kept: float
) -> None:
    """Bytes changed or cut off anywhere: 200, or 400 that names the image."""
    data = bytearray(SEEDS[form])
    for place, value in damage:
        data[int(place * len(data))] = value
    data = data[: round(len(data) * (kept if kept < 0.9 else 1))]
    body = {"instances": [{"b64": base64.b64encode(data).decode()}]}
    status, text = _post(image_server, json.dumps(body).encode())
    _assert_answered_or_refused(status, text)
    assert status == 200 or json.loads(text)["error"].startswith("image_bytes[0]: ")


def _png_declaring(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (60_000, 60_000), (2**31 - 1, 1), (0, 0)])
def test_decompression_bombs_are_refused_before_decoding(image_server: ServerAddress, size: tuple[int, int]) -> None:
    """A header without pixels."""
    body = {"instances": [{"b64": base64.b64encode(_png_declaring(*size)).decode()}]}
    status, text = _post(image_server, json.dumps(body).encode())
    assert status == 400
    assert json.loads(text)["error"].startswith("image_bytes[0]: ")


@quietly
@given(message=st.binary(max_size=200))
def test_any_grpc_message_is_refused(image_server: ServerAddress, message: bytes) -> None:
    """Not protobuf, or a message that names nothing the server has."""
    assert _grpc_code(image_server, message) in CLIENT_ERRORS


tensors = st.builds(
    lambda dtype, dims, unknown, content, fields: tensor_pb2.TensorProto(
        dtype=dtype,
        tensor_shape=tensor_shape_pb2.TensorShapeProto(
            dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in dims], unknown_rank=unknown
        ),
        tensor_content=content,
        **fields,
    ),
    st.integers(0, 30),
    st.lists(st.sampled_from([-1, 0, 1, 2, 16, 2**31, 2**62]), max_size=5),
    st.booleans(),
    st.binary(max_size=16),
    st.fixed_dictionaries(
        {},
        optional={
            "float_val": st.lists(st.floats(width=32), max_size=3),
            "string_val": st.lists(st.binary(max_size=9), max_size=3),
            "int_val": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
            "half_val": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
        },
    ),
)


@quietly
@given(
    name=st.sampled_from(["image_bytes", "image", "latent", ""]),
    tensor=tensors,
    signature=st.sampled_from(["", "pixels", "decode", "?"]),
)
def test_any_tensor_is_answered_or_refused(image_server: ServerAddress, name: str, tensor: Any, signature: str) -> None:
    """False shapes, invalid dtypes, too few or too many values."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "autoencoder", signature
    request.inputs[name].CopyFrom(tensor)
    assert _grpc_code(image_server, request.SerializeToString()) in {grpc.StatusCode.OK, *CLIENT_ERRORS}


def test_tensor_that_declares_terabytes_is_refused(image_server: ServerAddress) -> None:
    """A small message can declare one value repeated 2^40 times."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "autoencoder", "decode"
    request.inputs["latent"].dtype = tf.float32.as_datatype_enum
    request.inputs["latent"].float_val.append(1.0)
    request.inputs["latent"].tensor_shape.dim.add(size=2**40)
    assert _grpc_code(image_server, request.SerializeToString()) is grpc.StatusCode.INVALID_ARGUMENT


def test_message_over_the_limit_is_resource_exhausted(image_server: ServerAddress) -> None:
    """65 MiB."""
    assert _grpc_code(image_server, bytes(65 * 2**20)) is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/../../etc/passwd",
        "/v1/models/%2e%2e%2fetc%2fpasswd:predict",
        "/v1/models/autoencoder/versions/99999999999999999999999999:predict",
        "/v1/models/autoencoder/versions/-1:predict",
        "/v1/models/autoencoder/labels/stable:predict",
        "/v1/models/a%00b:predict",
        "/v1/models/" + "a" * 5000 + ":predict",
        "/../../etc/passwd",
        "//etc/passwd",
    ],
)
def test_path_traversal_is_a_client_error(image_server: ServerAddress, path: str) -> None:
    """Names are looked up in a table, never on disk."""
    status, text = _post(image_server, b'{"instances": []}', path)
    assert status in (400, 404)
    assert "root:" not in text.decode()


def _open_files() -> int:
    """Of this process, in which the server runs."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_dropped_connections_are_released(image_server: ServerAddress) -> None:
    """Three hundred per port, some dropped in the middle of a request or after garbage: no file stays open."""
    starts = [
        b"",
        b"GET",
        b"POST /v1/models/autoencoder:predict HTTP/1.1\r\nContent-Length: 100\r\n\r\n{",
        b"\x16\x03\x01\x00",
    ]

    def drop(times: int) -> None:
        for number in range(times):
            for port in (image_server.rest_port, image_server.grpc_port):
                with socket.create_connection((image_server.host, port or 0), timeout=10) as connection:
                    connection.sendall(starts[number % len(starts)])

    # What the server opens once and keeps; an answer shows that its threads have started, however busy the machine is.
    with urllib.request.urlopen(f"http://{image_server.host}:{image_server.rest_port}{LIVE_PATH}", timeout=60):
        drop(4)
    open_files = _open_files()
    drop(300)
    wait_until(lambda: _open_files() <= open_files)


def test_refusal_is_logged_without_a_traceback(image_server: ServerAddress, caplog: pytest.LogCaptureFixture) -> None:
    """As one event."""
    with caplog.at_level("INFO", logger="serving"):
        _post(image_server, b'{"inputs": {"image_bytes": [{"b64": "AAAA"}]}}')
    assert [record.getMessage() for record in caplog.records] == ["request_refused"]
