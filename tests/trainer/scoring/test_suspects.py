"""Suspects are the images with the highest scores, and their numbers are NumPy's and SciPy's."""

import numpy as np
import pytest
from scipy.stats import median_abs_deviation, percentileofscore

from trainer.scoring.suspects import rank_suspects


def test_the_five_percent_with_the_highest_scores_are_listed_in_order():
    scores = np.random.default_rng(0).gamma(2.0, size=600).astype(np.float32)
    suspects = rank_suspects(scores)
    assert [suspect.index for suspect in suspects] == list(np.argsort(scores)[::-1][:30])
    assert [suspect.rank for suspect in suspects] == list(range(1, 31))
    for suspect in suspects:
        assert suspect.score == pytest.approx(scores[suspect.index])
        assert suspect.p_value == pytest.approx(1 - percentileofscore(scores, scores[suspect.index], "strict") / 100)
        deviations = (scores[suspect.index] - np.median(scores)) / median_abs_deviation(scores, scale="normal")
        assert suspect.deviations == pytest.approx(deviations, rel=1e-4)


@pytest.mark.parametrize(("images", "listed"), [(5, 5), (31, 12), (240, 12), (241, 12), (400, 20), (30_000, 1000)])
def test_at_least_twelve_and_at_most_a_thousand_are_listed(images, listed):
    assert len(rank_suspects(np.arange(images, dtype=np.float32))) == listed


def test_equal_scores_keep_the_order_of_the_images_and_share_a_p_value():
    suspects = rank_suspects(np.array([1, 3, 3, 2], np.float32))
    assert [(s.index, s.p_value) for s in suspects] == [(1, 0.5), (2, 0.5), (3, 0.75), (0, 1.0)]
    assert all(s.deviations == 0 for s in rank_suspects(np.ones(4, np.float32)))


def test_a_score_that_is_not_finite_ranks_first():
    scores = np.array([0.1, np.nan, 0.3, np.inf, 0.2], np.float32)
    suspects = rank_suspects(scores)
    assert {suspect.index for suspect in suspects[:2]} == {1, 3}
    assert all(np.isfinite(suspect.score) for suspect in suspects)
