"""A REST and gRPC client for models served by `autoencoder serve`, TensorFlow Serving or KServe.

    from serving.client import score_images, wait_until_ready

    wait_until_ready("http://127.0.0.1:8501")
    for score in score_images([Path("a.png"), open("b.png", "rb").read()], server="http://127.0.0.1:8501"):
        print(score.score, score.is_anomaly)

A server's address is `http://host:8501` or `https://…` for REST, `grpc://host:8500` or `grpcs://…` for gRPC; any
other raises UsageError. A `Login` holds a server's token and the certificate authority of its certificate. A request
that fails raises `serving.errors.ServingError`, with status UNAVAILABLE if the server cannot be reached. REST does not
import TensorFlow; gRPC does, for its protocol buffers.
"""

import base64
import http.client
import json
import math
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, quote, urlsplit

import numpy as np

from images.decoding import UnreadableImageError, as_viewed, page_count, upright_size
from images.reading import AS_STORED
from images.regions import Place, Placement, Region, find_regions, strongest_place
from runtime.errors import UsageError
from runtime.urls import without_secrets
from schema import signatures
from schema.signatures import DEFAULT_MODEL_NAME, DEFAULT_REST_PORT
from serving.errors import ServingError, Status

DEFAULT_SERVER = f"http://127.0.0.1:{DEFAULT_REST_PORT}"
_PRINTABLE: Final = re.compile("[!-~]+")
ImageFile = bytes | Path
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Login:
    """What a server requires: a bearer token, and for https:// and grpcs:// trust in its certificate."""

    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    """PEM file with the certificates to trust; None: the system's."""

    def __post_init__(self) -> None:
        """Raises UsageError, without the token, if no header can hold it."""
        if self.token is not None and not _PRINTABLE.fullmatch(self.token):
            raise UsageError("the server's token must consist of printable ASCII characters, without spaces")

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"} if self.token else {}


NO_LOGIN = Login()


@dataclass(frozen=True)
class Score:
    """The model's result for one image; `is_anomaly` if the score exceeds the threshold.

    `anomaly_map` [H, W], in multiples of the pixel threshold, and where the image lies on it are None unless they were
    requested. H and W are the model's, not the image's.
    """

    error: float
    score: float
    threshold: float
    is_anomaly: bool
    p_value: float = math.nan
    """The probability that a normal image scores as high; NaN if the model does not return it."""
    group: str | None = None
    """The product variant whose threshold applies, if the model was calibrated with `evaluation.groups`."""
    warning: str = ""
    """Why the score may be wrong, if the image is unlike the training images in a way that its file shows, such as its
    size; empty from servers that do not return it, such as TensorFlow Serving."""
    anomaly_map: Array | None = field(default=None, compare=False, repr=False)
    placement: Placement | None = field(default=None, compare=False, repr=False)
    smallest_region: float = field(default=0.0, compare=False, repr=False)
    """Share of the image's area below which a region does not count."""

    @property
    def regions(self) -> list[Region] | None:
        """Where the image is anomalous, in its own pixels, the highest peak first; None if no map was requested."""
        return None if self.anomaly_map is None else self.located()[0]

    @property
    def strongest(self) -> Place | None:
        """Where the map of an anomaly without regions is highest; None otherwise, and if no map was requested."""
        if self.anomaly_map is None or self.placement is None or not self.is_anomaly or self.regions:
            return None
        return strongest_place(self.anomaly_map, self.placement)

    def located(self) -> tuple[list[Region], Array]:
        """The regions, and the number of the region that each pixel of the image belongs to [rows, columns], or 0."""
        if self.anomaly_map is None or self.placement is None:
            raise ValueError("the score has no anomaly map; request it with_maps=True")
        return find_regions(self.anomaly_map, self.placement, smallest_share=self.smallest_region)


@dataclass(frozen=True)
class VersionStatus:
    """A version of a served model: number, state (such as AVAILABLE), and error message if it failed."""

    version: int
    state: str
    error: str


def score_images(
    images: Sequence[ImageFile],
    *,
    server: str = DEFAULT_SERVER,
    model_name: str = DEFAULT_MODEL_NAME,
    with_maps: bool = False,
    timeout_s: float = 30.0,
    login: Login = NO_LOGIN,
) -> list[Score]:
    """The scores, in order, of encoded images given as bytes or as paths; sends one request.

    Every format that ingestion accepts is converted as ingestion does, so any server's model can decode it, except for
    files of several pages: this project's server takes the first, or gives INVALID_ARGUMENT if each is an image.
    `with_maps` adds anomaly maps and regions; a model of a version without them gives FAILED_PRECONDITION.
    """
    if not images:
        return []
    files = [_as_stored(index, image) for index, image in enumerate(images)]
    signature = signatures.LOCATE_SIGNATURE if with_maps else signatures.SCORE_SIGNATURE
    address = _parsed(server)
    predict = _predict_by_grpc if address.is_grpc else _predict_by_rest
    return scores_from_columns(predict(address, model_name, signature, files, timeout_s, login), files)


def model_status(
    server: str = DEFAULT_SERVER,
    *,
    model_name: str = DEFAULT_MODEL_NAME,
    timeout_s: float = 10.0,
    login: Login = NO_LOGIN,
) -> list[VersionStatus]:
    """The versions of the model on the server; NOT_FOUND if there are none."""
    address = _parsed(server)
    if address.is_grpc:
        return _status_by_grpc(address, model_name, timeout_s, login)
    document = _http(address, "GET", f"/v1/models/{quote(model_name, safe='')}", None, timeout_s, login)
    return [
        VersionStatus(int(entry["version"]), entry["state"], entry["status"].get("error_message", ""))
        for entry in document["model_version_status"]
    ]


def wait_until_ready(
    server: str = DEFAULT_SERVER,
    *,
    model_name: str = DEFAULT_MODEL_NAME,
    timeout_s: float = 60.0,
    login: Login = NO_LOGIN,
) -> VersionStatus:
    """Wait for an AVAILABLE version and return it; after `timeout_s`, raise DEADLINE_EXCEEDED with the reason."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            statuses = model_status(server, model_name=model_name, timeout_s=min(timeout_s, 5.0), login=login)
            for status in statuses:
                if status.state == "AVAILABLE":
                    return status
            reason = "; ".join(f"version {s.version}: {s.state} {s.error}".rstrip() for s in statuses)
        except ServingError as error:
            if error.status is Status.UNAUTHENTICATED:
                raise
            reason = error.message
        if time.monotonic() > deadline:
            raise ServingError(
                Status.DEADLINE_EXCEEDED, f"{without_secrets(server)}: not ready after {timeout_s:g} s: {reason}"
            )
        time.sleep(0.2)


def scores_from_columns(columns: Mapping[str, Any], images: Sequence[bytes]) -> list[Score]:
    """A Score for each encoded image, from a signature's outputs by name, whose first dimension is the batch."""
    p_values = columns.get(signatures.P_VALUE, [math.nan] * len(columns[signatures.ERROR]))
    return [
        Score(
            error=float(columns[signatures.ERROR][i]),
            score=float(columns[signatures.SCORE][i]),
            threshold=float(columns[signatures.THRESHOLD][i]),
            is_anomaly=bool(columns[signatures.IS_ANOMALY][i]),
            p_value=float(p_values[i]),
            group=_text(columns[signatures.GROUP][i]) if signatures.GROUP in columns else None,
            warning=_text(columns[signatures.WARNING][i]) if signatures.WARNING in columns else "",
            **_map_of(columns, i, image),
        )
        for i, image in enumerate(images)
    ]


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _map_of(columns: Mapping[str, Any], index: int, image: bytes) -> dict[str, Any]:
    """The fields of a Score that belong to its anomaly map, if there is one."""
    if signatures.ANOMALY_MAP not in columns:
        return {}
    anomaly_map = np.asarray(columns[signatures.ANOMALY_MAP][index], np.float32)
    is_padded = bool(columns[signatures.IS_PADDED][index])
    return {
        "anomaly_map": anomaly_map,
        "placement": Placement.on_map(upright_size(image), anomaly_map.shape, is_padded=is_padded),
        "smallest_region": float(columns[signatures.SMALLEST_REGION][index]),
    }


def _as_stored(index: int, image: ImageFile) -> bytes:
    """The image with all its bits, of which the model's graph takes what it needs.

    A file of several pages stays as it is: only the server knows whether each is an image. INVALID_ARGUMENT if no model
    could read it.
    """
    try:
        content = image.read_bytes() if isinstance(image, Path) else image
        return content if page_count(content) > 1 else as_viewed(content, AS_STORED)
    except UnreadableImageError as error:
        message = f"{signatures.IMAGE_BYTES}[{index}]: {error}"
        raise ServingError(Status.INVALID_ARGUMENT, message) from None


@dataclass(frozen=True)
class _Server:
    """A server's address, and as it appears in messages: without secrets."""

    url: SplitResult
    shown: str

    @property
    def is_grpc(self) -> bool:
        return self.url.scheme.startswith("grpc")


def _parsed(server: str) -> _Server:
    """The server at an address; raises UsageError."""
    shown = without_secrets(server)
    try:
        url = urlsplit(server)
        host = (url.hostname or "").encode("idna")
        is_valid = url.scheme in ("http", "https", "grpc", "grpcs") and url.port != 0
    except ValueError:  # its message may quote a password
        is_valid = False
    if not is_valid or not _PRINTABLE.fullmatch(host.decode()) or not _PRINTABLE.fullmatch(f"/{url.path}"):
        raise UsageError(
            f"server {shown!r}: give its address as http://host:port or grpc://host:port, with a port from 1 to 65535"
        )
    return _Server(url, shown)


def _predict_by_rest(
    server: _Server, model_name: str, signature: str, files: Sequence[bytes], timeout_s: float, login: Login
) -> Mapping[str, Any]:
    encoded = [{"b64": base64.b64encode(data).decode()} for data in files]
    body = {"signature_name": signature, "inputs": {signatures.IMAGE_BYTES: encoded}}
    path = f"/v1/models/{quote(model_name, safe='')}:predict"
    outputs: Mapping[str, Any] = _http(server, "POST", path, json.dumps(body).encode(), timeout_s, login)["outputs"]
    return outputs


def _http(server: _Server, method: str, path: str, body: bytes | None, timeout_s: float, login: Login) -> Any:
    with closing(_connection(server.url, timeout_s, login)) as connection:
        try:
            headers = {**login.headers, **({"Content-Type": "application/json"} if body else {})}
            connection.request(method, server.url.path.rstrip("/") + path, body, headers)
            response = connection.getresponse()
            text = response.read()
        except TimeoutError:
            raise ServingError(Status.DEADLINE_EXCEEDED, f"{server.shown}: no answer in {timeout_s:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise ServingError(
                Status.UNAVAILABLE,
                f"{server.shown}: cannot be reached ({error}); check the address and that the server runs",
            ) from None
    if response.status != 200:
        raise _serving_error(server, response.status, text)
    try:
        return json.loads(text)
    except ValueError:
        raise ServingError(Status.INTERNAL, f"{server.shown}: the answer is not JSON") from None


def _connection(url: SplitResult, timeout_s: float, login: Login) -> http.client.HTTPConnection:
    if url.scheme != "https":
        return http.client.HTTPConnection(url.hostname or "", url.port, timeout=timeout_s)
    context = _trusting(login.ca_file)[0] if login.ca_file else ssl.create_default_context()
    return http.client.HTTPSConnection(url.hostname or "", url.port, timeout=timeout_s, context=context)


def _trusting(ca_file: Path) -> tuple[ssl.SSLContext, bytes]:
    """A context that trusts the certificates in the file, and the file's content; raises UsageError if it has none."""
    try:
        content = ca_file.read_bytes()
        # Comments between the certificates may have other characters.
        return ssl.create_default_context(cadata=content.decode("ascii", "ignore") or "\n"), content
    except OSError as error:  # also SSLError
        raise UsageError(f"{ca_file}: no PEM file with certificates: {error}") from None


def _serving_error(server: _Server, http_status: int, text: bytes) -> ServingError:
    # HTTP's 413 (body too large) corresponds to no Status; gRPC uses RESOURCE_EXHAUSTED for it.
    by_http = {status.http_status.value: status for status in reversed(Status)}
    status = by_http.get(http_status, Status.RESOURCE_EXHAUSTED if http_status == 413 else Status.INTERNAL)
    try:
        message = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        message = f"{server.shown}: HTTP status {http_status}"
    return ServingError(status, str(message))


def _predict_by_grpc(
    server: _Server, model_name: str, signature: str, files: Sequence[bytes], timeout_s: float, login: Login
) -> Mapping[str, Any]:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model_name, signature
    request.inputs[signatures.IMAGE_BYTES].CopyFrom(tf.make_tensor_proto(list(files), dtype=tf.string))
    response = _called(server, prediction_service_pb2_grpc.PredictionServiceStub, "Predict", request, timeout_s, login)
    return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}


def _status_by_grpc(server: _Server, model_name: str, timeout_s: float, login: Login) -> list[VersionStatus]:
    from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = model_name
    response = _called(server, model_service_pb2_grpc.ModelServiceStub, "GetModelStatus", request, timeout_s, login)
    name_of = get_model_status_pb2.ModelVersionStatus.State.Name
    return [
        VersionStatus(entry.version, name_of(entry.state), entry.status.error_message)
        for entry in response.model_version_status
    ]


def _called(
    server: _Server, stub: Callable[[Any], Any], method: str, request: Any, timeout_s: float, login: Login
) -> Any:
    import grpc

    url = server.url
    # A batch of reconstructions may exceed the default limit of 4 MB.
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    if url.scheme == "grpcs":
        trusted = _trusting(login.ca_file)[1] if login.ca_file else None  # gRPC would accept a file without any
        channel = grpc.secure_channel(url.netloc, grpc.ssl_channel_credentials(trusted), options)
    else:
        channel = grpc.insecure_channel(url.netloc, options)
    with channel:
        try:
            return getattr(stub(channel), method)(request, timeout_s, tuple(login.headers.items()))
        except grpc.RpcError as error:
            number = error.code().value[0]
            status = next((status for status in Status if status.grpc_number == number), Status.INTERNAL)
            raise ServingError(status, error.details() or f"{server.shown}: {error.code().name}") from None
