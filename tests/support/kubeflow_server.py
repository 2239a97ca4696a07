"""A stand-in for Kubeflow Pipelines' API server that validates each request with kfp's own models."""

import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import kfp_server_api

_MODELS = {
    "runs": kfp_server_api.V2beta1Run,
    "experiments": kfp_server_api.V2beta1Experiment,
    "recurringruns": kfp_server_api.V2beta1RecurringRun,
}


@dataclass
class StubServer:
    """The requests that the server received, and what it answers."""

    host: str = ""
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    schedules: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200

    def answer(self, method: str, path: str, body: Any) -> dict[str, Any]:
        collection, _, rest = path.removeprefix("/apis/v2beta1/").partition("/")
        if collection == "healthz":
            return {"multi_user": False}
        if method == "POST" and not rest:
            _require_known_fields(body, _MODELS[collection])
            identifier = {
                "runs": "run_id",
                "experiments": "experiment_id",
                "recurringruns": "recurring_run_id",
            }
            return {**body, identifier[collection]: f"{collection}-1"}
        if method == "GET" and collection == "recurringruns":
            return {"recurringRuns": self.schedules}
        return {}


def _require_known_fields(body: dict[str, Any], model: Any) -> None:
    """Fail unless kfp_server_api's model knows every field of the body, with the right type."""
    client = kfp_server_api.ApiClient()
    parsed = client.deserialize(SimpleNamespace(data=json.dumps(body)), model)
    rendered = client.sanitize_for_serialization(parsed)
    rendered["max_concurrency"] = body.get("max_concurrency")
    assert {k: v for k, v in rendered.items() if v is not None} == body


@contextmanager
def kubeflow_server() -> Iterator[StubServer]:
    """A running server."""
    state = StubServer()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            url = urllib.parse.urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            state.requests.append((self.command, url.path, body))
            state.headers.append(dict(self.headers))
            status, answer = state.status, {}
            if status == 200:
                try:
                    answer = state.answer(self.command, url.path, body)
                except (AssertionError, ValueError) as error:
                    status, answer = 400, {"error": str(error)}
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - http.server's names

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    state.host = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def posted(stub: StubServer, collection: str) -> Any:
    """The body of the only POST request to a collection."""
    [body] = [body for method, path, body in stub.requests if (method, path.split("/")[-1]) == ("POST", collection)]
    return body
