"""TensorFlow Serving's REST API and metrics endpoint, and a small web page to try the model."""

import base64
import inspect
import json
import re
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import anyio
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp
from tensorflow.core.protobuf import error_codes_pb2

from serving.errors import ServingError, Status, invalid_argument
from serving.model.batching import Steps
from serving.model.loaded_model import SMALL_BYTES
from serving.server import metrics
from serving.server.access import Tokens
from serving.server.groups import Groups
from serving.server.grpc import signature_def_map
from serving.server.json_tensors import answer_to_json, request_from_json
from serving.server.model_host import Requested, VersionState
from serving.server.pages import HEADERS, page_text, tabs
from serving.server.service import Service
from serving.server.settings import ServerSettings

METRICS_PATH: Final = "/monitoring/prometheus/metrics"
LIVE_PATH: Final = "/livez"
READY_PATH: Final = "/readyz"
REVIEW_PATH: Final = "/review"
PAGE: Final = "page.html"
_GZIP_WBITS: Final = 31
_UNZIPPED_PART: Final = 1 << 20
_MODEL: Final = r"(?i)/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_METHOD: Final = re.compile(_MODEL + r":(?P<method>classify|regress|predict|preview)")
_MODELS: Final = "/v1/models"
"""KServe's list of models."""
_STATUS: Final = re.compile(_MODEL + r"(?P<metadata>/metadata)?")
AnswerOf = Callable[[Requested, bytes, float], Steps[bytes]]
"""From a request's model, body and deadline; its first step only admits it."""
_WITH_DEFAULTS: Final = next(  # renamed in protobuf 5
    name
    for name in ("always_print_fields_with_no_presence", "including_default_value_fields")
    if name in inspect.signature(json_format.MessageToDict).parameters
)


def rest_app(
    service: Service, settings: ServerSettings, tokens: Tokens | None = None, review: ASGIApp | None = None
) -> Starlette:
    """The ASGI application; blocking work runs in at most `settings.worker_threads` threads.

    With `tokens`, everything needs one except the page, which asks for it, and the paths for probes. `review` answers
    below REVIEW_PATH, each model under its name, and checks access itself.
    """
    api = _RestApi(service, settings, tokens, tabs(review=REVIEW_PATH[1:]) if review else "")
    return Starlette(
        routes=[
            Route("/", api.page, methods=["GET"]),
            Route(LIVE_PATH, api.live, methods=["GET"]),
            Route(READY_PATH, api.ready, methods=["GET"]),
            Route(METRICS_PATH, api.metrics, methods=["GET"]),
            *([Mount(REVIEW_PATH, app=review)] if review else []),
            Route("/{path:path}", api.v1, methods=["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]),
        ],
        exception_handlers={ServingError: _refused, HTTPException: _http_refused, ClientDisconnect: _client_gone},
    )


class _RestApi:
    def __init__(self, service: Service, settings: ServerSettings, tokens: Tokens | None, tabs: str) -> None:
        self._service = service
        self._tokens = tokens
        self._settings = settings
        self._groups = Groups(
            threads=settings.threads,
            max_requests=settings.max_requests,
            max_joined=settings.max_batch_size if settings.enable_batching else 1,
        )
        self._budget = _Budget(settings.max_pending_bytes)
        self._page = page_text("serving.server", PAGE, TABS=tabs)

    async def page(self, request: Request) -> Response:
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({"status": "alive"})  # KServe's clients and probes
        first = json.dumps(self._service.models.names[0]).replace("<", "\\u003c")
        return Response(self._page.replace("{{MODEL_NAME}}", first), media_type="text/html", headers=HEADERS)

    async def live(self, request: Request) -> Response:
        """200 while the server answers at all; a port alone accepts connections even if the process hangs."""
        return Response()

    async def ready(self, request: Request) -> Response:
        """For probes, which cannot keep a token secret: 200 once a version can be used, else 503, and no more.

        With several models, 200 once all were tried; models that cannot be used are in the metrics and states.
        """
        return Response(status_code=200 if self._service.models.is_ready else 503)

    def _check_token(self, request: Request) -> None:
        if self._tokens:
            self._tokens.check(request.headers.get("authorization"))

    async def metrics(self, request: Request) -> Response:
        self._check_token(request)
        return Response(self._service.metrics.page(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def v1(self, request: Request) -> Response:
        self._check_token(request)
        path = request.scope["path"]
        if not path.lower().startswith("/v1/"):
            return JSONResponse({"error": f"Not found: {path}"}, status_code=404)
        if request.method == "POST" and (match := _METHOD.fullmatch(path)):
            return await self._run(request, match)
        if request.method == "GET" and path.lower() == _MODELS:
            return JSONResponse({"models": self._service.models.names})
        if request.method == "GET" and (match := _STATUS.fullmatch(path)):
            requested = _requested(match)
            if match["metadata"]:
                return JSONResponse(await anyio.to_thread.run_sync(self._metadata, requested))
            states = self._service.models.states(requested)
            return JSONResponse({"model_version_status": [_state_json(state) for state in states]})
        raise invalid_argument(f"Malformed request: {request.method} {path}")

    async def _run(self, request: Request, match: re.Match[str]) -> Response:
        answers = {"predict": self._predict, "preview": self._preview}
        if (answer_of := answers.get(match["method"].lower())) is None:
            raise ServingError(Status.UNIMPLEMENTED, f"{match['method']} is not implemented by this server")
        requested = _requested(match)
        timeout_s = self._settings.request_timeout_s
        until_s = time.monotonic() + timeout_s
        try:
            with anyio.fail_after(timeout_s), self._budget.reservation() as reserve:
                body = await _body(request, self._settings.max_body_bytes, reserve)
                joins = requested if match["method"].lower() == "predict" and len(body) <= SMALL_BYTES else None
                answer = await self._groups.answer(answer_of(requested, body, until_s), joins=joins)
        except TimeoutError:
            raise ServingError(Status.DEADLINE_EXCEEDED, f"no answer within {timeout_s:g} s") from None
        return Response(answer, media_type="application/json")

    def _predict(self, requested: Requested, body: bytes, until_s: float) -> Steps[bytes]:
        with self._service.counted(requested, api="REST"):
            yield None
            with self._service.models.lease(requested, until_s) as served:
                parsed, form = request_from_json(body, served.predictor.signature)
                return answer_to_json((yield from self._service.run(served, parsed)), form)

    def _preview(self, requested: Requested, body: bytes, until_s: float) -> Steps[bytes]:
        """For the page: the body is an image file, of a format that browsers do not show."""
        with self._service.counted(requested, api="PREVIEW"):
            yield None
            with self._service.models.lease(requested, until_s) as served:
                png, (height_px, width_px) = served.predictor.preview(body)
            document = {"width_px": width_px, "height_px": height_px, "png": base64.b64encode(png).decode()}
            return json.dumps(document).encode()

    def _metadata(self, requested: Requested) -> dict[str, Any]:
        models = self._service.models
        with models.admission(requested), models.lease(requested) as served:
            signatures = json_format.MessageToDict(
                signature_def_map(served), preserving_proto_field_name=True, **{_WITH_DEFAULTS: True}
            )
            spec = {"name": requested.name, "signature_name": "", "version": str(served.number)}
        return {"model_spec": spec, "metadata": {"signature_def": signatures}}


class _Budget:
    """Limits the total size of the bodies in memory; used only by the event loop's thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    @contextmanager
    def reservation(self) -> Iterator[Callable[[int], None]]:
        """A function that reserves bytes until the end of the block; it raises UNAVAILABLE if too few are left."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self._held + size > self._max_bytes:
                raise ServingError(Status.UNAVAILABLE, "other requests fill the server's memory; try again later")
            self._held += size
            taken += size

        try:
            yield take
        finally:
            self._held -= taken


async def _body(request: Request, max_bytes: int, take: Callable[[int], None]) -> bytes:
    """The request's body, unzipped; stops reading as soon as it is too large."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _body_too_large()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise HTTPException(415, f"Content-Encoding {encoding} is not supported; send gzip or none")
    unzip = _Unzip() if encoding == "gzip" else None
    chunks, total = [], 0
    async for received in request.stream():
        for chunk in unzip.parts(received) if unzip else (received,):
            total += len(chunk)
            if total > max_bytes:
                raise _body_too_large()
            take(len(chunk))
            chunks.append(chunk)
    if unzip and not unzip.is_complete:
        raise invalid_argument("the gzip body is truncated")
    return b"".join(chunks)


class _Unzip:
    """Unzips a body that arrives in chunks, at most _UNZIPPED_PART bytes at a time."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=_GZIP_WBITS)

    @property
    def is_complete(self) -> bool:
        return self._stream.eof

    def parts(self, received: bytes) -> Iterator[bytes]:
        """The unzipped content of the next chunk; INVALID_ARGUMENT if it is not gzip."""
        try:
            while received and not self._stream.eof:
                yield self._stream.decompress(received, _UNZIPPED_PART)
                received = self._stream.unconsumed_tail
        except zlib.error as error:
            raise invalid_argument(f"the body is not valid gzip: {error}") from None


def _body_too_large() -> HTTPException:
    # Only closing the connection stops a client that keeps sending.
    return HTTPException(413, "Request body is too large", {"Connection": "close"})


def _requested(match: re.Match[str]) -> Requested:
    if match["version"] is None:
        return Requested(match["name"], label=match["label"])
    if len(match["version"]) > 18:
        raise invalid_argument(f"Failed to convert version: {match['version']} to numeric.")
    return Requested(match["name"], int(match["version"]))


def _state_json(state: VersionState) -> dict[str, Any]:
    code = error_codes_pb2.Code.Name(state.error_code)
    status = {"error_code": code, "error_message": state.error_message}
    return {"version": str(state.version), "state": state.state, "status": status}


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    headers = {"WWW-Authenticate": "Bearer"} if error.status is Status.UNAUTHENTICATED else None
    return JSONResponse({"error": error.message}, status_code=error.status.http_status, headers=headers)


async def _http_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # the client is gone
