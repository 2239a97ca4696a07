"""The simulator runs small packages of real commands as Kubeflow's driver and launcher would."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_package import WRITE, small_package, write_package

from pipeline.kubeflow.simulator.driver import NotSimulatedError, Records, recorded_property
from pipeline.kubeflow.simulator.rehearsal import Rehearsal, TaskOutcome, ordered_tasks
from pipeline.kubeflow.specification import RefusedError
from runtime.object_store import REHEARSAL_STORE_VARIABLE


def _rehearse(
    package: dict[str, Any], folder: Path, *platform: dict[str, Any], retry_policy: str = "OnError", **parameters: str
) -> list[TaskOutcome]:
    store = folder / "store"
    store.mkdir(exist_ok=True)
    variables = {REHEARSAL_STORE_VARIABLE: str(store)}
    path = write_package(package, folder, *platform)
    rehearsal = Rehearsal(path, folder / "rehearsal", parameters, variables, retry_policy=retry_policy)
    return rehearsal.run(lambda outcome: None)


def _states(outcomes: list[TaskOutcome]) -> dict[str, str]:
    return {outcome.name: outcome.state for outcome in outcomes}


def _last_answer(folder: Path) -> dict[str, Any]:
    cache = Records(folder / "rehearsal" / "records.json").cache
    answers = [entry["parameters"]["answer"] for entry in cache.values() if entry["parameters"]]
    answer: dict[str, Any] = json.loads(answers[-1])
    return answer


def test_artifacts_travel_through_the_store_to_the_next_pod(tmp_path: Path) -> None:
    assert _states(_rehearse(small_package(), tmp_path)) == {"write": "ran", "read": "ran"}
    assert _last_answer(tmp_path)["text"] == "one"
    assert list((tmp_path / "store").rglob("value.txt"))
    assert not list((tmp_path / "rehearsal" / "pods").iterdir())


def test_artifact_types_are_lost_as_in_the_real_driver(tmp_path: Path) -> None:
    _rehearse(small_package(), tmp_path)
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
    _rehearse(small_package(), tmp_path)
    assert _states(_rehearse(small_package(), tmp_path)) == {"write": "cached", "read": "cached"}


def test_a_changed_parameter_reruns_the_following_tasks(tmp_path: Path) -> None:
    _rehearse(small_package(), tmp_path)
    assert _states(_rehearse(small_package(), tmp_path, text="two")) == {"write": "ran", "read": "ran"}
    assert _last_answer(tmp_path)["text"] == "two"


def test_a_changed_command_does_not_rerun_earlier_tasks(tmp_path: Path) -> None:
    _rehearse(small_package(), tmp_path)
    package = small_package()
    package["deploymentSpec"]["executors"]["read"]["container"]["args"].append("more")
    assert _states(_rehearse(package, tmp_path)) == {"write": "cached", "read": "ran"}


def test_a_task_without_caching_runs_every_time(tmp_path: Path) -> None:
    package = small_package()
    del package["root"]["dag"]["tasks"]["write"]["cachingOptions"]
    _rehearse(package, tmp_path)
    assert _states(_rehearse(package, tmp_path)) == {"write": "ran", "read": "ran"}


def test_changed_variables_rerun_nothing(tmp_path: Path) -> None:
    _rehearse(small_package(), tmp_path)
    package = small_package()
    package["deploymentSpec"]["executors"]["write"]["container"]["env"] = [{"name": "A", "value": "2"}]
    assert _states(_rehearse(package, tmp_path)) == {"write": "cached", "read": "cached"}


def test_another_claim_reruns_the_task_that_mounts_it(tmp_path: Path) -> None:
    def states(claim: str, path: str) -> dict[str, str]:
        mount = {"pvcMount": [{"constant": claim, "mountPath": path}]}
        platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"write": mount}}}}}
        return _states(_rehearse(small_package(), tmp_path, platform))

    assert states("images", "/data") == {"write": "ran", "read": "ran"}
    assert states("images", "/elsewhere") == {"write": "cached", "read": "cached"}
    assert states("other-images", "/data")["write"] == "ran"


def test_another_pipeline_shares_no_cache(tmp_path: Path) -> None:
    _rehearse(small_package(), tmp_path)
    package = small_package()
    package["pipelineInfo"]["name"] = "other"
    assert _states(_rehearse(package, tmp_path)) == {"write": "ran", "read": "ran"}


def test_each_pods_log_is_an_output_that_the_launcher_already_wrote(tmp_path: Path) -> None:
    look = """
import json, os, pathlib, sys
[log] = json.loads(sys.argv[1])["outputs"]["artifacts"]["executor-logs"]["artifacts"]
path = pathlib.Path(os.environ["KUBEFLOW_STAGING_ROOT"], log["uri"].replace("s3://", "s3/"))
assert path.is_file() and path.name == "executor-logs-0", path
print("a line of the log", flush=True)
"""
    package = small_package()
    package["deploymentSpec"]["executors"]["write"]["container"]["command"][2] = look + WRITE
    assert _states(_rehearse(package, tmp_path))["write"] == "ran"
    [uploaded] = (tmp_path / "store").rglob("write/*/executor-logs-0")
    [local] = (tmp_path / "rehearsal" / "logs").glob("*-write-1.log")
    assert uploaded.read_text() == local.read_text() == "a line of the log\n"


def test_a_component_that_creates_a_folder_for_every_output_fails_as_on_a_cluster(tmp_path: Path) -> None:
    create = """
import json, os, pathlib, sys
for artifacts in json.loads(sys.argv[1])["outputs"]["artifacts"].values():
    for artifact in artifacts["artifacts"]:
        path = pathlib.Path(os.environ["KUBEFLOW_STAGING_ROOT"], artifact["uri"].replace("s3://", "s3/"))
        path.mkdir(parents=True, exist_ok=True)
"""
    package = small_package()
    package["deploymentSpec"]["executors"]["write"]["container"]["command"][2] = create
    outcomes = _rehearse(package, tmp_path)
    assert outcomes[0].state == "failed"
    assert outcomes[0].error is not None
    assert "FileExistsError" in outcomes[0].error
    assert "executor-logs-0" in outcomes[0].error


def _fails_once(folder: Path, policy: dict[str, Any]) -> dict[str, Any]:
    """The small package, whose first pod fails."""
    fail_once = f"""
import pathlib
assert not list(pathlib.Path.cwd().glob("left-behind"))
pathlib.Path("left-behind").touch()
marker = pathlib.Path({str(folder / "failed-once")!r})
if not marker.exists():
    marker.touch()
    raise SystemExit("the node went away")
"""
    package = small_package()
    package["deploymentSpec"]["executors"]["write"]["container"]["command"][2] = fail_once + WRITE
    package["root"]["dag"]["tasks"]["write"]["retryPolicy"] = policy
    return package


def test_a_failed_pod_is_retried_in_an_empty_folder(tmp_path: Path) -> None:
    policy = {"maxRetryCount": 1, "backoffDuration": "60s", "backoffMaxDuration": "3600s"}
    outcomes = _rehearse(_fails_once(tmp_path, policy), tmp_path, retry_policy="Always")
    assert _states(outcomes) == {"write": "ran", "read": "ran"}
    assert outcomes[0].attempts == 2


@pytest.mark.parametrize(
    ("retry_policy", "policy", "reason"),
    [
        ("Always", {"maxRetryCount": 1}, "Max duration limit exceeded"),
        ("Always", {"maxRetryCount": 1, "backoffDuration": "60s", "backoffMaxDuration": "59s"}, "Max duration limit"),
        ("Always", {"backoffMaxDuration": "3600s"}, "No more retries left"),
        ("OnError", {"maxRetryCount": 1, "backoffMaxDuration": "3600s"}, "retryPolicy is OnError, which ignores"),
    ],
)
def test_argo_does_not_retry_a_pod(tmp_path: Path, retry_policy: str, policy: dict[str, Any], reason: str) -> None:
    outcomes = _rehearse(_fails_once(tmp_path, policy), tmp_path, retry_policy=retry_policy)
    assert _states(outcomes) == {"write": "failed", "read": "skipped"}
    assert outcomes[0].error is not None
    assert reason in outcomes[0].error


def test_after_a_failure_the_rest_is_skipped_and_the_error_quotes_the_log(tmp_path: Path) -> None:
    package = small_package()
    package["deploymentSpec"]["executors"]["write"]["container"]["command"][2] = "raise SystemExit('no disk')"
    outcomes = _rehearse(package, tmp_path)
    assert _states(outcomes) == {"write": "failed", "read": "skipped"}
    assert outcomes[0].error is not None
    assert "no disk" in outcomes[0].error


def test_a_pod_gets_the_packages_variables_and_few_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THIS_MACHINE", "1")
    look = "import os\nassert 'OF_THIS_MACHINE' not in os.environ\nassert os.environ['OF_THE_PACKAGE'] == '2'\n"
    package = small_package()
    container = package["deploymentSpec"]["executors"]["write"]["container"]
    container["command"][2] = look + WRITE
    container["env"] = [{"name": "OF_THE_PACKAGE", "value": "2"}]
    assert _states(_rehearse(package, tmp_path))["write"] == "ran"


def test_a_null_property_fails_as_in_kubeflows_launcher() -> None:
    with pytest.raises(RefusedError, match="property 'x' is null"):
        recorded_property("x", None)


def test_tasks_come_after_their_dependencies() -> None:
    assert ordered_tasks(small_package()) == ["write", "read"]


def test_conditions_and_loops_are_refused(tmp_path: Path) -> None:
    package = small_package()
    package["root"]["dag"]["tasks"]["read"]["triggerPolicy"] = {"condition": "1 == 1"}
    with pytest.raises(NotSimulatedError, match="has a condition or a loop"):
        _rehearse(package, tmp_path)


def test_an_artifact_outside_the_object_stores_fails_its_task(tmp_path: Path) -> None:
    package = small_package()
    package["defaultPipelineRoot"] = "hdfs://bucket/root"
    outcomes = _rehearse(package, tmp_path)
    assert _states(outcomes) == {"write": "failed", "read": "skipped"}
    assert outcomes[0].error is not None
    assert "Kubeflow cannot stage it" in outcomes[0].error


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [({"texts": "x"}, "--param texts: the package has no such parameter"), ({}, "--param text=... is required")],
)
def test_unusable_parameters_are_refused_before_any_task(
    tmp_path: Path, parameters: dict[str, str], reason: str
) -> None:
    package = small_package()
    del package["root"]["inputDefinitions"]["parameters"]["text"]["defaultValue"]
    with pytest.raises(RefusedError, match=reason):
        _rehearse(package, tmp_path, **parameters)
