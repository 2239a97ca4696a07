"""How well models judge the images that people have decided about: rates with intervals, and a comparison."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy.optimize import brentq  # type: ignore[import-untyped]
from scipy.stats import binomtest, norm, rankdata  # type: ignore[import-untyped]
from sklearn.metrics import roc_auc_score

from components.evaluation.bare_examples import bared
from components.evaluation.bounds import BASELINE, CANDIDATE
from runtime.tfrecords import as_many_as_fit, bytes_of, each_record, features_of
from schema.features import IMAGE_ID, IS_ANOMALY
from schema.reviewed import LAST_MODEL, REVIEWED_PREFIX, THIS_MODEL
from schema.signatures import ERROR_LEVELS, SCORE, THRESHOLD

CONFIDENCE: Final = 0.95
_PERMUTATIONS: Final = 10_000
_AT_ONCE: Final = 1_000_000
_SEED: Final = 5
_SMALLEST: Final = 1e-9

Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Judged:
    """A model's scores [N] of the reviewed test images, and which of them exceed its threshold [N]."""

    scores: Values
    is_alarm: Flags


def measure_reviewed(models: Mapping[str, Any], test: str) -> dict[str, Any]:
    """What the models make of the reviewed images of the split in the folder `test`; {} if there are none.

    `models`: name -> signature for tf.Examples. The candidate, and the baseline if there is one, are measured and
    compared.
    """
    records = [record for record in each_record([f"{test}/*"]) if _is_reviewed(record)]
    if not records:
        return {}
    is_anomaly = np.array([features_of(record)[IS_ANOMALY].int64_list.value[0] == 1 for record in records])
    names = {THIS_MODEL: CANDIDATE, LAST_MODEL: BASELINE}
    judged = {told: _judged(models[name], records) for told, name in names.items() if name in models}
    found = {told: rates(is_anomaly, of_model) for told, of_model in judged.items()}
    comparison = compare(is_anomaly, judged[THIS_MODEL], judged[LAST_MODEL]) if LAST_MODEL in judged else None
    return {"defects": int(is_anomaly.sum()), "normal": int((~is_anomaly).sum()), **found, "comparison": comparison}


def rates(is_anomaly: Flags, judged: Judged) -> dict[str, Any]:
    """AUROC, recall and false alarms, each with its interval; None without images to measure it on.

    Recall and false alarms, at the model's own threshold, also have their numbers of images.
    """
    defects, normal = is_anomaly, ~is_anomaly
    found: dict[str, Any] = {"auroc": None}
    if defects.any() and normal.any() and np.isfinite(judged.scores).all():
        value = auroc(is_anomaly, judged.scores)
        found["auroc"] = {"value": value, "interval": auroc_interval(value, int(defects.sum()), int(normal.sum()))}
    for name, chosen in (("recall", defects), ("false_alarms", normal)):
        count, total = int(judged.is_alarm[chosen].sum()), int(chosen.sum())
        found[name] = {"count": count, "of": total, "interval": share_interval(count, total)} if total else None
    return found


def auroc(is_anomaly: Flags, scores: Values) -> float:
    """The probability that an anomaly scores higher than a normal image, ties counting half (Mann-Whitney)."""
    return float(roc_auc_score(is_anomaly, scores))


def auroc_interval(value: float, positives: int, negatives: int) -> Interval:
    """Newcombe's 95 % interval of an AUROC (2006, Statistics in Medicine 25:559, method 5).

    The ends are the values whose own standard error reaches the observed one, so an AUROC of 1 from few images has a
    wide interval, unlike with DeLong's method or the bootstrap.
    """
    z, half = float(norm.ppf(0.5 + CONFIDENCE / 2)), (positives + negatives) / 2 - 1

    def excess(theta: float) -> float:
        variance = theta * (1 - theta) / (positives * negatives)
        variance *= 1 + half * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (theta - value) ** 2 - z**2 * variance

    low = 0.0 if value <= _SMALLEST else brentq(excess, 0.0, value - _SMALLEST)
    high = 1.0 if value >= 1 - _SMALLEST else brentq(excess, value + _SMALLEST, 1.0)
    return float(low), float(high)


def share_interval(count: int, total: int) -> Interval:
    """The Clopper-Pearson 95 % interval of a share."""
    found = binomtest(count, total).proportion_ci(CONFIDENCE, "exact")
    return float(found.low), float(found.high)


def compare(is_anomaly: Flags, candidate: Judged, baseline: Judged) -> dict[str, Any]:
    """Whether the candidate judges the same images better: `verdict` better, worse, mixed or no_difference, and why.

    `right_alarms` compares the shares of images that are judged rightly at each model's threshold, by McNemar's exact
    test. `auroc` compares the AUROCs by the permutation test for paired data: under the null hypothesis, the two
    models' ranks of an image may be exchanged (Bandos, Rockette & Gur 2005, Statistics in Medicine 24:2873); it is None
    without both kinds of images, or if a score is not finite. Each has a `difference` and a `p_value`. A p-value
    counts as a difference if it is at most 0.05 divided by the number of tests (Bonferroni).
    """
    ours, theirs = (judged.is_alarm == is_anomaly for judged in (candidate, baseline))
    gained, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    tests: dict[str, Any] = {
        "auroc": None,
        "right_alarms": {"difference": (gained - lost) / len(is_anomaly), "p_value": p_value},
    }
    finite = np.isfinite(candidate.scores).all() and np.isfinite(baseline.scores).all()
    if finite and is_anomaly.any() and not is_anomaly.all():
        difference, p_value = _auroc_test(is_anomaly, candidate.scores, baseline.scores)
        tests["auroc"] = {"difference": difference, "p_value": p_value}
    made = [test for test in tests.values() if test]
    signs = {test["difference"] > 0 for test in made if test["p_value"] <= (1 - CONFIDENCE) / len(made)}
    verdict = "mixed" if len(signs) == 2 else "no_difference" if not signs else "better" if signs == {True} else "worse"
    return {"verdict": verdict, **tests}


def _auroc_test(is_anomaly: Flags, ours: Values, theirs: Values) -> tuple[float, float]:
    """(difference of the AUROCs, two-sided p-value).

    The difference is linear in which images are exchanged: with K_ab(i, j) for "defect i ranks above normal image j",
    the defect's rank being model a's and the normal one's model b's, an exchange of i turns row i of K_00 - K_11 into
    that of K_10 - K_01, and so on. So sums over rows and columns are enough, whatever the number of images.
    """
    ranks = [rankdata(ours), rankdata(theirs)]
    defects, normal = ([of_model[chosen] for of_model in ranks] for chosen in (is_anomaly, ~is_anomaly))
    pairs = len(defects[0]) * len(normal[0])

    def rows(a: int, b: int) -> Values:
        return _ranked_below(defects[a], normal[b])

    def columns(a: int, b: int) -> Values:
        return len(defects[a]) - _ranked_below(normal[b], defects[a])

    total = (rows(0, 0) - rows(1, 1)).sum()
    of_defect = rows(0, 0) - rows(1, 1) + rows(0, 1) - rows(1, 0)
    of_normal = columns(0, 1) - columns(1, 0) - columns(0, 0) + columns(1, 1)
    weights = np.empty(len(is_anomaly))
    weights[is_anomaly], weights[~is_anomaly] = -of_defect, of_normal
    random, at_once = np.random.default_rng(_SEED), max(1, _AT_ONCE // len(weights))
    as_large = 0
    for start in range(0, _PERMUTATIONS, at_once):
        exchanged = random.random((min(at_once, _PERMUTATIONS - start), len(weights))) < 0.5
        as_large += int((np.abs(total + exchanged @ weights) >= abs(total) - _SMALLEST).sum())
    return float(total / pairs), (1 + as_large) / (1 + _PERMUTATIONS)


def _ranked_below(values: Values, others: Values) -> Values:
    """For each value, how many of the others are smaller, equal ones counting half."""
    ascending = np.sort(others)
    found: Values = (np.searchsorted(ascending, values, "left") + np.searchsorted(ascending, values, "right")) / 2
    return found


def _judged(signature: Any, records: list[bytes]) -> Judged:
    at_a_time = as_many_as_fit(signature.structured_outputs[ERROR_LEVELS].shape[1:])

    @tf.function
    def numbers_of(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = signature(examples=batch)
        return outputs[SCORE], outputs[THRESHOLD]

    bare = [bared(record) for record in records]
    batches = (tf.constant(bare[start : start + at_a_time]) for start in range(0, len(bare), at_a_time))
    scores, thresholds = (np.concatenate(parts) for parts in zip(*map(numbers_of, batches), strict=True))
    # A score that is not finite is an alarm.
    return Judged(scores.astype(np.float64), ~(scores <= thresholds))


def _is_reviewed(record: bytes) -> bool:
    return bytes_of(features_of(record), IMAGE_ID).startswith(REVIEWED_PREFIX.encode())
