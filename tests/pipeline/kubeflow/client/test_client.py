"""Submission and schedules with the real kfp.Client; the server holds each request to kfp's own models.

This proves the requests, not Kubeflow's server.
"""

import json
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kfp_server_api
import pytest
import yaml
from click.testing import CliRunner, Result

from pipeline.commands.schedule import schedule
from pipeline.commands.submit import submit

TOKEN = "a-very-secret-token"
COOKIES = "authservice_session=a-very-secret-session"
_MODELS = {
    "runs": kfp_server_api.V2beta1Run,
    "experiments": kfp_server_api.V2beta1Experiment,
    "recurringruns": kfp_server_api.V2beta1RecurringRun,
}


@dataclass
class StubServer:
    """What was asked of the server, and what it answers with."""

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
    """The body means the same to kfp_server_api's model: every field is known, and of the right type."""
    client = kfp_server_api.ApiClient()
    parsed = client.deserialize(SimpleNamespace(data=json.dumps(body)), model)
    rendered = client.sanitize_for_serialization(parsed)
    rendered["max_concurrency"] = body.get("max_concurrency")
    assert {k: v for k, v in rendered.items() if v is not None} == body


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StubServer]:
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
    for variable in ("KUBEFLOW_TOKEN", "KUBEFLOW_COOKIES", "KUBEFLOW_HOST"):
        monkeypatch.delenv(variable, raising=False)
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    spec = {
        "pipelineInfo": {"name": "small"},
        "schemaVersion": "2.1.0",
        "components": {},
        "deploymentSpec": {"executors": {}},
        "root": {
            "inputDefinitions": {"parameters": {"epochs": {"parameterType": "NUMBER_INTEGER", "defaultValue": 5}}},
            "dag": {"tasks": {}},
        },
    }
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"a": {"nodeSelector": {}}}}}}}
    path = tmp_path / "pipeline.yaml"
    path.write_text(yaml.safe_dump_all([spec, platform]), encoding="utf-8")
    return path


def _submit(stub: StubServer, package: Path, *arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(
        submit, [str(package), "--host", stub.host, "--experiment", "digits", *arguments]
    )


def _schedule(stub: StubServer, *arguments: str) -> Result:
    return CliRunner().invoke(schedule, ["--host", stub.host, *arguments])


def _posted(stub: StubServer, collection: str) -> Any:
    [body] = [body for method, path, body in stub.requests if (method, path.split("/")[-1]) == ("POST", collection)]
    return body


def _recurring_run(identifier: str, name: str) -> dict[str, Any]:
    return {
        "recurring_run_id": identifier,
        "display_name": name,
        "status": "ENABLED",
        "max_concurrency": "1",
        "trigger": {"cron_schedule": {"cron": "0 0 2 * * *"}},
    }


def test_a_run_carries_both_documents_and_typed_parameters(stub: StubServer, package: Path) -> None:
    result = _submit(stub, package, "--name", "first", "--param", "epochs=20", "--service-account", "trainer")
    assert result.exit_code == 0, result.output
    body = _posted(stub, "runs")
    assert body["display_name"] == "first"
    assert body["experiment_id"] == "experiments-1"
    assert body["service_account"] == "trainer"
    assert body["runtime_config"]["parameters"] == {"epochs": 20}
    assert body["pipeline_spec"]["pipeline_spec"]["schemaVersion"] == "2.1.0"
    assert "kubernetes" in body["pipeline_spec"]["platform_spec"]["platforms"]
    assert result.output.strip() == f"first: {stub.host}/#/runs/details/runs-1"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--param", "epoch=20"], "--param epoch: the package has epochs"),
        (["--param", "epochs=many"], "--param epochs=many: must be of type NUMBER_INTEGER"),
        (["--param", "epochs"], "must look like epochs=20"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_is_sent(
    stub: StubServer, package: Path, arguments: list[str], reason: str
) -> None:
    result = _submit(stub, package, *arguments)
    assert result.exit_code == 2
    assert reason in result.output
    assert stub.requests == []


def test_the_token_is_sent_and_never_printed(stub: StubServer, package: Path, tmp_path: Path) -> None:
    result = _submit(stub, package, KUBEFLOW_TOKEN=TOKEN)
    assert {headers["authorization"] for headers in stub.headers} == {f"Bearer {TOKEN}"}
    assert TOKEN not in result.output
    file = tmp_path / "cookies"
    file.write_text(COOKIES + "\n", encoding="utf-8")
    stub.headers.clear()
    result = _submit(stub, package, "--cookies-file", str(file))
    assert {headers["Cookie"] for headers in stub.headers} == {COOKIES}
    assert COOKIES not in result.output


def test_a_refusal_is_told_without_secrets(stub: StubServer, package: Path) -> None:
    stub.status = 403
    result = _submit(stub, package, "--namespace", "alice", KUBEFLOW_TOKEN=TOKEN)
    assert result.exit_code == 1
    assert "answered 403 Forbidden: set KUBEFLOW_TOKEN or KUBEFLOW_COOKIES" in result.output
    assert TOKEN not in result.output


def test_a_server_that_does_not_answer_is_named(package: Path) -> None:
    gone = StubServer(host="http://127.0.0.1:9")
    result = _submit(gone, package, "--namespace", "alice")
    assert result.exit_code == 1
    assert "http://127.0.0.1:9 cannot be reached" in result.output


def test_a_nightly_schedule_is_created_as_asked(stub: StubServer, package: Path) -> None:
    result = _schedule(
        stub,
        str(package),
        "--name",
        "nightly",
        "--cron",
        "0 0 2 * * *",
        "--max-concurrency",
        "1",
        "--no-catchup",
    )
    assert result.exit_code == 0, result.output
    body = _posted(stub, "recurringruns")
    assert body["display_name"] == "nightly"
    assert body["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * *"}}
    assert (body["max_concurrency"], body["no_catchup"], body["mode"]) == (1, True, "ENABLE")
    assert body["runtime_config"]["parameters"] == {}


def test_a_wrong_cron_is_refused_before_anything_is_sent(stub: StubServer, package: Path) -> None:
    result = _schedule(stub, str(package), "--name", "nightly", "--cron", "0 2 * * *")
    assert result.exit_code == 2
    assert "has five fields; Kubeflow's has six" in result.output
    assert stub.requests == []


def test_a_second_schedule_of_the_same_name_is_refused(stub: StubServer, package: Path) -> None:
    stub.schedules = [_recurring_run("r1", "nightly")]
    result = _schedule(stub, str(package), "--name", "nightly", "--cron", "@daily")
    assert result.exit_code == 2
    assert "a schedule called 'nightly' exists (r1)" in result.output


def test_schedules_are_listed(stub: StubServer) -> None:
    stub.schedules = [_recurring_run("r2", "weekly"), _recurring_run("r1", "nightly")]
    result = _schedule(stub, "--list", "--json")
    assert [(s["name"], s["cron"], s["enabled"], s["id"]) for s in json.loads(result.output)] == [
        ("nightly", "0 0 2 * * *", True, "r1"),
        ("weekly", "0 0 2 * * *", True, "r2"),
    ]


@pytest.mark.parametrize(
    ("option", "request_line"),
    [
        ("--pause", ("POST", "/apis/v2beta1/recurringruns/r1:disable")),
        ("--resume", ("POST", "/apis/v2beta1/recurringruns/r1:enable")),
        ("--delete", ("DELETE", "/apis/v2beta1/recurringruns/r1")),
    ],
)
def test_a_schedule_is_changed_by_its_name(stub: StubServer, option: str, request_line: tuple[str, str]) -> None:
    stub.schedules = [_recurring_run("r1", "nightly")]
    result = _schedule(stub, option, "nightly")
    assert result.exit_code == 0, result.output
    assert stub.requests[-1][:2] == request_line


def test_an_ambiguous_or_unknown_name_changes_nothing(stub: StubServer) -> None:
    stub.schedules = [_recurring_run("r1", "nightly"), _recurring_run("r2", "nightly")]
    result = _schedule(stub, "--delete", "nightly")
    assert result.exit_code == 2
    assert "name one by its id: r1, r2" in result.output
    result = _schedule(stub, "--delete", "weekly")
    assert "no schedule is called 'weekly'; there are: nightly, nightly" in result.output
    assert {method for method, *_ in stub.requests} == {"GET"}


@pytest.mark.parametrize("arguments", [[], ["--list", "--pause", "x"]])
def test_one_thing_at_a_time(stub: StubServer, arguments: list[str]) -> None:
    result = _schedule(stub, *arguments)
    assert result.exit_code == 2
    assert "give one of: a package, --list, --pause, --resume, --delete" in result.output
