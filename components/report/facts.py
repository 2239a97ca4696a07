"""Reads what the report needs from a run's artifacts, except images and scores (see scored_images)."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx.dsl.io import fileio
from tfx.utils import path_utils

from schema import features
from schema.artifacts import COUNTS_FILE, GATE_FILE, RECORD_FILE, REJECTS_FILE, SAVED_MODEL_FILE
from schema.calibration_record import CalibrationRecord
from schema.reviewed import REPLACED

_STATISTICS_FILE = "FeatureStats.pb"
_ANOMALIES_FILE = "SchemaDiff.pb"

_READ: Final = (*features.SPLITS, "left_out", "rejected", "duplicates", "excluded", REPLACED)
"""The counts of ImageExampleGen that add up to the images it read; the others tell more about some of these."""

Document = dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """Time and memory that one component took; None if its runner did not measure them."""

    component: str
    seconds: float | None
    peak_memory_mb: float | None
    images: int | None
    """Images processed, counted once per epoch; None for a component that reads no images."""


@dataclass(frozen=True)
class ReportInputs:
    """URIs of a run's artifacts, and what the configuration and the runner recorded."""

    examples: str
    statistics: str
    anomalies: str
    model: str
    evaluation: str
    baseline_model: str | None
    calibration: str | None
    settings: Mapping[str, Document]
    """Configuration sections that the model's record lacks."""
    costs: tuple[tuple[str, str, float | None, float | None], ...]
    """(input key, component, seconds, peak memory in MB)."""


@dataclass(frozen=True)
class Facts:
    """The run in numbers and words. Any text in it may be untrusted."""

    record: Document
    """What the Trainer wrote beside the model."""
    calibration: CalibrationRecord
    gate: Document
    baseline_record: Document
    counts: dict[str, int]
    rejects: list[Document]
    statistics: dict[str, dict[str, Any]]
    """Feature -> split -> tensorflow.metadata.v0.FeatureNameStatistics."""
    anomalies: list[tuple[str, str, str]]
    """(split, feature, problem)."""
    drift: list[tuple[str, str, float, float]]
    """(split, feature, distance, largest allowed distance)."""
    settings: Mapping[str, Document]
    costs: list[Cost]


def read_facts(inputs: ReportInputs) -> Facts:
    """Read everything except images."""
    record = _json(_join(model_folder(inputs.model), RECORD_FILE))
    counts = _json(_join(inputs.examples, COUNTS_FILE))
    anomalies, drift = _anomalies(inputs.anomalies)
    baseline = inputs.baseline_model
    has_baseline = baseline is not None and fileio.exists(_join(model_folder(baseline), SAVED_MODEL_FILE))
    return Facts(
        record=record,
        calibration=CalibrationRecord.from_json(record["calibration"]),
        gate=_json(_join(inputs.evaluation, GATE_FILE)),
        baseline_record=_json(_join(model_folder(baseline), RECORD_FILE)) if baseline and has_baseline else {},
        counts=counts,
        rejects=[json.loads(line) for line in _text(_join(inputs.examples, REJECTS_FILE)).splitlines()],
        statistics=_statistics(inputs.statistics),
        anomalies=anomalies,
        drift=drift,
        settings=inputs.settings,
        costs=_costs(inputs, counts, record),
    )


def model_folder(model_uri: str) -> str:
    """The SavedModel's folder in a Model artifact."""
    folder: str = path_utils.serving_model_dir(model_uri)
    return folder


def _costs(inputs: ReportInputs, counts: dict[str, int], record: Document) -> list[Cost]:
    """One entry per component, in the inputs' order."""
    epochs = max(map(len, record["history"].values()), default=1)
    both = counts[features.TRAIN] + counts[features.EVAL] if record.get("cross_fitted") else None
    images = {
        "examples": sum(counts.get(name, 0) for name in _READ),
        "statistics": sum(counts[split] for split in features.SPLITS),
        "transform_graph": counts[features.TRAIN],
        "model_run": (both or counts[features.TRAIN]) * epochs,
        "model": both or counts[features.EVAL],  # only if another component than the Trainer wrote it
        "analysis": counts[features.TEST],
    }
    rows: dict[str, Cost] = {}
    for key, component, seconds, memory_mb in inputs.costs:
        rows.setdefault(component, Cost(component, seconds, memory_mb, images.get(key)))
    return list(rows.values())


def _statistics(uri: str) -> dict[str, dict[str, Any]]:
    by_feature: dict[str, dict[str, Any]] = {}
    for split in features.SPLITS:
        statistics = statistics_pb2.DatasetFeatureStatisticsList()
        statistics.ParseFromString(_bytes(_join(uri, f"Split-{split}", _STATISTICS_FILE)))
        for feature in statistics.datasets[0].features:
            by_feature.setdefault(feature.name or ".".join(feature.path.step), {})[split] = feature
    return by_feature


def _anomalies(uri: str) -> tuple[list[tuple[str, str, str]], list[tuple[str, str, float, float]]]:
    problems, drift = [], []
    for split in features.SPLITS:
        path = _join(uri, f"Split-{split}", _ANOMALIES_FILE)
        if not fileio.exists(path):
            continue
        found = anomalies_pb2.Anomalies()
        found.ParseFromString(_bytes(path))
        problems += [(split, name, info.description) for name, info in sorted(found.anomaly_info.items())]
        if found.HasField("dataset_anomaly_info"):
            problems.append((split, "data set", found.dataset_anomaly_info.description))
        for info in found.drift_skew_info:
            name = ".".join(info.path.step)
            drift += [(split, name, m.value, m.threshold) for m in (*info.drift_measurements, *info.skew_measurements)]
    return problems, drift


def _join(*parts: str) -> str:
    return os.path.join(*parts)  # noqa: PTH118 - may be remote


def _bytes(path: str) -> bytes:
    with fileio.open(path, "rb") as file:
        content: bytes = file.read()
    return content


def _text(path: str) -> str:
    return _bytes(path).decode("utf-8")


def _json(path: str) -> Document:
    document: Document = json.loads(_text(path))
    return document
