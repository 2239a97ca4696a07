"""The conformal threshold guarantees its false-alarm rate, or the lowest rate that so few images can guarantee."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.scoring.calibration import (
    attainable_rate,
    conformal_threshold,
    images_needed,
    p_values,
    rests_on_few_images,
    thinned,
    thresholds_at,
)


@pytest.mark.parametrize(("rate", "needed"), [(0.5, 1), (0.1, 9), (0.05, 19), (0.01, 99), (0.005, 199)])
def test_images_needed(rate, needed):
    assert images_needed(rate) == needed


def test_the_threshold_is_the_conformal_rank():
    scores = np.arange(1.0, 100.0, dtype=np.float32)  # 1 ... 99
    assert conformal_threshold(scores, 0.01) == 99.0
    assert conformal_threshold(scores, 0.05) == 95.0
    assert conformal_threshold(scores[::-1], 0.10) == 90.0


@settings(deadline=None)
@given(st.integers(1, 400), st.floats(0.004, 0.9))
def test_a_new_image_exceeds_the_threshold_at_most_at_the_rate(count, rate):
    """By exchangeability the rank of the new score is uniform, so count the ranks that exceed the threshold."""
    rate = attainable_rate(count, rate)
    ranks = np.arange(count + 1, dtype=np.float32)
    alarms = sum(fresh > conformal_threshold(np.delete(ranks, int(fresh)), rate) for fresh in ranks)
    assert alarms / (count + 1) <= rate + 1e-9


@pytest.mark.parametrize("rate", [0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.995])
@pytest.mark.parametrize("count", [199, 200, 1000, 60_000])
def test_p_values_and_thresholds_in_the_graph_match_the_conformal_threshold(count, rate):
    held_out = np.sort(np.random.default_rng(count).choice(500, count).astype(np.float32))  # ties included
    fresh = np.arange(-1, 502, dtype=np.float32)
    threshold = conformal_threshold(held_out, rate)
    alarms = fresh > threshold
    assert np.array_equal(p_values(held_out, fresh).numpy() <= rate + 1e-7, alarms)
    assert thresholds_at(held_out, np.array([rate], np.float32)).numpy().tolist() == [threshold]


def test_a_rate_that_needs_more_images_raises_no_alarm():
    held_out = np.arange(20, dtype=np.float32)
    assert thresholds_at(held_out, np.array([0.01, 0.05], np.float32)).numpy().tolist() == [np.inf, 19.0]
    assert p_values(held_out, np.array([1e9], np.float32)).numpy()[0] == pytest.approx(1 / 21)


def test_thinned_scores_keep_both_ends_and_their_order():
    scores = np.arange(25_000, dtype=np.float32)
    kept = thinned(scores, 10_000)
    assert (len(kept), kept[0], kept[-1]) == (10_000, 0.0, 24_999.0)
    assert kept == tuple(sorted(kept))
    assert thinned(scores[:3], 10_000) == (0.0, 1.0, 2.0)


def test_a_rate_that_too_few_images_cannot_guarantee_is_raised_to_the_lowest_that_they_can():
    assert attainable_rate(99, 0.01) == 0.01
    assert attainable_rate(20, 0.01) == pytest.approx(1 / 21)
    assert conformal_threshold(np.arange(20, dtype=np.float32), attainable_rate(20, 0.01)) == 19.0


@pytest.mark.parametrize(
    ("scores", "rate", "images", "without"),
    [
        ([1, 2, 3, 4, 10], 0.2, [4], 4.0),
        ([10, 4, 3, 2, 1], 0.2, [0], 4.0),
        ([-9, -8, -7, -6, 0], 0.2, [4], -6.0),
        ([*range(20), 50, 60], 0.05, [21, 20], 19.0),
        ([70, *range(30), 50, 60], 0.04, [0, 32, 31], 29.0),
        ([70, *range(30), 50, 60], 0.06, [0, 32, 31], 29.0),  # the second highest is the threshold
    ],
)
def test_a_threshold_that_rests_on_few_images(scores, rate, images, without):
    found, lower = rests_on_few_images(np.array(scores, np.float32), rate)
    assert (list(found), lower) == (images, without)


@pytest.mark.parametrize(
    ("scores", "rate"),
    [
        ([1, 2, 3, 4, 10], 0.4),  # the second highest decides
        ([1, 2, 3, 10, 10], 0.2),  # two of five images are as strange
        ([1, 2, 3, 9.5, 10], 0.2),
        ([*range(20), 60, 60, 60], 0.05),  # more than a tenth
        ([*range(40), 100], 0.1),  # the strangest is above the threshold
        (range(40), 0.05),
        ([1, 9], 0.4),
    ],
)
def test_a_threshold_that_rests_on_many_images(scores, rate):
    assert rests_on_few_images(np.array(scores, np.float32), rate) is None


@pytest.mark.parametrize("draw", ["exponential", "normal", "gumbel"])
@pytest.mark.parametrize(("count", "rate"), [(45, 0.05), (200, 0.01), (300, 0.05)])
def test_the_tail_of_images_of_one_kind_is_not_taken_for_strange_images(draw, count, rate):
    samples = getattr(np.random.default_rng(0), draw)(size=(200, count)).astype(np.float32)
    assert sum(rests_on_few_images(scores, rate) is not None for scores in samples) <= 0.06 * len(samples)
