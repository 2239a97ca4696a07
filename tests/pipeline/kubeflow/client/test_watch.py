"""Following a run through the real kfp.Client; this tests what we make of the server's answers, not the server."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from kubeflow_server import StubServer, run_document

from pipeline.commands.report import report
from pipeline.commands.runs import runs
from pipeline.commands.submit import submit
from pipeline.kubeflow.client import watch
from runtime import object_store

TASKS = ("data-version", "Trainer", "verdict", "fail-when-refused")
SPECIFICATION: dict[str, Any] = {
    "pipelineInfo": {"name": "small"},
    "defaultPipelineRoot": "s3://bucket/root",
    "root": {"dag": {"tasks": {name: {} for name in TASKS}}},
}
SUMMARY = {"verdict": "refused", "explanation": "mean_error is 0.04", "metrics": {"mean_error": 0.04}, "pushed": None}


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty object store."""
    folder = tmp_path / "store"
    folder.mkdir()
    monkeypatch.setenv(object_store.REHEARSAL_STORE_VARIABLE, str(folder))
    object_store.store.cache_clear()
    monkeypatch.setattr(watch, "_POLL_S", 0.0)
    monkeypatch.chdir(tmp_path)
    return folder


def _summarise(store: Path, run_id: str) -> None:
    folder = store / "bucket" / "root" / "small" / run_id / "verdict" / "salt"
    folder.mkdir(parents=True)
    (folder / "summary").write_text(json.dumps(SUMMARY))
    (folder / "page").write_text("<html>the report</html>")


def _watch(stub: StubServer, package: Path) -> Result:
    return CliRunner().invoke(submit, [str(package), "--host", stub.host, "--experiment", "digits", "--watch"])


def _answers(stub: StubServer, *answers: tuple[list[str], str]) -> None:
    """What the server answers, one after another: the states of the first tasks, and of the run."""
    stub.runs["runs-1"] = [
        run_document("runs-1", SPECIFICATION, zip(TASKS, states, strict=False), state) for states, state in answers
    ]


def test_each_task_is_printed_once_when_it_ends(stub: StubServer, package: Path) -> None:
    stub.logs["runs-1-system-container-impl-200"] = "starting\nblessed: the model meets all 2 bounds\n"
    _answers(
        stub,
        ([], "PENDING"),
        (["SUCCEEDED", "RUNNING"], "RUNNING"),
        (["SUCCEEDED", "CACHED"], "RUNNING"),
        (["SUCCEEDED", "CACHED", "SUCCEEDED", "SUCCEEDED"], "SUCCEEDED"),
    )
    result = _watch(stub, package)
    assert result.output.splitlines()[1:] == [
        "data-version             ran         2.5 s",
        "Trainer                  cached      2.5 s",
        "verdict                  ran         2.5 s",
        "fail-when-refused        ran         2.5 s",
        "the run ended: SUCCEEDED; blessed: the model meets all 2 bounds",
    ]
    assert result.exit_code == 0


def test_the_log_of_a_failed_task_is_printed(stub: StubServer, package: Path) -> None:
    stub.logs["runs-1-retry-system-container-impl-100"] = "".join(f"line {number}\n" for number in range(50))
    _answers(stub, (["SUCCEEDED", "FAILED"], "FAILED"))
    result = _watch(stub, package)
    assert result.exit_code == 1
    assert "Trainer                  failed" in result.output
    assert "  line 49" in result.output
    assert "  line 29" not in result.output
    assert "the run ended: FAILED" in result.output


def test_a_run_that_failed_because_the_model_was_refused_ends_with_3(stub: StubServer, package: Path) -> None:
    stub.logs["runs-1-system-container-impl-200"] = "refused: mean_error is 0.04\n"
    _answers(stub, (["SUCCEEDED", "SUCCEEDED", "SUCCEEDED", "FAILED"], "FAILED"))
    result = _watch(stub, package)
    assert result.exit_code == 3
    assert "the run ended: FAILED; refused: mean_error is 0.04" in result.output


def test_without_its_log_the_verdict_comes_from_the_object_store(stub: StubServer, package: Path, store: Path) -> None:
    _summarise(store, "runs-1")
    _answers(stub, (["SUCCEEDED"] * 4, "SUCCEEDED"))
    result = _watch(stub, package)
    assert result.exit_code == 3
    assert "the run ended: SUCCEEDED; refused: mean_error is 0.04" in result.output


def test_ctrl_c_leaves_the_run_going_and_says_so(
    stub: StubServer, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press_ctrl_c(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", press_ctrl_c)
    _answers(stub, ([], "RUNNING"))
    result = _watch(stub, package)
    assert result.exit_code == 130
    assert "stopped watching; run runs-1 continues" in result.output
    assert not [path for method, path, _ in stub.requests if ":terminate" in path]


def test_runs_on_a_cluster_are_listed_as_local_ones(stub: StubServer, store: Path) -> None:
    _summarise(store, "one")
    stub.runs = {
        "two": [run_document("two", SPECIFICATION, [("Trainer", "FAILED")], "FAILED")],
        "one": [run_document("one", SPECIFICATION, [("Trainer", "SUCCEEDED")], "SUCCEEDED")],
    }
    result = CliRunner().invoke(runs, ["--host", stub.host, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)["small"]
    assert [(r["run_id"], r["verdict"], r["mean_error"], r["failed_in"], r["seconds"]) for r in found] == [
        ("two", "incomplete", None, "Trainer", 60.0),
        ("one", "refused", 0.04, None, 60.0),
    ]


def test_the_report_of_a_run_on_a_cluster_is_downloaded(stub: StubServer, store: Path, tmp_path: Path) -> None:
    _summarise(store, "one")
    stub.runs = {"one": [run_document("one", SPECIFICATION, [], "SUCCEEDED")]}
    result = CliRunner().invoke(report, ["--host", stub.host, "one"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / result.output.strip()).read_text() == "<html>the report</html>"


def test_a_run_without_a_report_is_reported(stub: StubServer) -> None:
    stub.runs = {"one": [run_document("one", SPECIFICATION, [], "RUNNING")]}
    result = CliRunner().invoke(report, ["--host", stub.host, "one"])
    assert result.exit_code == 1
    assert "run one has no report in s3://bucket/root/small/one/verdict" in result.output
