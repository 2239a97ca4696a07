"""Writes report.html, a self-contained page about a run, and three files for programs.

These are synthetic_defects.json, suspects.jsonl, and thumbnails.json.
"""

import json
import os
from collections.abc import Callable
from typing import Any, Final

from tfx.dsl.io import fileio

from components.report import charts, tables
from components.report.defect_study import RELIABLE, Detection, defects_document, pictures_of, study_defects
from components.report.facts import Facts, ReportInputs, model_folder, read_facts
from components.report.gallery import gallery, thumbnails
from components.report.score_table import score_rows
from components.report.scored_images import Sample, load_model, score_sample
from components.report.steadiness import change_rows
from components.report.suspects import read_suspects, suspect_pictures
from images.synthetic_defects import KINDS
from runtime.pages import fill_in
from schema import features
from schema.artifacts import DEFECTS_FILE, REPORT_FILE, SUSPECTS_FILE, THUMBNAILS_FILE

SCORED_IMAGES: Final = 5_000
"""Of a larger test split, a random sample of this size is scored."""
_TEMPLATE = "page.html.jinja"


def write_report(inputs: ReportInputs, folder: str, *, at_most: int = SCORED_IMAGES) -> None:
    """Write the four files to `folder`, with scores of `at_most` test images; same artifacts, same bytes."""
    facts = read_facts(inputs)
    seed, threshold = facts.record["seed"], facts.calibration.threshold
    model = load_model(model_folder(inputs.model))
    total = facts.counts[features.TEST]
    sample = score_sample(model, inputs.examples, total=total, limit=at_most, seed=seed)
    images, detections = study_defects(
        model, inputs.examples, sample, record=facts.record, threshold=threshold, seed=seed
    )
    suspects = read_suspects(inputs.calibration)
    groups = gallery(model, inputs.examples, sample, threshold=threshold)
    page = render(
        **_facts_of(facts),
        sample={"images": len(sample.scores), "total": total, "seed": seed},
        groups=groups,
        charts=_charts(facts, sample, threshold, seed),
        flagged=charts.at_threshold(sample, threshold),
        kinds=KINDS,
        score_rows=score_rows(model, inputs.examples, sample, calibration=facts.calibration, gate=facts.gate),
        changes=change_rows(facts.gate, inputs.examples, sample, record=facts.record),
        suspects=suspect_pictures(inputs, suspects),
        defects={
            "images": images,
            "reliable": RELIABLE,
            "kinds": [_defect(detection, threshold) for detection in detections],
        },
    )
    fileio.makedirs(folder)
    document = defects_document(images, detections, threshold=threshold, seed=seed)
    listed = "".join(json.dumps(suspect) + "\n" for suspect in suspects)
    files = {
        REPORT_FILE: page,
        DEFECTS_FILE: json.dumps(document, indent=2),
        SUSPECTS_FILE: listed,
        THUMBNAILS_FILE: json.dumps(thumbnails(groups)),
    }
    for name, content in files.items():
        with fileio.open(os.path.join(folder, name), "wb") as file:  # noqa: PTH118 - may be remote
            file.write(content.encode("utf-8", "replace"))


def render(**context: Any) -> str:
    """The report's page; all text in it is escaped."""
    filters: dict[str, Callable[..., Any]] = {
        "number": tables.number, "percent": tables.percent, "bound": tables.bound, "shown_name": features.shown_name,
    }  # fmt: skip
    return fill_in(__package__, _TEMPLATE, filters, **context)


def _facts_of(facts: Facts) -> dict[str, Any]:
    return {
        "name": facts.record["name"],
        "gate": facts.gate,
        "image": facts.record["image"],
        "calibration": facts.calibration,
        "verdict": tables.verdict_sentence(facts.gate),
        "pca": tables.pca_comparison(facts.gate["metrics"]),
        "metrics": tables.metrics_table(facts.gate),
        "comparison": tables.comparison(facts),
        "data": tables.data_tables(facts),
        "costs": facts.costs,
        "settings": tables.settings_table(facts),
        "versions": tables.versions(),
    }


def _charts(facts: Facts, sample: Sample, threshold: float, seed: int) -> dict[str, Any]:
    distributions = {name: tables.distribution(facts, name) for name in (features.MEAN_INTENSITY, features.CONTRAST)}
    return {
        "scores": [*charts.score_charts(sample, threshold), *charts.detection_charts(sample)],
        "latent": charts.latent_charts(sample, seed),
        "training": charts.loss_charts(facts.record["history"]),
        "data": [
            charts.distribution_chart(name.replace("_", " "), curves)
            for name, curves in distributions.items()
            if curves
        ],
    }


def _defect(detection: Detection, threshold: float) -> dict[str, Any]:
    return {
        "kind": detection.kind,
        "size_of": detection.size_of,
        "smallest": detection.smallest_found(RELIABLE),
        "smallest_in_half": detection.smallest_found(0.5),
        "chart": charts.defect_chart(detection.kind, detection.sizes, detection.found),
        "pictures": pictures_of(detection, threshold),
        "largest": detection.sizes[-1],
        "found_largest": detection.found[-1],
    }
