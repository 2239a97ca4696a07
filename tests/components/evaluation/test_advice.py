"""Warnings about a model that no bound refuses, with their causes, and where chance explains them, no warning."""

import math

import pytest

from components.evaluation.advice import advice_on
from images.harmless_changes import IN_WORDS, STEADINESS
from schema.calibration_record import CalibrationRecord, GroupRecord

METRICS = {"recall": 4 / 30, "recall_at_1pct": 6 / 30, "recall_at_5pct": 13 / 30}
IMAGES = (20, 30)
NOT_MEASURED = {"images": 0, "changes": {}}


def calibrated(images, rate, method="split", **groups):
    return CalibrationRecord(threshold=1.0, images=images, false_alarm_rate=rate, method=method, **groups)


def test_a_threshold_from_few_images_that_misses_many_defects_is_a_warning_with_cause_and_remedy():
    assert advice_on(METRICS, IMAGES, calibrated(10, 1 / 11), NOT_MEASURED) == [
        "at its own threshold the model finds 13.3 % of the defects (4 of 30), at one with 5 % of false alarms among "
        "the same images 43.3 %. Only 10 normal images calibrate it, so it promises a rate of 9.09 %, give or take "
        "9.1 points: raise data.eval_fraction or add normal images (docs/scores.md#from-a-score-to-an-alarm)"
    ]


def test_where_all_images_calibrate_already_only_more_images_help():
    [warning] = advice_on({**METRICS, "recall_at_5pct": 1.0}, (200, 30), calibrated(60, 0.05, "cross"), NOT_MEASURED)
    deviation = 100 * math.sqrt(0.05 * 0.95 / 60)
    assert "the same images 100 %." in warning
    assert f"a rate of 5 %, give or take {deviation:.2g} points: add normal images" in warning


def test_the_smallest_group_counts():
    group = {"typical": 0.0, "threshold": 1.0, "pixel_threshold": 1.0, "pixel_false_alarm_rate": 0.05}
    groups = tuple(
        GroupRecord(name=name, images=images, false_alarm_rate=rate, **group)
        for name, images, rate in [("mono", 400, 0.05), ("poly", 12, 1 / 13)]
    )
    [warning] = advice_on(METRICS, IMAGES, calibrated(412, 1 / 13, groups=groups), NOT_MEASURED)
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
    ],
)
def test_no_warning_where_chance_explains_it_or_nothing_is_known(metrics, images, calibration):
    assert advice_on(metrics, images, calibration, NOT_MEASURED) == []


def unsteady(images, **alarms):
    changes = {name: {"alarms": share, "recall": 1.0} for name, share in ({"unchanged": 0.0} | alarms).items()}
    return advice_on({}, (images, 0), calibrated(60, 0.05), {"images": images, "changes": changes})


def test_many_alarms_after_a_harmless_change_are_a_warning_that_names_it_in_words():
    assert unsteady(12, brighter_20=8 / 12, darker_20=1 / 12) == [
        "66.7 % of the normal images (8 of 12) raise an alarm if the picture is 20 % brighter (brighter_20), instead "
        "of the promised 5 %. Keep such changes from the camera, or add training images taken under them "
        "(docs/scores.md#steadiness)"
    ]
    [warning] = unsteady(64, noise_2=0.9, shift_1=1.0, blur=0.5, gamma_90=0.6, warmer=0.7, shading=0.1)
    assert "is shifted by 1 % of its width and height (shift_1)" in warning
    assert (
        "Too many do so, too, if it is noisy by 2 of 255 levels, redder by 5 % or brighter in its middle tones "
        "(gamma 0.9) (the report lists more)."
    ) in warning


@pytest.mark.parametrize(
    ("images", "alarms"),
    [
        (64, {}),
        (64, {"blur": 0.1}),  # twice what is promised
        (20, {"blur": 0.2}),  # 4 of 20 where 2 are tolerated: two standard errors are 2.7
        (64, {"unchanged": 0.3, "blur": 0.35}),  # the images are strange without a change
        (64, {"unchanged": 1.0, "blur": 1.0}),
    ],
)
def test_no_warning_if_chance_or_the_images_themselves_explain_the_alarms(images, alarms):
    assert unsteady(images, **alarms) == []


def test_every_change_has_words():
    assert list(IN_WORDS) == list(STEADINESS)
