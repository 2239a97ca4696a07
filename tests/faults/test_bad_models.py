"""Models that must never be served are refused with a reason, and the model pushed before stays."""

import faults
import pytest
from fault_runs import Runs, weights_digest

pytestmark = pytest.mark.faults
FAILED, REFUSED = 1, 3
OTHER_IMAGES = "on other images than those of split 'train', or its preprocessing is not Transform's"
BROKEN = {
    "trained on shuffled pixels": (faults.train_on, "shuffled", "ModelAnalysis", OTHER_IMAGES),
    "trained on noise": (faults.train_on, "noise", "ModelAnalysis", OTHER_IMAGES),
    "trained on another data set": (faults.train_on, "other", "ModelAnalysis", OTHER_IMAGES),
    "other preprocessing in every signature": (faults.preprocess_otherwise, "every", "ModelAnalysis", OTHER_IMAGES),
    "other preprocessing as served": (faults.preprocess_otherwise, "served", "Pusher", "test image 0"),
}
ANOTHER = "seed=100"
"""Makes the Trainer run again."""
WORSE = ("trainer.epochs=3", "evaluation.max_pca_ratio=null", "evaluation.thresholds=[{metric: mean_error, max: 0.06}]")


@pytest.fixture
def good(spare, undisturbed):
    """Runs with a pushed model, which must stay unchanged."""
    runs, pushed = spare, undisturbed[1].document["pushed"]
    versions, digest = runs.versions, weights_digest(pushed)
    yield runs
    assert runs.versions == versions
    assert weights_digest(pushed) == digest


@pytest.mark.parametrize("kind", BROKEN)
def test_a_model_that_does_not_fit_its_images_fails_the_run(good: Runs, table, kind):
    """Also without a blessed model to compare with: no bound of the gate detects these reliably."""
    fault, detail, component, message = BROKEN[kind]
    ended = good.run(ANOTHER, "evaluation.max_regression=null", fault=fault, details=(detail,))
    assert ended.code == FAILED, ended.stderr
    assert ended.document["error"].startswith(f"{component}: ")
    assert message in ended.document["error"]
    table(f"model {kind}", component, ended.document["error"])


def refused_because(ended, metric, origin):
    assert ended.code == REFUSED, ended.stderr
    assert ended.document["pushed"] is None
    refused = {(row["metric"], row["origin"]): row["reason"] for row in ended.document["thresholds"]}
    assert refused[metric, origin]
    return f"refused: {refused[metric, origin]}"


def test_a_model_with_a_non_finite_weight_fails_the_run(good: Runs, table):
    ended = good.run(ANOTHER, fault=faults.spoil_a_weight)
    assert ended.code == FAILED, ended.stderr
    assert ended.document["error"].startswith(
        "Calibrator: the score 'error' is not finite for 99 of 99 held-out images: the model has non-finite weights"
    )
    table("a non-finite weight", "Calibrator", ended.document["error"])


def test_a_model_worse_than_the_latest_blessed_one_is_refused(good: Runs, table):
    ended = good.run(*WORSE)
    table("worse than the previous model", "Evaluator", refused_because(ended, "mean_error", "baseline"))
