"""What the report shows about harmless changes: one image after each of them, and ModelAnalysis's numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.report.data_uris import pixels_uri
from components.report.defect_study import scaled_to_model
from components.report.facts import Document
from components.report.scored_images import Sample, read_images
from images.decoding import upright_size
from images.harmless_changes import STEADINESS, change_picture
from images.regions import Placement


@dataclass(frozen=True)
class ChangeRow:
    """A change, or `unchanged`: a picture of it, and the shares and the AUROC of `measure_steadiness`."""

    name: str
    uri: str
    alarms: float
    auroc: float | None
    recall: float


def change_rows(gate: Document, examples_uri: str, sample: Sample, *, record: Mapping[str, Any]) -> list[ChangeRow]:
    """A row for each change in the order of measurement, with the normal image of median score; [] without any."""
    changes = gate.get("steadiness", {}).get("changes", {})  # reports of older runs lack it
    normal = np.flatnonzero(sample.normal)
    if not changes or not len(normal):
        return []
    typical = normal[np.argsort(sample.scores[normal], kind="stable")[len(normal) // 2]]
    [shown] = read_images(examples_uri, [sample.positions[typical]])
    pixels = scaled_to_model(shown.encoded, record)
    is_padded = record["image"]["fit"] == "pad"
    place = Placement.on_map(upright_size(shown.encoded), pixels.shape[:2], is_padded=is_padded)
    pictures = {
        name: change_picture(name, pixels, np.random.default_rng(0), picture=place)
        for name in changes
        if name in STEADINESS
    }
    return [
        ChangeRow(name, pixels_uri(pictures.get(name, pixels)), found["alarms"], found.get("auroc"), found["recall"])
        for name, found in changes.items()
    ]
