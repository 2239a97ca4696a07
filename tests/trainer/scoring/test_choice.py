"""The choice of a score, with scikit-learn's AUROC as the oracle."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from images.synthetic_defects import KINDS, paint
from trainer.scoring.choice import PREFERENCE, auroc_contributions, choice_of, choose
from trainer.scoring.learners import ScoreError
from trainer.scoring.scores import SCORES
from trainer.settings.calibration import ScoreName

RANDOM = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def same_numbers_in_any_order_of_the_tests():
    RANDOM.bit_generator.state = np.random.default_rng(5).bit_generator.state


def auroc(normal, defective):
    return roc_auc_score(np.repeat([0, 1], [len(normal), len(defective)]), np.concatenate([normal, defective]))


def noisy(shift, count=60):
    """(scores of normal images, scores with defects): `shift` standard deviations apart."""
    normal = RANDOM.normal(size=count)
    return normal, RANDOM.normal(shift, size=count)


def chosen(**pairs):
    """The choice among scores, given (normal, defective) of one kind for each."""
    return choice_of({k: v[0] for k, v in pairs.items()}, {"blob": {k: v[1] for k, v in pairs.items()}})


def test_auto_compares_every_score_but_the_ensemble():
    assert {*PREFERENCE, "ensemble"} == set(SCORES) == set(ScoreName.__args__)


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_contributions_average_to_the_auroc_with_ties_counted_half(digits):
    normal, defective = (np.round(values, digits) for values in noisy(0.7))
    assert auroc_contributions(normal, defective).mean() == pytest.approx(auroc(normal, defective), abs=1e-12)


def test_the_score_that_clearly_finds_more_is_chosen():
    choice = chosen(error=noisy(0.0), neighbour_distance=noisy(2.0))
    assert choice.score == "neighbour_distance"
    assert set(choice.auroc) == {"error", "neighbour_distance"}


def test_among_equally_good_scores_the_order_of_preference_decides():
    """The later score is better in one image of 60, which may be chance."""
    normal, defective = noisy(1.0)
    better = defective.copy()
    better[np.argmin(better)] += 0.3
    pairs = {PREFERENCE[4]: (normal, better), PREFERENCE[1]: (normal, defective), PREFERENCE[7]: (normal, better)}
    assert chosen(**pairs).score == PREFERENCE[1]


def test_the_standard_error_is_that_of_repeated_draws():
    """A score that is better by 1.5 standard errors of the simulated difference wins, by 0.5 it does not."""
    differences = [auroc(*noisy(1.0)) - auroc(*noisy(0.7)) for _ in range(400)]
    gaps, wins = np.array(differences) / np.std(differences), []
    for _ in range(200):
        first, second = noisy(0.7), noisy(1.0)
        wins.append((auroc(*second) - auroc(*first), chosen(error=first, patch_max=second).score == "patch_max"))
    gap, won = map(np.array, zip(*wins, strict=True))
    deviation = np.std(differences)
    assert abs(np.mean(gaps)) < 3
    assert won[gap > 1.5 * deviation].mean() > 0.95
    assert won[gap < 0.5 * deviation].mean() < 0.05


def test_a_score_that_is_not_finite_is_an_error_even_if_others_are():
    """A latent may be finite although the decoder has lost a weight."""
    broken = np.where(np.arange(60) < 3, np.nan, 0.0)
    with pytest.raises(ScoreError, match="the score 'error' is not finite for 3 of 60 held-out images.*clip_norm"):
        chosen(error=(broken, broken), latent_distance=noisy(1.0))


def test_the_defects_are_painted_into_the_images_and_scored_like_them():
    """The oracle paints all images at once and scores them with NumPy: brightness as the score."""
    images = RANDOM.uniform(0, 0.4, (7, 12, 12, 1)).astype(np.float32)

    def batches():
        for start in (0, 7):
            if len(images[start : start + 7]):
                yield tf.constant(images[start : start + 7]), {"level": tf.reduce_mean(images, axis=[1, 2, 3])}

    choice = choose(
        {"error": lambda pixels, outputs: outputs["level"], "patch_max": lambda pixels, outputs: -outputs["level"]},
        batches,
        lambda pixels: {"level": tf.reduce_mean(pixels, axis=[1, 2, 3])},
    )
    for kind in KINDS:
        defective = paint(images, kind, seed=20).mean(axis=(1, 2, 3))
        assert choice.auroc["error"][kind] == pytest.approx(auroc(images.mean(axis=(1, 2, 3)), defective))
        assert choice.auroc["patch_max"][kind] == pytest.approx(1 - choice.auroc["error"][kind])
    assert choice.score == "error"
