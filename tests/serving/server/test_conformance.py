"""Our server behaves over real sockets as TensorFlow Serving's documentation and tests specify.

Sources: https://www.tensorflow.org/tfx/serving/api_rest, and tensorflow/serving's own
tensorflow_model_server_test.py, json_tensor_test.cc and http_rest_api_handler_test.cc. The tests also run against
a real TensorFlow Serving if SERVING_URL (and SERVING_GRPC_URL) names one that serves the same model,
written by `PYTHONPATH=. python tests/support/served_models.py FOLDER/123`, under the name `default`.
"""

import base64
import http.client
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from urls import grpc_url, rest_url

from serving.server.run import running_server
from serving.server.settings import ServerSettings

NAME = "default"
TIMEOUT_S = 20.0
REAL = "a real TensorFlow Serving"
SERVERS = ["our server", REAL] if os.environ.get("SERVING_URL") else ["our server"]


class Api:
    """One server under test, by its two addresses."""

    def __init__(self, rest_url: str, grpc_target: str | None, *, is_ours: bool) -> None:
        self.rest = urlsplit(rest_url)
        self.is_ours = is_ours
        self.channel = grpc.insecure_channel(grpc_target) if grpc_target else None

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Status and text of one HTTP request; a body that is not bytes is sent as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection(self.rest.hostname or "", self.rest.port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, data, {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def predict(self, body: Any, path: str = f"/v1/models/{NAME}:predict") -> Any:
        """The document of a POST that is answered with status 200."""
        status, text = self.call("POST", path, body)
        assert status == 200, text
        return json.loads(text)

    def refused(self, body: Any, path: str = f"/v1/models/{NAME}:predict") -> tuple[int, str]:
        """Status and `error` of a POST that is refused."""
        status, text = self.call("POST", path, body)
        return status, json.loads(text)["error"]

    def stub(self) -> Any:
        """The PredictionService; skips the test if no gRPC address is known."""
        if self.channel is None:
            pytest.skip("SERVING_GRPC_URL is not set")
        return prediction_service_pb2_grpc.PredictionServiceStub(self.channel)


@pytest.fixture(scope="module", params=SERVERS)
def api(
    request: pytest.FixtureRequest, half_plus_two: Path, settings_for: Callable[..., ServerSettings]
) -> Iterator[Api]:
    """Each server in turn, serving half_plus_two as `default`, version 123."""
    if request.param == REAL:
        url = os.environ["SERVING_URL"]
        yield Api(url, os.environ.get("SERVING_GRPC_URL", "").removeprefix("grpc://") or None, is_ours=False)
        return
    with running_server(settings_for(half_plus_two, model_name=NAME)) as address:
        yield Api(rest_url(address), grpc_url(address).removeprefix("grpc://"), is_ours=True)


def _predict_request(values: list[float], *, name: str = NAME, **filled: Any) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest(**filled)
    request.model_spec.name = name
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(values, dtype=tf.float32))
    return request


@pytest.mark.skipif(REAL not in SERVERS, reason="SERVING_URL is not set: the tests below ran against our server only")
def test_tensorflow_serving_itself_was_tested() -> None:
    """Shows in the summary whether these tests ran against the original."""
    assert urlsplit(os.environ["SERVING_URL"]).hostname


# --- REST: predict -----------------------------------------------------------------------------------------


def test_row_form_answers_predictions(api: Api) -> None:
    """`instances` in, `predictions` out, in the same order."""
    assert api.predict({"instances": [2.0, 3.0, 4.0]}) == {"predictions": [3.0, 3.5, 4.0]}


def test_columnar_form_answers_outputs(api: Api) -> None:
    """`inputs` in, `outputs` out."""
    assert api.predict({"inputs": [2.0, 3.0, 4.0]}) == {"outputs": [3.0, 3.5, 4.0]}


def test_single_input_may_be_named_in_either_form(api: Api) -> None:
    """A single input may be named or bare."""
    assert api.predict({"instances": [{"x": 2.0}]}) == {"predictions": [3.0]}
    assert api.predict({"inputs": {"x": [2.0]}}) == {"outputs": [3.0]}


def test_several_inputs_and_outputs_are_named(api: Api) -> None:
    """With more than one output, each row is an object, and so is the columnar answer."""
    rows = {"signature_name": "two_inputs", "instances": [{"x": 6.0, "x2": 3.0}, {"x": 1.0, "x2": 4.0}]}
    columns = {"signature_name": "two_inputs", "inputs": {"x": [6.0, 1.0], "x2": [3.0, 4.0]}}
    assert api.predict(rows) == {"predictions": [{"sum": 9.0, "quotient": 2.0}, {"sum": 5.0, "quotient": 0.25}]}
    assert api.predict(columns) == {"outputs": {"sum": [9.0, 5.0], "quotient": [2.0, 0.25]}}


def test_whole_numbers_are_accepted_as_floats(api: Api) -> None:
    """JSON does not distinguish integers from floats."""
    assert api.predict({"instances": [2]}) == {"predictions": [3.0]}


def test_version_path_serves_that_version(api: Api) -> None:
    """The version may be in the path."""
    assert api.predict({"instances": [2.0]}, f"/v1/models/{NAME}/versions/123:predict") == {"predictions": [3.0]}


def test_signature_may_be_named_explicitly(api: Api) -> None:
    """`signature_name` may name the default signature."""
    assert api.predict({"signature_name": "serving_default", "instances": [2.0]}) == {"predictions": [3.0]}


def test_base64_bytes_go_in_and_come_out(api: Api) -> None:
    """`{"b64": …}` is bytes; an output whose name ends in `_bytes` is returned in the same form."""
    data = bytes(range(256))
    value = {"b64": base64.b64encode(data).decode()}
    answer = api.predict({"signature_name": "echo", "instances": [value]})
    assert base64.b64decode(answer["predictions"][0]["b64"]) == data
    answer = api.predict({"signature_name": "echo", "inputs": {"text_bytes": [value]}})
    assert base64.b64decode(answer["outputs"][0]["b64"]) == data


def test_plain_text_is_encoded_as_utf8(api: Api) -> None:
    """A JSON string is its UTF-8 encoding."""
    answer = api.predict({"signature_name": "echo", "instances": ["Grüße"]})
    assert base64.b64decode(answer["predictions"][0]["b64"]).decode() == "Grüße"


def test_nan_and_infinities_are_bare_words(api: Api) -> None:
    """Both directions use unquoted NaN, Infinity and -Infinity, which JSON lacks."""
    body = b'{"signature_name": "two_inputs", "inputs": {"x": [0, 1, -1, NaN], "x2": [0, 0, 0, 1]}}'
    status, text = api.call("POST", f"/v1/models/{NAME}:predict", body)
    assert status == 200, text
    quotient = json.loads(text)["outputs"]["quotient"]
    assert math.isnan(quotient[0])
    assert quotient[1:3] == [math.inf, -math.inf]
    assert math.isnan(quotient[3])
    assert '"NaN"' not in text


def test_float32_is_written_as_its_shortest_decimal(api: Api) -> None:
    """2.1 in float32 is 2.1; as a double it would be 2.0999999046325684."""
    status, text = api.call("POST", f"/v1/models/{NAME}:predict", {"instances": [0.2]})
    assert status == 200
    assert "2.1" in text
    assert "2.09" not in text


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", "no/such"]
)
def test_any_content_type_is_read_as_json(api: Api, content_type: str) -> None:
    """The header does not matter."""
    body = json.dumps({"instances": [2.0]}).encode()
    status, text = api.call("POST", f"/v1/models/{NAME}:predict", body, content_type=content_type)
    assert (status, json.loads(text)) == (200, {"predictions": [3.0]})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error"),
        (b"{", "JSON Parse error"),
        (b"[1, 2]", "Is not object"),
        (b"{}", "Missing 'inputs' or 'instances' key"),
        (b'{"instances": [1], "inputs": [1]}', "only"),
        (b'{"instances": 1}', "'instances' to be an list/array"),
        (b'{"instances": []}', "No values in 'instances' array"),
        (b'{"instances": ["two"]}', 'JSON Value: "two" Type: String is not of expected type: float'),
        (b'{"instances": [true]}', "is not of expected type: float"),
        (b'{"instances": [null]}', "is not of expected type: float"),
        (b'{"instances": [{"y": 1}]}', "instances"),
        (b'{"instances": [{"x": 1}, 2]}', "at item 1 of input list"),
        (b'{"inputs": {"y": [1]}}', "Missing named input: x"),
        (b'{"inputs": [1e39]}', "without loss of precision"),
        (b'{"signature_name": 3, "instances": [1]}', "'signature_name' key must be a string value"),
        (b'{"signature_name": "none", "instances": [1]}', 'Serving signature name: "none" not found'),
        (b'{"signature_name": "two_inputs", "instances": [1]}', "expecting list of objects as multiple"),
        (b'{"signature_name": "two_inputs", "inputs": [1]}', "expecting an object as multiple"),
        (b'{"signature_name": "echo", "instances": [{"b64": "!"}]}', "Unable to base64 decode"),
        (b'{"signature_name": "total", "inputs": [[1.5, 2]]}', "is not of expected type: int64"),
    ],
)
def test_bad_body_is_400_with_the_reason(api: Api, body: bytes, message: str) -> None:
    """The error is one JSON object with the key `error`."""
    status, error = api.refused(body)
    assert status == 400
    assert message in error


def test_ragged_lists_are_400(api: Api) -> None:
    """A tensor is rectangular."""
    assert api.refused({"signature_name": "total", "inputs": [[1, 2], [3]]})[0] == 400


def test_wrong_shape_is_400_on_our_server(api: Api) -> None:
    """An input that does not match the signature is the client's error."""
    if not api.is_ours:
        pytest.skip("TensorFlow Serving leaves shapes to the graph, and this graph accepts any shape")
    assert api.refused({"inputs": [[1.0], [2.0]]})[0] == 400


def test_scalar_output_is_refused_in_row_form(api: Api) -> None:
    """The row form needs a batch dimension; the columnar form does not."""
    assert api.refused({"signature_name": "total", "instances": [[1, 2]]})[0] == 400
    assert api.predict({"signature_name": "total", "inputs": [[1, 2], [3, 4]]}) == {"outputs": 10}


# --- REST: paths, status, metadata -------------------------------------------------------------------------


def test_status_lists_the_version_as_available(api: Api) -> None:
    """The whole document, with the version as a string."""
    status, text = api.call("GET", f"/v1/models/{NAME}")
    entry = {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert (status, json.loads(text)) == (200, {"model_version_status": [entry]})
    assert json.loads(api.call("GET", f"/v1/models/{NAME}/versions/123")[1]) == json.loads(text)


def test_metadata_describes_the_signatures(api: Api) -> None:
    """Name, version, and every signature's tensors with dtype and shape."""
    status, text = api.call("GET", f"/v1/models/{NAME}/metadata")
    assert status == 200
    document = json.loads(text)
    assert document["model_spec"] == {"name": NAME, "signature_name": "", "version": "123"}
    signatures = document["metadata"]["signature_def"]["signature_def"]
    x = signatures["serving_default"]["inputs"]["x"]
    assert x["dtype"] == "DT_FLOAT"
    assert x["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert signatures["serving_default"]["method_name"] == "tensorflow/serving/predict"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/models/missing:predict", "Servable not found for request: Latest(missing)"),
        (f"/v1/models/{NAME}/versions/9:predict", f"Servable not found for request: Specific({NAME}, 9)"),
    ],
)
def test_unknown_model_or_version_is_404(api: Api, path: str, message: str) -> None:
    """Predict on a model or version that is not served."""
    status, error = api.refused({"instances": [1.0]}, path)
    assert status == 404
    assert message in error


def test_status_of_unknown_model_or_version_is_404(api: Api) -> None:
    """Status and metadata of a model or version that is not served."""
    assert api.call("GET", "/v1/models/missing")[0] == 404
    assert api.call("GET", f"/v1/models/{NAME}/versions/9")[0] == 404
    assert api.call("GET", "/v1/models/missing/metadata")[0] == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/v1/models/{NAME}:predict"),
        ("POST", f"/v1/models/{NAME}"),
        ("POST", f"/v1/models/{NAME}:explain"),
        ("POST", f"/v1/models/{NAME}/versions/x:predict"),
        ("GET", "/v1/elsewhere"),
        ("PUT", f"/v1/models/{NAME}:predict"),
    ],
)
def test_other_requests_below_v1_are_malformed(api: Api, method: str, path: str) -> None:
    """400, naming the method and the path."""
    status, text = api.call(method, path, b"{}")
    assert status == 400
    assert f"Malformed request: {method} {path}" in json.loads(text)["error"]


def test_other_paths_are_404(api: Api) -> None:
    """Nothing else is served."""
    assert api.call("GET", "/v2/models")[0] == 404


def test_unsupported_methods_are_501_on_our_server(api: Api) -> None:
    """Our server implements only Predict."""
    if not api.is_ours:
        pytest.skip("TensorFlow Serving implements these")
    for method in ("classify", "regress"):
        assert api.call("POST", f"/v1/models/{NAME}:{method}", {"examples": [{"x": 2.0}]})[0] == 501


# --- gRPC --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output_filter", [["y"], []])
def test_grpc_predict_answers_value_and_model_spec(api: Api, output_filter: list[str]) -> None:
    """With or without an output filter; the answer names model, signature and version."""
    response = api.stub().Predict(_predict_request([2.0], output_filter=output_filter), TIMEOUT_S)
    assert list(response.outputs["y"].float_val) == [3.0]
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == (NAME, "serving_default", 123)


def test_grpc_predict_reads_packed_content_and_writes_value_fields(api: Api) -> None:
    """Requests may pack values as bytes; answers use float_val, which every client reads."""
    values = np.arange(5, dtype=np.float32)
    response = api.stub().Predict(_predict_request(values.tolist()), TIMEOUT_S)
    assert np.array_equal(tf.make_ndarray(response.outputs["y"]), values / 2 + 2)
    assert len(response.outputs["y"].float_val) == 5


def test_grpc_status_is_available(api: Api) -> None:
    """Version 123, no error."""
    api.stub()
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = NAME
    response = model_service_pb2_grpc.ModelServiceStub(api.channel).GetModelStatus(request, TIMEOUT_S)
    assert len(response.model_version_status) == 1
    entry = response.model_version_status[0]
    assert (entry.version, entry.status.error_code) == (123, 0)
    assert entry.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE


def test_grpc_metadata_holds_the_signatures(api: Api) -> None:
    """The field `signature_def`, packed as a SignatureDefMap."""
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = NAME
    response = api.stub().GetModelMetadata(request, TIMEOUT_S)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert response.model_spec.version.value == 123
    assert signatures.signature_def["serving_default"].inputs["x"].dtype == tf.float32.as_datatype_enum


def _with_version(request: predict_pb2.PredictRequest, version: int) -> predict_pb2.PredictRequest:
    request.model_spec.version.value = version
    return request


def _without_inputs(request: predict_pb2.PredictRequest) -> predict_pb2.PredictRequest:
    request.ClearField("inputs")
    return request


def _with_signature(request: predict_pb2.PredictRequest, name: str) -> predict_pb2.PredictRequest:
    request.model_spec.signature_name = name
    return request


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (_predict_request([1.0], name="missing"), grpc.StatusCode.NOT_FOUND, "Servable not found"),
        (_with_version(_predict_request([1.0]), 9), grpc.StatusCode.NOT_FOUND, f"Specific({NAME}, 9)"),
        (predict_pb2.PredictRequest(), grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec"),
        (
            _with_signature(_predict_request([1.0]), "none"),
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "none" not found.',
        ),
        (
            _without_inputs(_predict_request([1.0])),
            grpc.StatusCode.INVALID_ARGUMENT,
            "input size does not match signature: 0!=1",
        ),
        (
            _predict_request([1.0], output_filter=["z"]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "output tensor alias not found in signature: z",
        ),
        (
            _predict_request([1.0], output_filter=["y", "y"]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "duplicate output tensor alias",
        ),
    ],
    ids=["model", "version", "no spec", "signature", "no inputs", "output", "output twice"],
)
def test_grpc_errors_have_the_documented_codes(
    api: Api, request_: predict_pb2.PredictRequest, code: grpc.StatusCode, message: str
) -> None:
    """Code and message of each error."""
    with pytest.raises(grpc.RpcError) as refusal:
        api.stub().Predict(request_, TIMEOUT_S)
    assert refusal.value.code() is code
    assert message in refusal.value.details()


def test_grpc_unsupported_methods_are_unimplemented_on_our_server(api: Api) -> None:
    """Our server implements only Predict."""
    if not api.is_ours:
        pytest.skip("TensorFlow Serving implements these")
    stub = api.stub()
    for method, message in (
        (stub.Classify, classification_pb2.ClassificationRequest()),
        (stub.Regress, regression_pb2.RegressionRequest()),
    ):
        with pytest.raises(grpc.RpcError) as refusal:
            method(message, TIMEOUT_S)
        assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
