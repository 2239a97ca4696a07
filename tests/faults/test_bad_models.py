"""Models that must never be served, through the real pipeline beside a good one: each refused, each with its reason."""

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
    "other preprocessing in every door": (faults.preprocess_otherwise, "every", "ModelAnalysis", OTHER_IMAGES),
    "other preprocessing as served": (faults.preprocess_otherwise, "served", "Pusher", "test image 0"),
}
ANOTHER = "seed=100"
"""So that the Trainer runs anew."""
WORSE = ("trainer.epochs=3", "evaluation.max_pca_ratio=null", "evaluation.thresholds=[{metric: mean_error, max: 0.06}]")


@pytest.fixture
def good(spare, undisturbed):
    """Runs with a pushed model, which each test leaves as it was."""
    runs, pushed = spare, undisturbed[1].document["pushed"]
    versions, digest = runs.versions, weights_digest(pushed)
    yield runs
    assert runs.versions == versions
    assert weights_digest(pushed) == digest


@pytest.mark.parametrize("kind", BROKEN)
def test_a_model_that_does_not_fit_its_images_ends_the_run_and_nothing_is_pushed(good: Runs, table, kind):
    """Without a blessed model to compare with, too: no bound of the gate tells these, or not reliably."""
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


def test_a_model_with_a_weight_that_is_no_number_ends_the_run(good: Runs, table):
    ended = good.run(ANOTHER, fault=faults.spoil_a_weight)
    assert ended.code == FAILED, ended.stderr
    assert ended.document["error"].startswith(
        "Calibrator: the score 'error' of 197 of 197 held-out images is no finite"
    )
    table("a weight that is no number", "Calibrator", ended.document["error"])


def test_a_model_worse_than_the_one_blessed_last_is_refused(good: Runs, table):
    ended = good.run(*WORSE)
    table("worse than the one before", "Evaluator", refused_because(ended, "mean_error", "baseline"))
