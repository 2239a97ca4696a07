"""The last two tasks of a run: the verdict's summary, and the failure that turns a run red."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.kubeflow.names import STAGING_ROOT_VARIABLE
from pipeline.kubeflow.pods import fail_when_refused, verdict

PASSED = {"metric": "mean_error", "passed": True, "reason": None}
FAILED = {"metric": "mean_error", "passed": False, "reason": "mean_error over all images is 0.04, above the bound 0.02"}


def _gate(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"blessed": all(row["passed"] for row in rows), "metrics": {"mean_error": 0.04}, "thresholds": list(rows)}


def test_a_blessed_model_has_its_metrics_and_the_place_that_it_was_pushed_to() -> None:
    summary = verdict.summary_of(_gate(PASSED, PASSED), {"pushed_destination": "s3://bucket/serving/7", "pushed": 1.0})
    assert (summary["verdict"], summary["explanation"]) == ("blessed", "the model meets all 2 bounds")
    assert (summary["metrics"], summary["pushed"]) == ({"mean_error": 0.04}, "s3://bucket/serving/7")


def test_a_refused_model_has_every_reason() -> None:
    summary = verdict.summary_of(_gate(PASSED, FAILED, FAILED), {})
    assert (summary["verdict"], summary["pushed"]) == ("refused", None)
    assert summary["explanation"] == f"{FAILED['reason']}; {FAILED['reason']}"


def test_the_task_writes_two_files_and_two_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STAGING_ROOT_VARIABLE, str(tmp_path))
    inputs = {"evaluation": ("gate.json", json.dumps(_gate(FAILED))), "report": ("report.html", "<html>page</html>")}
    for key, (name, content) in inputs.items():
        (tmp_path / "s3/bucket" / key).mkdir(parents=True)
        (tmp_path / "s3/bucket" / key / name).write_text(content)
    keys = {"inputs": ("evaluation", "report", "pushed_model"), "outputs": ("summary", "page", "executor-logs")}
    given: dict[str, Any] = {
        side: {"artifacts": {key: {"artifacts": [{"uri": f"s3://bucket/{key}"}]} for key in of_side}}
        for side, of_side in keys.items()
    }
    given["outputs"]["parameters"] = {name: {"outputFile": str(tmp_path / name)} for name in ("verdict", "explanation")}
    result = CliRunner().invoke(verdict.main, ["--executor-input", json.dumps(given)])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "s3/bucket/summary").read_text())["verdict"] == "refused"
    assert (tmp_path / "s3/bucket/page").read_text() == "<html>page</html>"
    assert (tmp_path / "verdict").read_text() == "refused"
    assert (tmp_path / "explanation").read_text() == FAILED["reason"]
    assert result.output == f"refused: {FAILED['reason']}\n"


@pytest.mark.parametrize(
    ("when", "given", "status"),
    [
        ("always", "refused", 1),
        ("always", "blessed", 0),
        ("schedules", "refused", 0),
        ("never", "refused", 0),
    ],
)
def test_only_a_refused_model_fails_and_only_if_it_should(when: str, given: str, status: int) -> None:
    arguments = ["--when", when, "--verdict", given, "--explanation", "too high"]
    result = CliRunner().invoke(fail_when_refused.main, arguments)
    assert result.exit_code == status
    assert f"{given}: too high" in result.output
