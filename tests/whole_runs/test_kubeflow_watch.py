"""`submit --watch` against a server whose runs are rehearsals: the real package, from submission to the refusal."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from command_line import autoencoder
from kubeflow_server import StubServer, kubeflow_server, run_document
from repository import REPOSITORY

from pipeline.kubeflow.simulator.rehearsal import Rehearsal, TaskOutcome
from pipeline.kubeflow.specification import load_package
from runtime.object_store import REHEARSAL_STORE_VARIABLE

IMAGE = "registry.example/autoencoder@sha256:" + "4f" * 32
STATES = {"ran": "SUCCEEDED", "cached": "CACHED", "failed": "FAILED"}


class _Cluster:
    """Runs each submitted package as a rehearsal, and tells the server how far it is."""

    def __init__(self, stub: StubServer, package: Path, folder: Path) -> None:
        self._stub, self._package, self._folder = stub, package, folder
        stub.start = self.start

    def start(self, body: dict[str, Any]) -> str:
        variables = {REHEARSAL_STORE_VARIABLE: str(self._folder / "store")}
        parameters = body["runtime_config"]["parameters"]
        rehearsal = Rehearsal(self._package, self._folder, parameters, variables)
        ended: list[TaskOutcome] = []

        def tell(state: str) -> None:
            tasks = [(outcome.name, STATES[outcome.state]) for outcome in ended]
            document = run_document(rehearsal.run_id, load_package(self._package), tasks, state)
            self._stub.runs[rehearsal.run_id] = [document]

        def listen(outcome: TaskOutcome) -> None:
            [log] = (
                (self._folder / "logs").glob(f"{rehearsal.run_id}-{outcome.name}-*.log")
                if outcome.attempts or (outcome.error)
                else [None]
            )
            if log:
                self._stub.logs[f"{rehearsal.run_id}-system-container-impl-{len(ended)}00"] = log.read_text()
            ended.append(outcome)
            tell("RUNNING")

        def run() -> None:
            outcomes = rehearsal.run(listen)
            tell("FAILED" if any(outcome.error for outcome in outcomes) else "SUCCEEDED")

        tell("PENDING")
        threading.Thread(target=run, daemon=True).start()
        return rehearsal.run_id


@pytest.mark.slow
def test_a_run_is_followed_to_its_refusal_and_its_report_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, folder = tmp_path / "pipeline.yaml", tmp_path / "cluster"
    (folder / "store").mkdir(parents=True)
    config = REPOSITORY / "configs" / "digits.yaml"
    fixed = ["--image", IMAGE, "--root", "s3://bucket/prefix", "-o", package, "--set", "trainer.epochs=2"]
    impossible = ["--set", "evaluation.thresholds=[{metric: mean_error, max: 0.0001}]"]
    status, _, error = autoencoder("compile", config, *fixed, *impossible)
    assert status == 0, error
    monkeypatch.setenv(REHEARSAL_STORE_VARIABLE, str(folder / "store"))
    with kubeflow_server() as stub:
        _Cluster(stub, package, folder)
        where = ["--host", stub.host]
        always = ["--experiment", "digits", "--param", "fail_when_refused=always", "--watch"]
        status, printed, error = autoencoder("submit", package, *where, *always)
        assert status == 3, printed + error
        lines = printed.splitlines()
        assert [line.split()[1] for line in lines[1:-1]] == ["ran"] * 14 + ["failed"]
        assert lines[-1].startswith("the run ended: FAILED; refused: mean_error over all images is")
        assert "above the bound 0.0001" in error

        [(run_id, _)] = stub.runs.items()
        status, printed, error = autoencoder("runs", *where, "--json")
        assert status == 0, error
        [listed] = json.loads(printed)["digits"]
        assert (listed["verdict"], listed["failed_in"], listed["pushed"]) == ("refused", None, None)
        assert listed["mean_error"] > 0.0001

        status, printed, error = autoencoder("report", *where, run_id, cwd=tmp_path)
        assert status == 0, error
        assert (tmp_path / printed.strip()).read_text().startswith("<!doctype html>")
