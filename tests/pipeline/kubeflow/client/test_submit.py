"""Submission through the real kfp.Client; this tests the requests, not Kubeflow's server."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from kubeflow_server import StubServer, posted

from pipeline.commands.submit import submit
from pipeline.kubeflow.client.server import Server

TOKEN = "a-very-secret-token"
COOKIES = "authservice_session=a-very-secret-session"


def _submit(stub: StubServer, package: Path, *arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(
        submit, [str(package), "--host", stub.host, "--experiment", "digits", *arguments]
    )


def test_a_run_contains_both_documents_and_typed_parameters(stub: StubServer, package: Path) -> None:
    result = _submit(stub, package, "--name", "first", "--param", "epochs=20", "--service-account", "trainer")
    assert result.exit_code == 0, result.output
    body = posted(stub, "runs")
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
        (["--param", "epoch=20"], "--param epoch: the package has no such parameter; it has: epochs"),
        (["--param", "epochs=many"], "--param epochs=many: must be of type NUMBER_INTEGER"),
        (["--param", "epochs"], "must look like epochs=20"),
    ],
)
def test_a_wrong_parameter_is_refused_before_any_request(
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


def test_a_servers_representation_leaves_out_its_secrets() -> None:
    server = Server("http://127.0.0.1:9", token=TOKEN, cookies=COOKIES)
    assert repr(server) == "Server(host='http://127.0.0.1:9', namespace=None)"


def test_a_refusal_is_reported_without_secrets(stub: StubServer, package: Path) -> None:
    stub.status = 403
    result = _submit(stub, package, "--namespace", "alice", KUBEFLOW_TOKEN=TOKEN)
    assert result.exit_code == 1
    assert "answered 403 Forbidden: set KUBEFLOW_TOKEN or KUBEFLOW_COOKIES" in result.output
    assert TOKEN not in result.output


def test_an_unreachable_server_is_reported(package: Path) -> None:
    gone = StubServer(host="http://127.0.0.1:9")
    result = _submit(gone, package, "--namespace", "alice")
    assert result.exit_code == 1
    assert "http://127.0.0.1:9 cannot be reached" in result.output


def test_an_unreadable_token_file_is_reported_before_any_request(stub: StubServer, package: Path) -> None:
    result = _submit(stub, package, "--token-file", "/no/such/token")
    assert result.exit_code == 2
    assert "/no/such/token: cannot be read: No such file or directory; or set KUBEFLOW_TOKEN instead" in result.output
    assert stub.requests == []
