"""Fixtures of the client's tests: a stand-in for Kubeflow's server, and a small compiled package."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubeflow_server import StubServer, kubeflow_server


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubServer]:
    for variable in ("KUBEFLOW_TOKEN", "KUBEFLOW_COOKIES", "KUBEFLOW_HOST"):
        monkeypatch.delenv(variable, raising=False)
    with kubeflow_server() as state:
        yield state


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
