"""A component's time and memory are measured for it alone, and reach the report through either metadata store."""

import time
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils
from tfx.types import standard_artifacts

from components.report.component import ReportSpec, report_inputs
from pipeline.metadata.measure import start_measuring
from schema.artifacts import PEAK_MEMORY_PROPERTY, SECONDS_PROPERTY

MB = 2**20


def test_seconds_and_peak_memory_are_measured_from_the_start():
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux reports a process's peak memory")
    measure = start_measuring()
    before = measure()[PEAK_MEMORY_PROPERTY]
    large = np.ones(200 * MB, np.uint8)
    time.sleep(0.2)
    del large
    measures = measure()
    assert measures[PEAK_MEMORY_PROPERTY] - before == pytest.approx(200, abs=20)
    assert 0.2 <= measures[SECONDS_PROPERTY] < 5
    assert start_measuring()()[PEAK_MEMORY_PROPERTY] < before + 100


def costs(artifacts):
    """Component -> (seconds, peak memory) as the report reads them."""
    producers = dict.fromkeys(artifacts, "Trainer")
    inputs = report_inputs(artifacts, settings={}, producers=producers)
    return {key: (seconds, memory_mb) for key, _, seconds, memory_mb in inputs.costs}


def artifacts_with(model_run):
    others = {key: [channel.type()] for key, channel in ReportSpec.INPUTS.items()}
    return {**others, "model_run": [model_run]}


def test_the_report_reads_measures_from_ml_metadata():
    artifact = standard_artifacts.ModelRun()
    artifact.mlmd_artifact.custom_properties[SECONDS_PROPERTY].double_value = 3.5
    assert costs(artifacts_with(artifact))["model_run"] == (3.5, None)


def test_the_report_reads_measures_from_kubeflow():
    stored = {
        "uri": "/x",
        "type": {"instanceSchema": "title: tfx.ModelRun\ntype: object\n"},
        "metadata": {SECONDS_PROPERTY: 3.5, PEAK_MEMORY_PROPERTY: 512.0},
    }
    message = json_format.ParseDict({"artifacts": [stored]}, pipeline_spec_pb2.ArtifactList())
    [artifact] = kubeflow_v2_entrypoint_utils.parse_raw_artifact_dict({"model_run": message}, {})["model_run"]
    assert costs(artifacts_with(artifact))["model_run"] == (3.5, 512.0)
