"""The report's sentences and tables: turns facts into plain values for the page."""

import math
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from components.report.facts import Document, Facts
from schema import features
from schema.artifacts import USED_BITS
from schema.changes import ALARMS_AT

_PACKAGES = ("tfx", "tensorflow", "tf-keras", "apache-beam", "tensorflow-transform", "tensorflow-model-analysis",
             "numpy", "scikit-learn")  # fmt: skip
_MANY_TIMES = 3.0
_LABELS_SHOWN = 50
_REJECTS_SHOWN = 20
_RESULTS = ("history", "calibration", "metrics", "images", "sizes")
"""Keys of the model's record that hold results rather than settings."""


def number(value: Any) -> str:
    """Four significant digits, with thousands separators; a dash for an unknown value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e12):
        return f"{int(value):,}"
    return f"{value:.4g}"


def percent(share: float | None) -> str:
    """0.0125 -> 1.25 %; a dash for an unknown value."""
    return "–" if share is None else f"{100 * share:.3g}\N{NO-BREAK SPACE}%"


def verdict_sentence(gate: Document) -> str:
    """The verdict and its reason in one sentence."""
    rows = gate["thresholds"]
    refused = [row for row in rows if not row["passed"]]
    if refused:
        others = len(refused) - 1
        more = "" if not others else f" ({others} more {'bounds are' if others > 1 else 'bound is'} not met)"
        return f"Refused: {refused[0]['reason']}{more}."
    bounds = {1: "its only bound", 2: "both bounds"}.get(len(rows), f"all {len(rows)} bounds")
    comparison = detection_comparison(gate)
    if not comparison and (error := pca_comparison(gate["metrics"])):
        comparison = f"its mean error is {error}"
    return f"Blessed: the model meets {bounds}{f', and {comparison}' if comparison else ''}."


def detection_comparison(gate: Document) -> str:
    """For a model that is to detect: how well it and the simple models find faint defects; otherwise empty."""
    own = gate["metrics"].get("synthetic_auroc")
    if gate.get("purpose") != "detect" or own is None:
        return ""
    simple = [
        f"{name} {values['synthetic_auroc']:.3f}"
        for name, values in gate["simple_models"].items()
        if "synthetic_auroc" in values
    ]
    return f"its AUROC for faint defects is {own:.3f} ({', '.join(simple)})"


def pca_comparison(metrics: Mapping[str, float]) -> str:
    """The mean error compared with PCA's, in words; empty if either is unknown."""
    floor, error = metrics.get("pca_mean_error"), metrics.get("mean_error")
    if not floor or error is None:
        return ""
    ratio = error / floor
    if ratio >= _MANY_TIMES:
        return f"{ratio:.0f} times PCA's"
    return f"{100 * abs(1 - ratio):.0f} % {'below' if ratio <= 1 else 'above'} PCA's"


def bound(row: Document) -> str:
    """The bound of one of the gate's rows, in symbols."""
    limits = [f"{sign} {number(row[key])}" for key, sign in (("min", "≥"), ("max", "≤")) if row[key] is not None]
    return " and ".join(limits)


def metrics_table(gate: Document) -> Document:
    """Metric names, and a row of values for all images and for each label; steadiness has a section of its own."""
    names = [name for name in gate["metrics"] if name != "pca_mean_error" and not name.startswith(ALARMS_AT)]
    by_label = sorted(gate["metrics_by_label"].items())
    rows = [("all", [gate["metrics"][name] for name in names])]
    rows += [(label or "(no label)", [values.get(name) for name in names]) for label, values in by_label]
    return {"names": names, "rows": rows[: _LABELS_SHOWN + 1], "left_out": max(0, len(rows) - _LABELS_SHOWN - 1)}


def comparison(facts: Facts) -> Document:
    """This model compared with the previous blessed one: metrics, and settings that differ."""
    ours, theirs = facts.gate["metrics"], facts.gate.get("baseline_metrics", {})  # runs of older versions lack it
    metrics = [
        (name, ours[name], theirs[name], ours[name] / theirs[name] - 1 if theirs[name] else None)
        for name in ours
        if name in theirs
    ]
    before, after = (dict(_flat(_settings_of(record))) for record in (facts.baseline_record, facts.record))
    changed = [(key, before.get(key), after.get(key)) for key in sorted({*before, *after})]
    settings = [row for row in changed if row[1] != row[2]] if facts.baseline_record else []
    return {"metrics": metrics, "settings": settings}


def data_tables(facts: Facts) -> Document:
    """Image counts, numeric features and labels per split, rejects, anomalies and drift."""
    numeric = {
        name: {split: _numeric(feature) for split, feature in by_split.items()}
        for name, by_split in facts.statistics.items()
        if any(feature.HasField("num_stats") for feature in by_split.values())
    }
    labels: dict[str, dict[str, int]] = {}
    for split, feature in facts.statistics.get(features.LABEL, {}).items():
        for bucket in feature.string_stats.rank_histogram.buckets:
            labels.setdefault(bucket.label or "(no label)", {})[split] = int(bucket.sample_count)
    return {
        "counts": {name: count for name, count in facts.counts.items() if name != USED_BITS},
        "splits": features.SPLITS,
        "numeric": numeric,
        "labels": dict(sorted(labels.items())[:_LABELS_SHOWN]),
        "labels_left_out": max(0, len(labels) - _LABELS_SHOWN),
        "rejects": facts.rejects[:_REJECTS_SHOWN],
        "rejects_left_out": max(0, len(facts.rejects) - _REJECTS_SHOWN),
        "anomalies": facts.anomalies,
        "drift": facts.drift,
    }


def distribution(facts: Facts, feature: str) -> dict[str, tuple[list[float], list[float]]]:
    """Split -> (bin centres, shares of images) of a numeric feature, from StatisticsGen's histogram."""
    curves = {}
    for split, statistics in facts.statistics.get(feature, {}).items():
        buckets = statistics.num_stats.histograms[0].buckets if statistics.num_stats.histograms else []
        total = sum(b.sample_count for b in buckets)
        if total:
            centres = [(b.low_value + b.high_value) / 2 for b in buckets]
            curves[split] = (centres, [b.sample_count / total for b in buckets])
    return curves


def settings_table(facts: Facts) -> list[tuple[str, str]]:
    """(dotted key, value) of every setting and fingerprint that determined this model."""
    return _flat({**facts.settings, **_settings_of(facts.record)})


def versions() -> list[tuple[str, str]]:
    """Versions of Python and the main packages in the environment that wrote this page."""
    found = []
    for package in _PACKAGES:
        try:
            found.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:  # e.g. if tensorflow-cpu is installed instead
            continue
    return [("Python", platform.python_version()), *found]


def _settings_of(record: Document) -> Document:
    return {key: value for key, value in record.items() if key not in _RESULTS}


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            rows += _flat({str(number): row for number, row in enumerate(value, 1)}, f"{prefix}{key}.")
        elif value is not None and value != [] and value != "":
            rows.append((prefix + key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows


def _numeric(feature: Any) -> str:
    statistics = feature.num_stats
    missing = int(statistics.common_stats.num_missing)
    note = f", {number(missing)} missing" if missing else ""
    if statistics.min == statistics.max:
        return number(statistics.mean) + note
    spread = f"{number(statistics.mean)} ± {number(statistics.std_dev)}"
    return f"{spread} ({number(statistics.min)} – {number(statistics.max)}){note}"
