"""Chooses the test images that the report shows, and prepares their pictures and captions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from components.report.data_uris import file_uri, heat_uri, values_uri
from components.report.scored_images import Model, Sample, ShownImage, Values, show
from components.report.tables import number, percent
from images.decoding import upright_size
from images.regions import Placement, find_regions, strongest_place

_IMAGES_PER_GROUP = 10
_CLASSES = 10
_SUMMED_UP_BY = {"Typical": "typical", "Worst": "worst", "Anomalies easiest to find": "anomaly"}
"""Group -> title of its thumbnail."""

Group = tuple[str, list[int]]
"""(heading, rows of the sample)."""


def choose(sample: Sample) -> list[Group]:
    """Best, typical and worst images; the anomalies hardest and easiest to find; examples of each class."""
    normal, anomalous = (np.flatnonzero(which) for which in (sample.normal, ~sample.normal))
    third, half = _share_of(normal, 3), _share_of(anomalous, 2)
    kind = "" if (sample.is_anomaly == -1).all() else " among normal images"
    groups = [
        (f"Best{kind}: lowest scores", _ordered(sample, normal)[:third]),
        (f"Typical{kind}: median scores", _typical(sample, normal, third)),
        (f"Worst{kind}: highest scores", _ordered(sample, normal)[::-1][:third]),
        ("Anomalies hardest to find: lowest scores", _ordered(sample, anomalous)[:half]),
        ("Anomalies easiest to find: highest scores", _ordered(sample, anomalous)[::-1][:half]),
        _of_each_class(sample),
    ]
    return [group for group in groups if group[1]]


def _share_of(rows: npt.NDArray[np.int64], groups: int) -> int:
    """Images per group: at most ten, fewer if there are too few to give each group its own."""
    return min(_IMAGES_PER_GROUP, -(-len(rows) // groups))


def gallery(model: Model, examples_uri: str, sample: Sample, *, threshold: float) -> list[dict[str, Any]]:
    """Groups with `title` and `pictures`; a picture has original, reconstruction, map, regions, verdict and caption."""
    groups = choose(sample)
    positions = {sample.positions[row] for _, rows in groups for row in rows}
    shown = show(model, examples_uri, positions)
    pictures = {position: _picture(image, threshold) for position, image in shown.items()}
    return [{"title": title, "pictures": [pictures[sample.positions[row]] for row in rows]} for title, rows in groups]


def thumbnails(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One picture of each group that sums a model up: typical, worst, and the anomaly that is easiest to find.

    Each has `title`, `score`, `outcome`, and the URIs `original` and `anomaly_map`.
    """
    first = {group["title"].partition(":")[0].partition(" among")[0]: group["pictures"][0] for group in groups}
    return [
        {"title": title, **{key: first[group][key] for key in ("score", "outcome", "original", "anomaly_map")}}
        for group, title in _SUMMED_UP_BY.items()
        if group in first
    ]


def _picture(image: ShownImage, threshold: float) -> dict[str, Any]:
    source, is_flagged, regions = image.source, image.score > threshold, _regions(image)
    return {
        "id": source.image_id,
        "label": source.label,
        "score": number(image.score),
        "outcome": outcome(is_flagged, source.is_anomaly),
        "original": file_uri(source.encoded),
        "reconstruction": values_uri(image.reconstruction),
        "anomaly_map": None if image.anomaly_map is None else heat_uri(image.anomaly_map),
        "regions": regions,
        "strongest": _strongest(image) if is_flagged and not regions else None,
        "mask": file_uri(source.mask) if source.mask else None,
    }


def _regions(image: ShownImage) -> list[dict[str, Any]]:
    """The image's regions, the highest peak first: `box` (left, top, width, height) in columns and rows of the map, and
    `text` in pixels of the file.
    """
    if image.anomaly_map is None:
        return []
    placement, described = _placement(image, image.anomaly_map), []
    for region in find_regions(image.anomaly_map, placement, smallest_share=image.smallest_region)[0]:
        left, top, right, bottom = placement.box_on_map(region)
        text = (
            f"left {region.left:.1f}, top {region.top:.1f}, right {region.right:.1f}, bottom {region.bottom:.1f} px; "
            f"{percent(region.area_percent / 100)} of the image; peak {region.peak:.2f}, mean {region.mean:.2f}"
        )
        described.append({"box": (left, top, right - left, bottom - top), "text": text})
    return described


def _strongest(image: ShownImage) -> str | None:
    """Where the map is highest, in pixels of the file, such as "(12, 34)"; None without a map."""
    if image.anomaly_map is None:
        return None
    place = strongest_place(image.anomaly_map, _placement(image, image.anomaly_map))
    return f"({int(place.x)}, {int(place.y)})"


def _placement(image: ShownImage, anomaly_map: Values) -> Placement:
    return Placement.on_map(upright_size(image.source.encoded), anomaly_map.shape, is_padded=image.is_padded)


def outcome(is_flagged: bool, is_anomaly: int) -> str:
    """The result for an image in a word; empty for an image that is not an anomaly and not flagged."""
    if is_anomaly == 1:
        return "found" if is_flagged else "missed"
    if is_flagged:
        return "false alarm" if is_anomaly == 0 else "flagged"
    return ""


def _of_each_class(sample: Sample) -> Group:
    """A typical and the worst image of each class, or of those with the highest median scores if there are many."""
    labels = np.asarray(sample.labels)
    rows_of = {label: np.flatnonzero(labels == label) for label in sorted(set(sample.labels))}
    if len(rows_of) < 2:
        return "", []
    hardest = sorted(rows_of, key=lambda label: -float(np.median(sample.scores[rows_of[label]])))[:_CLASSES]
    limit = (
        f" ({_CLASSES} of {len(rows_of)} classes, with the highest median scores)" if len(rows_of) > _CLASSES else ""
    )
    rows: list[int] = []
    for label in sorted(hardest):
        rows += _typical(sample, rows_of[label], 1) + _ordered(sample, rows_of[label])[-1:]
    return f"Each class: a typical and the worst image{limit}", rows


def _typical(sample: Sample, rows: npt.NDArray[np.int64], count: int) -> list[int]:
    middle = max(0, (len(rows) - count) // 2)
    return _ordered(sample, rows)[middle : middle + count]


def _ordered(sample: Sample, rows: npt.NDArray[np.int64]) -> list[int]:
    return [int(row) for row in rows[np.argsort(sample.scores[rows], kind="stable")]]
