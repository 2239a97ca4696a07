"""Warnings about a model that no bound refuses, with their causes, and where chance explains them, no warning."""

import math

import pytest

from components.evaluation.advice import advice_on
from schema.calibration_record import CalibrationRecord, GroupRecord

METRICS = {"recall": 4 / 30, "recall_at_1pct": 6 / 30, "recall_at_5pct": 13 / 30}
IMAGES = (20, 30)


def calibrated(images, rate, method="split", **groups):
    return CalibrationRecord(threshold=1.0, images=images, false_alarm_rate=rate, method=method, **groups)


def test_a_threshold_from_few_images_that_misses_many_defects_is_a_warning_with_cause_and_remedy():
    assert advice_on(METRICS, IMAGES, calibrated(10, 1 / 11)) == [
        "at its own threshold the model finds 13.3 % of the defects (4 of 30), at one with 5 % of false alarms among "
        "the same images 43.3 %. Only 10 normal images calibrate it, so it promises a rate of 9.09 %, give or take "
        "9.1 points: raise data.eval_fraction or add normal images (docs/scores.md#from-a-score-to-an-alarm)"
    ]


def test_where_all_images_calibrate_already_only_more_images_help():
    [warning] = advice_on({**METRICS, "recall_at_5pct": 1.0}, (200, 30), calibrated(60, 0.05, "cross"))
    deviation = 100 * math.sqrt(0.05 * 0.95 / 60)
    assert "the same images 100 %." in warning
    assert f"a rate of 5 %, give or take {deviation:.2g} points: add normal images" in warning


def test_the_smallest_group_counts():
    group = {"typical": 0.0, "threshold": 1.0, "pixel_threshold": 1.0, "pixel_false_alarm_rate": 0.05}
    groups = tuple(
        GroupRecord(name=name, images=images, false_alarm_rate=rate, **group)
        for name, images, rate in [("mono", 400, 0.05), ("poly", 12, 1 / 13)]
    )
    [warning] = advice_on(METRICS, IMAGES, calibrated(412, 1 / 13, groups=groups))
    assert "Only 12 normal images" in warning


@pytest.mark.parametrize(
    ("metrics", "images", "calibration"),
    [
        ({"recall": 0.4, "recall_at_5pct": 13 / 30}, IMAGES, calibrated(10, 1 / 11)),  # 1 of 30 more
        ({"recall": 1 / 5, "recall_at_5pct": 3 / 5}, (20, 5), calibrated(10, 1 / 11)),  # 2 of 5 more may be chance
        ({"recall": 1.0, "recall_at_5pct": 0.8}, IMAGES, calibrated(10, 1 / 11)),
        (METRICS, (20, 30), calibrated(60, 0.05)),  # 1 of 20 false alarms stands for 2 of 21, twice the promise
        (METRICS, (200, 30), calibrated(400, 0.05)),  # many calibrate it
        (METRICS, (200, 30), calibrated(400, 0.002)),  # a lower rate than any that is measured
        ({"recall": 0.1}, IMAGES, calibrated(10, 1 / 11)),
        ({}, (20, 0), calibrated(10, 1 / 11)),  # no anomalies are known
        (METRICS, IMAGES, None),
    ],
)
def test_no_warning_where_chance_explains_it_or_nothing_is_known(metrics, images, calibration):
    assert advice_on(metrics, images, calibration) == []
