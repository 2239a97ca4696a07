"""Rates of reviewed images, their intervals, and the comparison of two models on the same images."""

import itertools

import numpy as np
import pytest
from scipy.stats import beta, mannwhitneyu, norm
from sklearn.metrics import roc_auc_score

from components.evaluation.reviewed import (
    Judged,
    auroc,
    auroc_interval,
    compare,
    measure_reviewed,
    rates,
    share_interval,
)


def judged(scores, threshold=0.5):
    scores = np.array(scores, np.float64)
    return Judged(scores, ~(scores <= threshold))


@pytest.mark.parametrize("seed", range(5))
def test_the_auroc_is_scikit_learns_also_with_ties(seed):
    random = np.random.default_rng(seed)
    is_anomaly, scores = random.random(60) < 0.3, random.integers(0, 8, 60).astype(float)
    assert auroc(is_anomaly, scores) == pytest.approx(roc_auc_score(is_anomaly, scores))


def test_rates_are_counted_at_the_models_own_threshold():
    is_anomaly = np.array([True, True, True, False, False])
    found = rates(is_anomaly, judged([0.9, 0.6, 0.2, 0.7, 0.1]))
    assert (found["recall"]["count"], found["recall"]["of"]) == (2, 3)
    assert (found["false_alarms"]["count"], found["false_alarms"]["of"]) == (1, 2)
    assert found["auroc"]["value"] == pytest.approx(4 / 6)
    assert found["recall"]["interval"] == pytest.approx((beta.ppf(0.025, 2, 2), beta.ppf(0.975, 3, 1)))


def test_what_cannot_be_measured_is_none():
    only_defects = rates(np.array([True, True]), judged([0.9, 0.1]))
    assert (only_defects["auroc"], only_defects["false_alarms"]) == (None, None)
    infinite = rates(np.array([True, False]), judged([np.nan, 0.1]))
    assert infinite["auroc"] is None
    assert infinite["recall"]["count"] == 1  # not finite is an alarm


def test_the_ends_of_newcombes_interval_are_where_the_score_test_tips():
    for value, positives, negatives in [(0.9, 20, 40), (0.5, 5, 5), (1.0, 4, 6), (0.0, 3, 3)]:
        low, high = auroc_interval(value, positives, negatives)
        assert 0 <= low <= value <= high <= 1
        for end in (low, high):
            if 0 < end < 1:
                half = (positives + negatives) / 2 - 1
                variance = end * (1 - end) * (1 + half * (1 - end) / (2 - end) + half * end / (1 + end))
                deviations = abs(value - end) / np.sqrt(variance / positives / negatives)
                assert deviations == pytest.approx(norm.ppf(0.975), rel=1e-4)
    assert auroc_interval(1.0, 4, 6)[0] < 0.8


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random, covered = np.random.default_rng(1), []
    truth = norm.cdf(1.5 / np.sqrt(2))
    is_anomaly = np.repeat([True, False], [15, 25])
    for _ in range(400):
        scores = random.standard_normal(40) + 1.5 * is_anomaly
        low, high = auroc_interval(auroc(is_anomaly, scores), 15, 25)
        covered.append(low <= truth <= high)
    assert 0.92 <= np.mean(covered) <= 0.99


def test_a_share_has_the_exact_interval():
    assert share_interval(0, 10) == pytest.approx((0.0, beta.ppf(0.975, 1, 10)))
    assert share_interval(10, 10) == pytest.approx((beta.ppf(0.025, 10, 1), 1.0))


def test_the_p_value_is_that_of_all_exchanges():
    """For few images, every exchange of the two models' ranks can be tried."""
    is_anomaly = np.array([True] * 4 + [False] * 5)
    ours, theirs = np.arange(9, 0, -1.0), np.array([9, 2, 7, 1, 6, 5, 8, 4, 3.0])

    def difference(one, other):
        return (
            mannwhitneyu(one[is_anomaly], one[~is_anomaly]).statistic
            - mannwhitneyu(other[is_anomaly], other[~is_anomaly]).statistic
        ) / 20

    seen = [
        difference(np.where(swap, theirs, ours), np.where(swap, ours, theirs))
        for swap in itertools.product([False, True], repeat=9)
    ]
    expected = np.mean(np.abs(seen) >= abs(difference(ours, theirs)) - 1e-9)
    found = compare(is_anomaly, judged(ours), judged(theirs))
    assert found["auroc"]["difference"] == pytest.approx(difference(ours, theirs))
    assert found["auroc"]["p_value"] == pytest.approx(expected, abs=0.015)


def test_better_worse_and_no_difference():
    random = np.random.default_rng(2)
    is_anomaly = np.repeat([True, False], [30, 30])
    noise = random.standard_normal(60)
    good, poor = judged(noise + 3 * is_anomaly), judged(random.standard_normal(60))
    assert compare(is_anomaly, good, poor)["verdict"] == "better"
    assert compare(is_anomaly, poor, good)["verdict"] == "worse"
    same = compare(is_anomaly, good, good)
    assert same["verdict"] == "no_difference"
    assert same["auroc"] == same["right_alarms"] == {"difference": 0.0, "p_value": 1.0}
    stretched = compare(is_anomaly, judged(good.scores * 1000, threshold=500), good)
    assert stretched["verdict"] == "no_difference"  # another scale of the score is no difference


def test_right_alarms_are_compared_by_mcnemars_test():
    defects = np.full(12, True)
    found = compare(defects, judged([1.0] * 10 + [0.0] * 2), judged([0.0] * 12))
    assert (found["auroc"], found["verdict"]) == (None, "better")
    assert found["right_alarms"] == pytest.approx({"difference": 10 / 12, "p_value": 2 * 0.5**10})
    assert compare(defects, judged([1.0] * 12), judged([1.0] * 12))["right_alarms"]["p_value"] == 1.0


def test_a_better_order_with_worse_alarms_is_mixed():
    is_anomaly = np.repeat([True, False], [20, 20])
    ordered_but_silent = judged(np.arange(40, 0, -1.0), threshold=100)
    random = np.random.default_rng(6)
    alarming = judged(np.where(is_anomaly, 0.6 + random.random(40) * 0.3, random.choice([0.4, 0.95], 40, p=[0.7, 0.3])))
    found = compare(is_anomaly, ordered_but_silent, alarming)
    assert (found["auroc"]["difference"] > 0, found["right_alarms"]["difference"] < 0) == (True, True)
    assert found["verdict"] == "mixed"


def test_under_the_null_hypothesis_a_difference_is_rarely_claimed():
    random, claimed = np.random.default_rng(3), []
    is_anomaly = np.repeat([True, False], [6, 8])
    for _ in range(100):
        scores = random.standard_normal((2, 14)) + is_anomaly
        claimed.append(compare(is_anomaly, judged(scores[0]), judged(scores[1]))["verdict"] != "no_difference")
    assert np.mean(claimed) <= 0.1


def test_without_reviewed_images_nothing_is_measured(tmp_path):
    assert measure_reviewed({}, str(tmp_path)) == {}
