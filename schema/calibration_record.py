"""The calibration record: `calibration.json`, also kept under `calibration` in the model's record."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


def conformal_rank(images: int, false_alarm_rate: float) -> int:
    """Which of the ascending scores of so many held-out images is the threshold: the k-th smallest, from 1.

    ceil((n + 1)(1 - rate)), but for the rounding of a rate such as 1 / (n + 1). Above n if the rate is below that.
    """
    return math.ceil((images + 1) * (1.0 - false_alarm_rate) - 1e-9)


@dataclass(frozen=True, kw_only=True)
class GroupRecord:
    """One of the groups of `evaluation.groups`."""

    name: str
    images: int
    """Number of normal images that its threshold was computed from."""
    typical: float
    """Their median score, before it is given in units of the group."""
    threshold: float
    """In the same units as `typical`."""
    false_alarm_rate: float
    """Share of the group's normal images, in (0, 1), that may score above the threshold."""
    pixel_threshold: float
    """Value of the score's map that counts as 1 in the anomaly map of the group's images."""
    pixel_false_alarm_rate: float


@dataclass(frozen=True, kw_only=True)
class CalibrationRecord:
    """The anomaly threshold of a model and the normal images, left out of its fits, that it was computed from."""

    score: str = "error"
    """Name of the score that the threshold applies to."""
    threshold: float
    false_alarm_rate: float
    """Share of normal images, in (0, 1), that may score above the threshold."""
    images: int
    """Number of normal images that the threshold was computed from."""
    method: str = "split"
    """`split`: these images were held out of training; `cross`: all train, and each was scored by a fit without it;
    `pooled`: those held out, and those that train, each by a fit without it."""
    scores: tuple[float, ...] = ()
    """Their scores in ascending order, thinned evenly if there are many."""
    auroc_by_score: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """If `evaluation.score` is `auto`: each compared score's AUROC by kind of synthetic defect; otherwise empty."""
    map_of: str = ""
    """Name of the score whose map is the anomaly map: `score`, or `error` where that looks at the whole image."""
    pixel_threshold: float | None = None
    """Value of the score's map that counts as 1 in the anomaly map. None: of a version without anomaly maps."""
    pixel_false_alarm_rate: float | None = None
    """Share of normal images, in (0, 1), that may show a pixel above the pixel threshold."""
    smallest_region_percent: float = 0.0
    """Area, in per cent of the image, below which a region of anomalous pixels does not count."""
    groups: tuple[GroupRecord, ...] = ()
    """The groups, if each has its own threshold. Then scores are in units of the image's group: 0 is typical of it, and
    `threshold` is 1, the group's own; `false_alarm_rate` is the highest of any group."""
    source_fingerprint: str = ""
    """Fingerprint of the code that calibrated the model."""

    @property
    def fewest(self) -> tuple[int, float]:
        """(images, false-alarm rate) of the threshold that rests on the fewest images: the only one without groups."""
        each: tuple[GroupRecord | CalibrationRecord, ...] = self.groups or (self,)
        return min((limits.images, limits.false_alarm_rate) for limits in each)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "CalibrationRecord":
        """Raises ValueError, TypeError or OverflowError if `values` are not those of a calibration record."""
        missing = {"threshold", "false_alarm_rate", "images"} - set(values)
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))} missing")
        return cls(
            score=str(values.get("score", cls.score)),
            threshold=float(values["threshold"]),
            false_alarm_rate=float(values["false_alarm_rate"]),
            images=int(values["images"]),
            method=str(values.get("method", cls.method)),
            scores=tuple(map(float, values.get("scores", ()))),
            auroc_by_score={
                str(score): {str(kind): float(auroc) for kind, auroc in dict(by_kind).items()}
                for score, by_kind in dict(values.get("auroc_by_score", {})).items()
            },
            map_of=str(values.get("map_of", cls.map_of)),
            pixel_threshold=_optional(values.get("pixel_threshold")),
            pixel_false_alarm_rate=_optional(values.get("pixel_false_alarm_rate")),
            smallest_region_percent=float(values.get("smallest_region_percent", cls.smallest_region_percent)),
            groups=tuple(GroupRecord(**group) for group in values.get("groups", ())),
            source_fingerprint=str(values.get("source_fingerprint", cls.source_fingerprint)),
        )

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        values = asdict(self)
        return {**values, "scores": list(self.scores), "groups": list(values["groups"])}


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)
