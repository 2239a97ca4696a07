"""TensorFlow Serving's REST API, its metrics page, and a small web page for people."""

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Final

import anyio
import google.protobuf
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tensorflow.core.protobuf import error_codes_pb2

from serving.errors import ServingError, Status, invalid_argument
from serving.server import metrics
from serving.server.grpc import signature_def_map
from serving.server.json_tensors import answer_to_json, request_from_json
from serving.server.model_host import ServedVersion, VersionState
from serving.server.service import Service
from serving.server.settings import ServerSettings

METRICS_PATH: Final = "/monitoring/prometheus/metrics"
PAGE: Final = "page.html"
_MODEL: Final = r"(?i)/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_METHOD: Final = re.compile(_MODEL + r":(?P<method>classify|regress|predict)")
_STATUS: Final = re.compile(_MODEL + r"(?P<metadata>/metadata)?")
# The page loads nothing, and nothing may be added to it.
_PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src blob: data:"
)
_PRINT_DEFAULTS: Final = (
    "including_default_value_fields"
    if int(google.protobuf.__version__.split(".")[0]) < 5
    else "always_print_fields_with_no_presence"
)


class BodyTooLargeError(Exception):
    """More bytes than the server reads."""


def rest_app(service: Service, settings: ServerSettings) -> Starlette:
    """The ASGI application; what blocks runs in threads of its own, at most `settings.worker_threads`."""
    front = _RestFront(service, settings)
    return Starlette(
        routes=[
            Route("/", front.page, methods=["GET"]),
            Route(METRICS_PATH, front.metrics, methods=["GET"]),
            Route(
                "/{path:path}",
                front.api,
                methods=["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"],
            ),
        ],
        exception_handlers={
            ServingError: _refusal,
            BodyTooLargeError: _body_too_large,
            HTTPException: _http_refusal,
            ClientDisconnect: _client_gone,
        },
    )


class _RestFront:
    def __init__(self, service: Service, settings: ServerSettings) -> None:
        self._service = service
        self._settings = settings
        self._threads = ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="rest")
        self._places = threading.Semaphore(settings.worker_threads + settings.max_waiting_requests)
        self._budget = _Budget(settings.max_pending_bytes)
        html = files("serving.server").joinpath(PAGE).read_text(encoding="utf-8")
        self._page = html.replace("{{MODEL_NAME}}", json.dumps(settings.model_name).replace("<", "\\u003c"))

    async def page(self, request: Request) -> Response:
        headers = {"Content-Security-Policy": _PAGE_POLICY, "X-Content-Type-Options": "nosniff"}
        return Response(self._page, media_type="text/html", headers=headers)

    async def metrics(self, request: Request) -> Response:
        return Response(self._service.metrics.page(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def api(self, request: Request) -> Response:
        path = request.scope["path"]
        if not path.lower().startswith("/v1/"):
            return JSONResponse({"error": f"Not found: {path}"}, status_code=404)
        if request.method == "POST" and (asked := _METHOD.fullmatch(path)):
            return await self._run(request, asked)
        if request.method == "GET" and (asked := _STATUS.fullmatch(path)):
            version = _version(asked)
            if asked["metadata"]:
                return JSONResponse(self._metadata(asked["name"], version))
            states = self._service.host.states(asked["name"], version)
            return JSONResponse({"model_version_status": [_state_json(state) for state in states]})
        raise invalid_argument(f"Malformed request: {request.method} {path}")

    async def _run(self, request: Request, asked: re.Match[str]) -> Response:
        if asked["method"].lower() != "predict":
            raise ServingError(Status.UNIMPLEMENTED, f"{asked['method']} is not implemented by this server")
        version = _version(asked)
        timeout_s = self._settings.request_timeout_s
        try:
            with anyio.fail_after(timeout_s), self._budget.share() as share:
                body = await _body(request, self._settings.max_body_bytes, share)
                answer = await self._in_a_thread(asked["name"], version, body)
        except TimeoutError:
            raise ServingError(Status.DEADLINE_EXCEEDED, f"no answer within {timeout_s:g} s") from None
        return Response(answer, media_type="application/json")

    async def _in_a_thread(self, name: str, version: int | None, body: bytes) -> bytes:
        if not self._places.acquire(blocking=False):
            raise ServingError(Status.UNAVAILABLE, "too many requests are waiting already")
        future = self._threads.submit(self._predict, name, version, body)
        # Not before the thread is done with it, also where nobody waits for the answer any more.
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)

    def _predict(self, name: str, version: int | None, body: bytes) -> bytes:
        def answer(served: ServedVersion) -> bytes:
            asked, form = request_from_json(body, served.predictor.signature)
            return answer_to_json(self._service.run(served, asked), form)

        return self._service.predict(name, version, answer, api="REST")

    def _metadata(self, name: str, version: int | None) -> dict[str, Any]:
        with self._service.host.lease(name, version) as served:
            signatures = json_format.MessageToDict(
                signature_def_map(served), preserving_proto_field_name=True, **{_PRINT_DEFAULTS: True}
            )
            spec = {"name": name, "signature_name": "", "version": str(served.number)}
        return {"model_spec": spec, "metadata": {"signature_def": signatures}}


class _Budget:
    """How many bytes of bodies are held at once; used by the event loop's thread only."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """A function that takes bytes, given back at the end; it raises UNAVAILABLE where none are left."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self._held + size > self._max_bytes:
                raise ServingError(Status.UNAVAILABLE, "the bodies of other requests fill the server's memory")
            self._held += size
            taken += size

        try:
            yield take
        finally:
            self._held -= taken


async def _body(request: Request, max_bytes: int, take: Callable[[int], None]) -> bytes:
    """The request's body; stops reading as soon as it is known to be too large."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise BodyTooLargeError
    chunks, total = [], 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > max_bytes:
            raise BodyTooLargeError
        take(len(chunk))
        chunks.append(chunk)
    return b"".join(chunks)


def _version(asked: re.Match[str]) -> int | None:
    if asked["label"] is not None:
        label = asked["label"]
        raise ServingError(Status.FAILED_PRECONDITION, f"Unrecognized servable version label: {label}")
    if asked["version"] is None:
        return None
    if len(asked["version"]) > 18:
        raise invalid_argument(f"Failed to convert version: {asked['version']} to numeric.")
    return int(asked["version"])


def _state_json(state: VersionState) -> dict[str, Any]:
    code = error_codes_pb2.Code.Name(state.error_code)
    status = {"error_code": code, "error_message": state.error_message}
    return {"version": str(state.version), "state": state.state, "status": status}


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    return JSONResponse({"error": error.message}, status_code=error.status.http_status)


async def _http_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


async def _body_too_large(request: Request, error: Exception) -> Response:
    # Closing is what stops a client that goes on sending.
    return JSONResponse({"error": "Request body is too large"}, status_code=413, headers={"Connection": "close"})


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it
