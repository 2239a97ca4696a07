"""Schedules through the real kfp.Client; this tests the requests, not Kubeflow's server."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from kubeflow_server import StubServer, posted

from pipeline.commands.schedule import schedule


def _schedule(stub: StubServer, *arguments: str) -> Result:
    return CliRunner().invoke(schedule, ["--host", stub.host, *arguments])


def _recurring_run(identifier: str, name: str) -> dict[str, Any]:
    return {
        "recurring_run_id": identifier,
        "display_name": name,
        "status": "ENABLED",
        "max_concurrency": "1",
        "trigger": {"cron_schedule": {"cron": "0 0 2 * * *"}},
    }


def test_a_schedule_is_created_with_its_options(stub: StubServer, package: Path) -> None:
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
    body = posted(stub, "recurringruns")
    assert body["display_name"] == "nightly"
    assert body["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * *"}}
    assert (body["max_concurrency"], body["no_catchup"], body["mode"]) == (1, True, "ENABLE")
    assert body["runtime_config"]["parameters"] == {}


@pytest.mark.parametrize(
    ("of_the_package", "options", "sent"),
    [
        ("schedules", (), {"fail_when_refused": "always"}),
        ("never", (), {}),
        ("always", (), {}),
        ("schedules", ("--param", "fail_when_refused=never"), {"fail_when_refused": "never"}),
    ],
)
def test_a_scheduled_run_fails_when_its_model_is_refused(
    stub: StubServer, package: Path, of_the_package: str, options: tuple[str, ...], sent: dict[str, str]
) -> None:
    documents = list(yaml.safe_load_all(package.read_text(encoding="utf-8")))
    parameter = {"parameterType": "STRING", "defaultValue": of_the_package}
    documents[0]["root"]["inputDefinitions"]["parameters"]["fail_when_refused"] = parameter
    package.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    result = _schedule(stub, str(package), "--name", "nightly", "--cron", "@daily", *options)
    assert result.exit_code == 0, result.output
    assert posted(stub, "recurringruns")["runtime_config"]["parameters"] == sent


def test_an_invalid_cron_expression_is_refused_before_any_request(stub: StubServer, package: Path) -> None:
    result = _schedule(stub, str(package), "--name", "nightly", "--cron", "0 2 * * *")
    assert result.exit_code == 2
    assert "has five fields, but Kubeflow expects six" in result.output
    assert stub.requests == []


def test_a_second_schedule_with_the_same_name_is_refused(stub: StubServer, package: Path) -> None:
    stub.schedules = [_recurring_run("r1", "nightly")]
    result = _schedule(stub, str(package), "--name", "nightly", "--cron", "@daily")
    assert result.exit_code == 2
    assert "a schedule named 'nightly' already exists (r1)" in result.output


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
def test_a_schedule_is_changed_by_name(stub: StubServer, option: str, request_line: tuple[str, str]) -> None:
    stub.schedules = [_recurring_run("r1", "nightly")]
    result = _schedule(stub, option, "nightly")
    assert result.exit_code == 0, result.output
    assert stub.requests[-1][:2] == request_line


def test_an_ambiguous_or_unknown_name_changes_nothing(stub: StubServer) -> None:
    stub.schedules = [_recurring_run("r1", "nightly"), _recurring_run("r2", "nightly")]
    result = _schedule(stub, "--delete", "nightly")
    assert result.exit_code == 2
    assert "pass an id instead: r1, r2" in result.output
    result = _schedule(stub, "--delete", "weekly")
    assert "no schedule is named 'weekly'; existing schedules: nightly, nightly" in result.output
    assert {method for method, *_ in stub.requests} == {"GET"}


@pytest.mark.parametrize("arguments", [[], ["--list", "--pause", "x"]])
def test_exactly_one_action_is_required(stub: StubServer, arguments: list[str]) -> None:
    result = _schedule(stub, *arguments)
    assert result.exit_code == 2
    assert "give one of: a package, --list, --pause, --resume, --delete" in result.output
