"""The conformal threshold keeps its promise, and refuses to make one it cannot keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.calibration import TooFewImagesError, conformal_threshold, images_needed


@pytest.mark.parametrize(("rate", "needed"), [(0.5, 1), (0.1, 9), (0.05, 19), (0.01, 99), (0.005, 199)])
def test_images_needed(rate, needed):
    assert images_needed(rate) == needed


def test_the_threshold_is_the_conformal_rank():
    scores = np.arange(1.0, 100.0, dtype=np.float32)  # 1 ... 99
    assert conformal_threshold(scores, 0.01) == 99.0
    assert conformal_threshold(scores, 0.05) == 95.0
    assert conformal_threshold(scores[::-1], 0.10) == 90.0


@given(st.integers(1, 400), st.floats(0.004, 0.9))
def test_a_fresh_image_exceeds_it_with_at_most_the_rate(count, rate):
    """By exchangeability the fresh score's rank is uniform: count the ranks that exceed the threshold."""
    if count < images_needed(rate):
        with pytest.raises(TooFewImagesError):
            conformal_threshold(np.zeros(count, np.float32), rate)
        return
    ranks = np.arange(count + 1, dtype=np.float32)
    alarms = sum(fresh > conformal_threshold(np.delete(ranks, int(fresh)), rate) for fresh in ranks)
    assert alarms / (count + 1) <= rate + 1e-9


def test_too_few_images_says_how_many_and_what_rate_would_do():
    with pytest.raises(TooFewImagesError, match=r"at least 99 images in split 'eval', which holds 20.*0\.0477 or more"):
        conformal_threshold(np.zeros(20, np.float32), 0.01)
    conformal_threshold(np.zeros(20, np.float32), 0.0477)
