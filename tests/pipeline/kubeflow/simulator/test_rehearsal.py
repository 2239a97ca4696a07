"""The rehearsal: small packages of real commands, played as Kubeflow's driver and launcher would."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.kubeflow.simulator.driver import NotPlayedError, Records, RefusedError, remembered
from pipeline.kubeflow.simulator.rehearsal import TaskOutcome, load_package, open_rehearsal, ordered_tasks
from runtime.object_store import REHEARSAL_STORE_VARIABLE

WRITE = """
import json, os, pathlib, sys
given = json.loads(sys.argv[1])
[artifact] = given["outputs"]["artifacts"]["data"]["artifacts"]
folder = pathlib.Path(os.environ["KUBEFLOW_STAGING_ROOT"], artifact["uri"].replace("s3://", "s3/"))
folder.mkdir(parents=True)
(folder / "value.txt").write_text(sys.argv[2])
output = pathlib.Path(given["outputs"]["outputFile"])
output.parent.mkdir(parents=True, exist_ok=True)
metadata = {"rows": 3, "known": True, "names": ["a"]}
output.write_text(json.dumps({"artifacts": {"data": {"artifacts": [{"metadata": metadata}]}}}))
"""
READ = """
import json, os, pathlib, sys
given = json.loads(sys.argv[1])
[artifact] = given["inputs"]["artifacts"]["data"]["artifacts"]
folder = pathlib.Path(os.environ["KUBEFLOW_STAGING_ROOT"], artifact["uri"].replace("s3://", "s3/"))
text = (folder / "value.txt").read_text()
answer = {"type": artifact["type"], "metadata": artifact["metadata"], "text": text}
output = pathlib.Path(given["outputs"]["parameters"]["answer"]["outputFile"])
output.write_text(json.dumps(answer))
"""


def _package() -> dict[str, Any]:
    """`write` makes an artifact from the parameter `text`; `read` reports what arrives of it."""
    data = {"data": {"artifactType": {"instanceSchema": "title: tfx.Examples\n"}}}
    text = {"text": {"parameterType": "STRING"}}
    return {
        "pipelineInfo": {"name": "small"},
        "schemaVersion": "2.1.0",
        "defaultPipelineRoot": "s3://bucket/root",
        "components": {
            "write": {
                "executorLabel": "write",
                "inputDefinitions": {"parameters": text},
                "outputDefinitions": {"artifacts": data},
            },
            "read": {
                "executorLabel": "read",
                "inputDefinitions": {"artifacts": data},
                "outputDefinitions": {"parameters": {"answer": {"parameterType": "STRING"}}},
            },
        },
        "deploymentSpec": {
            "executors": {
                "write": {"container": _container(WRITE, "{{$}}", "{{$.inputs.parameters['text']}}")},
                "read": {"container": _container(READ, "{{$}}")},
            }
        },
        "root": {
            "inputDefinitions": {"parameters": {"text": {"parameterType": "STRING", "defaultValue": "one"}}},
            "dag": {
                "tasks": {
                    "read": _task(
                        "read",
                        {
                            "artifacts": {
                                "data": {
                                    "taskOutputArtifact": {
                                        "producerTask": "write",
                                        "outputArtifactKey": "data",
                                    }
                                }
                            }
                        },
                        ["write"],
                    ),
                    "write": _task("write", {"parameters": {"text": {"componentInputParameter": "text"}}}, []),
                }
            },
        },
    }


def _container(code: str, *arguments: str) -> dict[str, Any]:
    return {"image": "image", "command": ["python", "-c", code], "args": list(arguments)}


def _task(name: str, inputs: dict[str, Any], dependent_tasks: list[str]) -> dict[str, Any]:
    return {
        "taskInfo": {"name": name},
        "componentRef": {"name": name},
        "cachingOptions": {"enableCache": True},
        "inputs": inputs,
        "dependentTasks": dependent_tasks,
    }


def _write(package: dict[str, Any], folder: Path) -> Path:
    path = folder / "package.yaml"
    path.write_text(yaml.safe_dump(package), encoding="utf-8")
    return path


def _play(package: dict[str, Any], folder: Path, **parameters: str) -> list[TaskOutcome]:
    store = folder / "store"
    store.mkdir(exist_ok=True)
    variables = {REHEARSAL_STORE_VARIABLE: str(store)}
    rehearsal = open_rehearsal(_write(package, folder), folder / "rehearsal", parameters, variables)
    return rehearsal.play(lambda outcome: None)


def _states(outcomes: list[TaskOutcome]) -> dict[str, str]:
    return {outcome.name: outcome.state for outcome in outcomes}


def _last_answer(folder: Path) -> dict[str, Any]:
    cache = Records.load(folder / "rehearsal" / "records.json").cache
    answers = [entry["parameters"]["answer"] for entry in cache.values() if entry["parameters"]]
    answer: dict[str, Any] = json.loads(answers[-1])
    return answer


def test_artifacts_travel_through_the_store_to_the_next_pod(tmp_path: Path) -> None:
    assert _states(_play(_package(), tmp_path)) == {"write": "ran", "read": "ran"}
    assert _last_answer(tmp_path)["text"] == "one"
    assert list((tmp_path / "store").rglob("value.txt"))
    assert not list((tmp_path / "rehearsal" / "pods").iterdir())


def test_types_get_lost_as_the_real_driver_loses_them(tmp_path: Path) -> None:
    _play(_package(), tmp_path)
    answer = _last_answer(tmp_path)
    assert answer["type"] == {"instanceSchema": ""}
    assert answer["metadata"] == {
        "rows": 3.0,
        "known": 1.0,
        "names": {"list": ["a"]},
        "display_name": "data",
        "store_session_info": "{}",
    }


def test_a_second_rehearsal_is_all_cached(tmp_path: Path) -> None:
    _play(_package(), tmp_path)
    assert _states(_play(_package(), tmp_path)) == {"write": "cached", "read": "cached"}


def test_a_changed_parameter_reruns_what_follows(tmp_path: Path) -> None:
    _play(_package(), tmp_path)
    assert _states(_play(_package(), tmp_path, text="two")) == {"write": "ran", "read": "ran"}
    assert _last_answer(tmp_path)["text"] == "two"


def test_a_changed_command_reruns_nothing_before_it(tmp_path: Path) -> None:
    _play(_package(), tmp_path)
    package = _package()
    package["deploymentSpec"]["executors"]["read"]["container"]["args"].append("more")
    assert _states(_play(package, tmp_path)) == {"write": "cached", "read": "ran"}


def test_a_task_without_caching_runs_every_time(tmp_path: Path) -> None:
    package = _package()
    del package["root"]["dag"]["tasks"]["write"]["cachingOptions"]
    _play(package, tmp_path)
    assert _states(_play(package, tmp_path)) == {"write": "ran", "read": "ran"}


def test_a_failing_pod_is_tried_again_in_an_empty_folder(tmp_path: Path) -> None:
    marker = tmp_path / "failed-once"
    fail_once = f"""
import pathlib
assert not list(pathlib.Path.cwd().glob("left-behind"))
pathlib.Path("left-behind").touch()
marker = pathlib.Path({str(marker)!r})
if not marker.exists():
    marker.touch()
    raise SystemExit("the node went away")
"""
    package = _package()
    package["deploymentSpec"]["executors"]["write"]["container"]["command"][2] = fail_once + WRITE
    package["root"]["dag"]["tasks"]["write"]["retryPolicy"] = {"maxRetryCount": 1}
    outcomes = _play(package, tmp_path)
    assert _states(outcomes) == {"write": "ran", "read": "ran"}
    assert outcomes[0].attempts == 2


def test_after_a_failure_the_rest_is_skipped_and_the_log_quoted(tmp_path: Path) -> None:
    package = _package()
    package["deploymentSpec"]["executors"]["write"]["container"]["command"][2] = "raise SystemExit('no disk')"
    outcomes = _play(package, tmp_path)
    assert _states(outcomes) == {"write": "failed", "read": "skipped"}
    assert outcomes[0].error is not None
    assert "no disk" in outcomes[0].error


def test_a_pod_sees_the_packages_variables_and_little_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THIS_MACHINE", "1")
    look = "import os\nassert 'OF_THIS_MACHINE' not in os.environ\nassert os.environ['OF_THE_PACKAGE'] == '2'\n"
    package = _package()
    container = package["deploymentSpec"]["executors"]["write"]["container"]
    container["command"][2] = look + WRITE
    container["env"] = [{"name": "OF_THE_PACKAGE", "value": "2"}]
    assert _states(_play(package, tmp_path))["write"] == "ran"


def test_a_null_property_fails_as_in_kubeflows_launcher() -> None:
    with pytest.raises(RefusedError, match="property 'x' is null"):
        remembered("x", None)


def test_tasks_come_after_those_they_wait_for() -> None:
    assert ordered_tasks(_package()) == ["write", "read"]


def _wrong(change: str) -> dict[str, Any]:
    package = _package()
    tasks = package["root"]["dag"]["tasks"]
    if change == "version":
        package["schemaVersion"] = "2.0.0"
    elif change == "waits":
        tasks["read"]["dependentTasks"] = []
    elif change == "producer":
        tasks["read"]["inputs"]["artifacts"]["data"]["taskOutputArtifact"]["producerTask"] = "write_task"
    elif change == "name":
        tasks["re_ad"] = tasks.pop("read")
    elif change == "resolver":
        package["deploymentSpec"]["executors"]["read"] = {"resolver": {}}
    elif change == "field":
        tasks["read"]["cachingOption"] = {}
    return package


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("version", "schemaVersion '2.0.0': Kubeflow Pipelines 2 takes 2.1.0 only"),
        ("waits", "task 'read' reads from 'write' but would not wait for it"),
        ("producer", "task 'read' reads from 'write_task', and there is no such task"),
        ("name", "task 're_ad': Argo allows letters, digits and hyphens only"),
        ("resolver", "task 'read' is a resolver, not a container"),
        ("field", 'no field named "cachingOption"'),
    ],
)
def test_what_kubeflow_would_refuse_is_refused(tmp_path: Path, change: str, reason: str) -> None:
    with pytest.raises(RefusedError) as caught:
        load_package(_write(_wrong(change), tmp_path))
    assert reason in str(caught.value)


def test_what_only_a_cluster_can_show_is_said(tmp_path: Path) -> None:
    package = _package()
    package["root"]["dag"]["tasks"]["read"]["triggerPolicy"] = {"condition": "1 == 1"}
    with pytest.raises(NotPlayedError, match="has a condition or a loop"):
        _play(package, tmp_path)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"texts": "x"}, "--param texts: the package has text"),
        ({"count": "many"}, "must be of type NUMBER_INTEGER"),
    ],
)
def test_a_wrong_parameter_is_refused(tmp_path: Path, parameters: dict[str, str], reason: str) -> None:
    package = _package()
    definitions = package["root"]["inputDefinitions"]["parameters"]
    if "count" in parameters:
        definitions["count"] = {"parameterType": "NUMBER_INTEGER", "defaultValue": 1}
    with pytest.raises(RefusedError, match=reason):
        _play(package, tmp_path, **parameters)
