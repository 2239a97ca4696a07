"""What the gate does not refuse but a user should know about a model, with cause and remedy."""

import math
from collections.abc import Collection, Mapping
from typing import Any, Final

from components.evaluation.metrics import ALARMS
from components.evaluation.reviewed import share_interval
from components.evaluation.steadiness import UNCHANGED
from images.harmless_changes import IN_WORDS, STEADINESS
from schema.calibration_record import CalibrationRecord

_COMPARED: Final = ((0.05, "recall_at_5pct"), (0.01, "recall_at_1pct"))
"""False-alarm rate and the recall at it, the highest rate first."""
_MANY_MISSED: Final = 0.1
"""Share of the defects that lie between two thresholds, beyond chance."""
_TWICE: Final = 2.0
_BEYOND_CHANCE: Final = 2.0
"""Standard errors."""
_NAMED: Final = 3
_UNCERTAIN: Final = 0.5
"""A threshold rests on few images if its rate has a standard deviation above this share of the rate."""


def advice_on(
    metrics: Mapping[str, float],
    images: tuple[int, int],
    calibration: CalibrationRecord,
    steadiness: Mapping[str, Any],
    bounded: Collection[str] = (),
) -> list[str]:
    """Sentences about a model that is to detect; `images`: how many normal and anomalous ones test it.

    `steadiness`: `images` and the `changes` of `measure_steadiness`; `bounded`: metrics with a bound of their own.
    """
    found = (_missed_by_threshold(metrics, images, calibration), _unsteady(steadiness, calibration, bounded))
    return [sentence for sentence in found if sentence]


def _missed_by_threshold(
    metrics: Mapping[str, float], images: tuple[int, int], calibration: CalibrationRecord
) -> str | None:
    """Whether chance in a few calibrating images costs many defects, which the test images would let it find.

    Not if chance in the test images may be the cause: if few anomalies lie between the two thresholds, or if so few of
    these images are normal that even the strangest of them stands for a higher rate than the promised one.
    """
    normal, anomalous = images
    few, rate = calibration.fewest
    deviation = math.sqrt(rate * (1.0 - rate) / few)
    if "recall" not in metrics or deviation <= _UNCERTAIN * rate:
        return None
    for compared, name in _COMPARED:
        stands_for = (math.floor(compared * normal) + 1) / (normal + 1)
        if name not in metrics or compared > rate or stands_for > rate + deviation:
            continue
        missed = round((metrics[name] - metrics["recall"]) * anomalous)
        if missed <= 0 or share_interval(missed, anomalous)[0] < _MANY_MISSED:
            return None
        found, possible, share = (_percent(x) for x in (metrics["recall"], metrics[name], compared))
        raised = "raise data.eval_fraction or " if calibration.method == "split" else ""
        return (
            f"at its own threshold the model finds {found} of the defects ({round(metrics['recall'] * anomalous):,} of "
            f"{anomalous:,}), at one with {share} of false alarms among the same images {possible}. Only {few:,} "
            f"normal images calibrate it, so it promises a rate of {_percent(rate)}, give or take "
            f"{100 * deviation:.2g} points: {raised}add normal images (docs/scores.md#from-a-score-to-an-alarm)"
        )
    return None


def _unsteady(steadiness: Mapping[str, Any], calibration: CalibrationRecord, bounded: Collection[str]) -> str | None:
    """Whether a harmless change raises more than twice the alarms that are promised, beyond chance.

    Images that raise an alarm without a change do not count against it, nor do changes with a bound of their own.
    """
    changes, images = steadiness["changes"], steadiness["images"]
    if not changes:
        return None
    usual = max(_TWICE * calibration.false_alarm_rate, changes[UNCHANGED]["alarms"])
    highest = usual + _BEYOND_CHANCE * math.sqrt(usual * max(1.0 - usual, 0.0) / images)
    alarms = {x: changes[x]["alarms"] for x in STEADINESS if x in changes and ALARMS[x] not in bounded}
    often = sorted((name for name in alarms if alarms[name] > highest), key=lambda name: -alarms[name])
    if not often:
        return None
    worst, *others = often
    words = [IN_WORDS[name] for name in others[:_NAMED]]
    listed = " or ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
    more = f" Too many do so, too, if it is {listed}" + (" (the report lists more)." if others[_NAMED:] else ".")
    return (
        f"{_percent(alarms[worst])} of the normal images ({round(alarms[worst] * images):,} of {images:,}) raise an "
        f"alarm if the picture is {IN_WORDS[worst]} ({worst}), instead of the promised "
        f"{_percent(calibration.false_alarm_rate)}.{more if words else ''} Keep such changes from the camera, or add "
        "training images taken under them (docs/scores.md#steadiness)"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
