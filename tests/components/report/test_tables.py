"""The report's sentences."""

import pytest

from components.report.tables import verdict_sentence


def bound(*, passed=True, reason=None):
    return {"passed": passed, "reason": reason}


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([bound()], "Blessed: the model meets its only bound, and its mean error is 50 % below PCA's."),
        ([bound(), bound()], "Blessed: the model meets both bounds, and its mean error is 50 % below PCA's."),
        ([bound()] * 3, "Blessed: the model meets all 3 bounds, and its mean error is 50 % below PCA's."),
        ([bound(), bound(passed=False, reason="x is 2")], "Refused: x is 2."),
        ([bound(passed=False, reason="x")] * 2, "Refused: x (1 more bound is not met)."),
        ([bound(passed=False, reason="x")] * 3, "Refused: x (2 more bounds are not met)."),
    ],
)
def test_the_verdict_is_one_sentence(rows, sentence):
    assert verdict_sentence({"thresholds": rows, "metrics": {"mean_error": 0.05, "pca_mean_error": 0.1}}) == sentence


def test_the_verdict_of_a_detector_compares_its_detection():
    gate = {
        "purpose": "detect",
        "thresholds": [{"passed": True}] * 3,
        "metrics": {"mean_error": 0.05, "pca_mean_error": 0.1, "synthetic_auroc": 0.75},
        "simple_models": {"PCA": {"synthetic_auroc": 0.5}, "nearest neighbours": {"synthetic_auroc": 0.625}},
    }
    assert verdict_sentence(gate) == (
        "Blessed: the model meets all 3 bounds, and its AUROC for faint defects is 0.750 "
        "(PCA 0.500, nearest neighbours 0.625)."
    )
    assert "below PCA's" in verdict_sentence({**gate, "purpose": "reconstruct"})
