"""Report: the TFX component that presents a run's artifacts as one HTML page."""

from collections.abc import Mapping
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import json_utils

from components.report.facts import ReportInputs
from components.report.page import write_report
from runtime.loaded_models import forget_models
from schema.artifact_types import Analysis, Artifacts, Calibration, HtmlReport
from schema.artifacts import PEAK_MEMORY_PROPERTY, SECONDS_PROPERTY
from schema.component_specs import Spec, channels, texts

REPORT_KEY = "report"
_MEASURED = ("examples", "statistics", "anomalies", "transform_graph", "model_run", "model", "analysis", "evaluation")
"""Inputs in data order, each with the time and memory that its component took."""


class ReportSpec(Spec):
    PARAMETERS = texts("settings", "producers", "source_fingerprint")
    INPUTS = channels(
        examples=standard_artifacts.Examples,
        statistics=standard_artifacts.ExampleStatistics,
        anomalies=standard_artifacts.ExampleAnomalies,
        transform_graph=standard_artifacts.TransformGraph,
        model_run=standard_artifacts.ModelRun,
        model=standard_artifacts.Model,
        calibration=Calibration,
        analysis=Analysis,
        evaluation=standard_artifacts.ModelEvaluation,
        baseline_model=standard_artifacts.Model,
        optional=["baseline_model"],
    )
    OUTPUTS = channels(report=HtmlReport)


class ReportExecutor(base_executor.BaseExecutor):
    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:  # noqa: N802
        """Write the page, whether the model was blessed or refused."""
        inputs = report_inputs(
            input_dict,
            settings=json_utils.loads(exec_properties["settings"]),
            producers=json_utils.loads(exec_properties["producers"]),
        )
        try:
            write_report(inputs, artifact_utils.get_single_uri(output_dict[REPORT_KEY]))
        finally:
            forget_models()


class Report(base_component.BaseComponent):
    """Writes `report.html` from a run's artifacts.

    `settings` are the configuration sections that the model's record lacks. Output `report`: an HtmlReport.
    """

    SPEC_CLASS = ReportSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(ReportExecutor)

    def __init__(self, *, settings: Mapping[str, Any], source_fingerprint: str, **inputs: types.BaseChannel) -> None:
        """`inputs`: one channel for each key of ReportSpec.INPUTS."""
        producers = {key: inputs[key].producer_component_id for key in _MEASURED}
        super().__init__(
            spec=ReportSpec(
                settings=json_utils.dumps(settings),
                producers=json_utils.dumps(producers),
                source_fingerprint=source_fingerprint,
                **inputs,
            )
        )


def report_inputs(
    artifacts: Mapping[str, list[types.Artifact]], *, settings: Mapping[str, Any], producers: Mapping[str, str]
) -> ReportInputs:
    """The report's inputs; `artifacts` and `producers` (the components' names) have ReportSpec's keys."""
    single = {key: artifacts_of_key[0] for key, artifacts_of_key in artifacts.items() if artifacts_of_key}
    baseline, calibration = single.get("baseline_model"), single.get("calibration")
    return ReportInputs(
        **{key: single[key].uri for key in ("examples", "statistics", "anomalies", "model", "evaluation")},
        baseline_model=baseline.uri if baseline else None,
        calibration=calibration.uri if calibration else None,
        settings=settings,
        costs=tuple(
            (key, producers[key], _number(single[key], SECONDS_PROPERTY), _number(single[key], PEAK_MEMORY_PROPERTY))
            for key in _MEASURED
        ),
    )


def _number(artifact: types.Artifact, name: str) -> float | None:
    return artifact.get_float_custom_property(name) if artifact.has_custom_property(name) else None
