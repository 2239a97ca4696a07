"""A stand-in for Kubeflow Pipelines' API server that validates each request with kfp's own models."""

import json
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
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
    runs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Run's id -> what the server answers, one after another; the last one stays."""
    logs: dict[str, str] = field(default_factory=dict)
    """Pod's name -> its log."""
    start: Callable[[dict[str, Any]], str] | None = None
    """Starts a submitted run, and returns its id."""
    status: int = 200

    def answer(self, method: str, path: str, body: Any) -> dict[str, Any] | str | None:
        collection, _, rest = path.removeprefix("/apis/v2beta1/").partition("/")
        if path.startswith("/apis/v1alpha1/runs/"):
            return self.logs.get(path.split("/")[-2])
        if method == "GET" and collection == "runs":
            return self._run(rest) if rest else {"runs": [answers[-1] for answers in self.runs.values()]}
        if collection == "healthz":
            return {"multi_user": False}
        if method == "POST" and not rest:
            _require_known_fields(body, _MODELS[collection])
            identifier = {
                "runs": "run_id",
                "experiments": "experiment_id",
                "recurringruns": "recurring_run_id",
            }
            started = self.start(body) if collection == "runs" and self.start else f"{collection}-1"
            return {**body, identifier[collection]: started}
        if method == "GET" and collection == "recurringruns":
            return {"recurringRuns": self.schedules}
        return {} if method != "GET" or collection == "experiments" else None

    def _run(self, run_id: str) -> dict[str, Any] | None:
        answers = self.runs.get(run_id)
        if not answers:
            return None
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        _require_known_fields(answer, kfp_server_api.V2beta1Run)
        return answer


def run_document(
    run_id: str, specification: dict[str, Any], tasks: Iterable[tuple[str, str]], state: str
) -> dict[str, Any]:
    """A run as Kubeflow's server describes it: one entry for each of Argo's nodes.

    `tasks`: (name, its state), where the state CACHED is ours. Each has a driver, and a pod below that a cached task
    skips; each task took 2.5 seconds.
    """
    time = "2026-01-01T00:00:{:02d}.{}Z"
    details = []
    for number, (name, of_task) in enumerate(tasks):
        times = {"start_time": time.format(number, "000000"), "end_time": time.format(number + 2, "500000")}
        pod = f"{run_id}-{number}00"
        skipped = of_task == "CACHED"
        ended = "SUCCEEDED" if skipped else of_task
        child = {"pod_name": pod}
        details += [
            {"display_name": f"{name}-driver", "state": "SUCCEEDED", "pod_name": f"{run_id}-{number}01", **times},
            {"display_name": name, "state": ended, "pod_name": f"{run_id}-{number}02", "child_tasks": [child], **times},
            {"display_name": "executor", "state": "SKIPPED" if skipped else of_task, "pod_name": pod, **times},
        ]
    return {
        "run_id": run_id,
        "display_name": run_id,
        "pipeline_spec": {"pipeline_spec": specification},
        "created_at": "2026-01-01T00:00:00Z",
        "finished_at": "2026-01-01T00:01:00Z",
        "state": state,
        "run_details": {"task_details": details},
    }


def _require_known_fields(body: dict[str, Any], model: Any) -> None:
    """Fail unless kfp_server_api's model knows every field of the body, with the right type."""
    client = kfp_server_api.ApiClient()
    parsed = client.deserialize(SimpleNamespace(data=json.dumps(body)), model)
    rendered = client.sanitize_for_serialization(parsed)
    rendered["max_concurrency"] = body.get("max_concurrency")
    if model is not kfp_server_api.V2beta1Run or "run_details" not in body:  # whose times are written in another form
        assert {k: v for k, v in rendered.items() if v is not None} == body
    else:
        known = kfp_server_api.V2beta1PipelineTaskDetail.openapi_types
        assert all(detail.keys() <= known.keys() for detail in body["run_details"]["task_details"])


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
            status: int = state.status
            answer: dict[str, Any] | str | None = {}
            if status == 200:
                try:
                    answer = state.answer(self.command, url.path, body)
                except (AssertionError, ValueError) as error:
                    status, answer = 400, {"error": str(error)}
            if answer is None:
                status, answer = 404, {"error": "not found"}
            content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
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
