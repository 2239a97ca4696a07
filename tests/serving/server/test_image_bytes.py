"""The autoencoder's signatures over both protocols: correct results, and broken images named by their index."""

import base64
import contextlib
import http.client
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from urls import grpc_url

from schema.artifacts import RECORD_FILE
from serving.errors import ServingError
from serving.model.image_inputs import ends_of_model, preview_of
from serving.server.run import ServerAddress, running_server
from serving.server.settings import ServerSettings

PATH = "/v1/models/autoencoder:predict"


def _post(address: ServerAddress, body: Any, path: str = PATH) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(address.host, address.rest_port, timeout=30)
    try:
        connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def _get(address: ServerAddress, path: str) -> tuple[http.client.HTTPResponse, str]:
    with contextlib.closing(http.client.HTTPConnection(address.host, address.rest_port, timeout=30)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response, response.read().decode()


def _b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def _grpc_request(images: list[bytes]) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "autoencoder"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(images, dtype=tf.string))
    return request


def test_scores_are_the_variance_of_the_pixels(
    image_server: ServerAddress, normal_png: bytes, anomalous_png: bytes
) -> None:
    """A flat image has error 0 and is normal; half black, half white has 0.25 and is an anomaly."""
    status, answer = _post(image_server, {"instances": [_b64(normal_png), _b64(anomalous_png)]})
    assert status == 200
    normal, anomalous = answer["predictions"]
    assert normal == {
        "error": pytest.approx(0, abs=1e-9),
        "score": pytest.approx(0, abs=1e-9),
        "threshold": 0.05,
        "is_anomaly": 0,
    }
    assert anomalous == {"error": 0.25, "score": 0.25, "threshold": 0.05, "is_anomaly": 1}


def test_reconstruct_returns_image_map_and_latent(image_server: ServerAddress, anomalous_png: bytes) -> None:
    """Shapes [H, W, C], [H, W] and [Z]; this model reconstructs the mean everywhere."""
    _, answer = _post(image_server, {"signature_name": "reconstruct", "instances": [_b64(anomalous_png)]})
    row = answer["predictions"][0]
    assert np.array_equal(row["reconstruction"], np.full((16, 16, 1), 0.5))
    assert np.array_equal(row["error_map"], np.full((16, 16), 0.25))
    assert row["latent"] == [0.5]


def test_pixels_encode_and_decode(image_server: ServerAddress) -> None:
    """The signatures that take no image file."""
    image = np.tile([0.0, 1.0], (16, 8))[..., None].tolist()
    _, scored = _post(image_server, {"signature_name": "pixels", "instances": [image]})
    _, encoded = _post(image_server, {"signature_name": "encode", "instances": [image]})
    _, decoded = _post(image_server, {"signature_name": "decode", "instances": encoded["predictions"]})
    assert scored["predictions"][0]["error"] == 0.25
    assert encoded["predictions"] == [[0.5]]
    assert np.array_equal(decoded["predictions"][0], np.full((16, 16, 1), 0.5))


@pytest.mark.parametrize("broken_index", [0, 3, 6])
def test_broken_image_is_named_by_its_index(image_server: ServerAddress, normal_png: bytes, broken_index: int) -> None:
    """REST 400 and gRPC INVALID_ARGUMENT, for bytes that are not an image and for a truncated image."""
    for broken in (b"no image", normal_png[:-30]):
        images = [normal_png] * 7
        images[broken_index] = broken
        status, answer = _post(image_server, {"instances": [_b64(image) for image in images]})
        assert status == 400
        assert f"image_bytes[{broken_index}]" in answer["error"]
        with (
            grpc.insecure_channel(grpc_url(image_server).removeprefix("grpc://")) as channel,
            pytest.raises(grpc.RpcError) as refusal,
        ):
            prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(_grpc_request(images), 20)
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert f"image_bytes[{broken_index}]" in refusal.value.details()


def test_broken_image_fails_only_its_own_request(
    image_server: ServerAddress, normal_png: bytes, anomalous_png: bytes
) -> None:
    """Requests in one batch get separate answers: each its own scores or its own error."""
    images = {"normal": normal_png, "anomalous": anomalous_png, "broken": normal_png[:-30]}
    kinds = [*images] * 20

    def ask(kind: str) -> tuple[int, Any]:
        return _post(image_server, {"instances": [_b64(images[kind])]})

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, kinds))
    for kind, (status, answer) in zip(kinds, answers, strict=True):
        if kind == "broken":
            assert (status, answer["error"][:14]) == (400, "image_bytes[0]")
        else:
            assert status == 200
            assert answer["predictions"][0]["is_anomaly"] == (kind == "anomalous")


def test_image_that_declares_too_many_pixels_is_refused_before_decoding(
    image_model: Any,
    settings_for: Callable[..., ServerSettings],
    normal_png: bytes,
    png: Callable[..., bytes],
) -> None:
    """One image over the limit, and several that exceed it together."""
    settings = settings_for(image_model, grpc_port=None, max_image_pixels=1000, max_request_pixels=2000)
    with running_server(settings) as address:
        bomb_status, bomb = _post(address, {"instances": [_b64(normal_png), _b64(png(np.zeros((40, 40))))]})
        many_status, many = _post(address, {"instances": [_b64(normal_png)] * 8})
        fine_status, _ = _post(address, {"instances": [_b64(normal_png)] * 7})
    assert (bomb_status, many_status, fine_status) == (400, 400, 200)
    assert "image_bytes[1]: the image has 1600 pixels; at most 1000" in bomb["error"]
    assert "2048 pixels together" in many["error"]


def test_body_over_the_limit_is_413(image_model: Any, settings_for: Callable[..., ServerSettings]) -> None:
    """Whether declared or sent in chunks."""
    with running_server(settings_for(image_model, grpc_port=None, max_body_bytes=1000)) as address:
        status, answer = _post(address, b" " * 1001)
        assert (status, answer) == (413, {"error": "Request body is too large"})
        with contextlib.closing(http.client.HTTPConnection(address.host, address.rest_port, timeout=30)) as connection:
            connection.request(
                "POST",
                PATH,
                iter([b" " * 600] * 2),
                encode_chunked=True,
                headers={"Transfer-Encoding": "chunked"},
            )
            assert connection.getresponse().status == 413


def test_metrics_count_requests_under_tensorflow_servings_names(image_server: ServerAddress, normal_png: bytes) -> None:
    """Prometheus text, with a count per status."""
    _post(image_server, {"instances": [_b64(normal_png)]})
    _post(image_server, {"instances": []})
    response, text = _get(image_server, "/monitoring/prometheus/metrics")
    assert response.getheader("Content-Type", "").startswith("text/plain")
    assert ':tensorflow:serving:request_count{model_name="autoencoder",status="OK"}' in text
    assert ':tensorflow:serving:request_count{model_name="autoencoder",status="INVALID_ARGUMENT"}' in text
    assert ":tensorflow:serving:request_latency_bucket{" in text


def test_page_loads_no_external_resources(image_server: ServerAddress) -> None:
    """One HTML document, whose policy forbids all other sources."""
    response, html = _get(image_server, "/")
    assert response.getheader("Content-Type", "").startswith("text/html")
    assert "default-src 'none'" in response.getheader("Content-Security-Policy", "")
    assert '"autoencoder"' in html
    assert 'src="http' not in html
    assert 'href="http' not in html
    assert "@import" not in html


def test_the_page_gets_a_small_png_of_a_tiff_and_the_file_s_own_size(image_server: ServerAddress) -> None:
    """Of 16 bits in a narrow range, it shows dark and bright; what is no image is refused."""
    levels = np.full((900, 1200), 100, np.uint16)
    levels[:, 600:] = 400
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "TIFF")
    status, answer = _post(image_server, file.getvalue(), PATH.replace("predict", "preview"))
    assert (status, answer["width_px"], answer["height_px"]) == (200, 1200, 900)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["png"]))))
    assert shown.shape == (768, 1024)
    assert (shown[:, :500].max(), shown[:, 524:].min()) == (0, 255)
    assert _post(image_server, b"no image", PATH.replace("predict", "preview"))[0] == 400


def test_a_preview_has_the_levels_of_a_model_with_a_range(tmp_path: Path) -> None:
    """The model sees 0 to 4095 as black to white, whatever a file uses of it."""
    (tmp_path / RECORD_FILE).parent.mkdir()
    record = {"image": {"depth": 16, "range": {"percentiles": [0.1, 99.9]}}, "pixel_levels": [0, 4095]}
    (tmp_path / RECORD_FILE).write_text(json.dumps(record))
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 819, 1638]], np.uint16)).save(file, "TIFF")
    png, size = preview_of(file.getvalue(), max_image_pixels=3, ends=ends_of_model(tmp_path))
    assert (np.asarray(Image.open(io.BytesIO(png))).tolist(), size) == ([[0, 51, 102]], (1, 3))
    with pytest.raises(ServingError, match="the image has 3 pixels; at most 2 are accepted"):
        preview_of(file.getvalue(), max_image_pixels=2, ends=None)
