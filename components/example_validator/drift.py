"""Measures drift and skew of image statistics with TensorFlow Data Validation and describes them in words."""

import copy
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.settings import DriftFeature

Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList
Limits: TypeAlias = dict[DriftFeature, float]
Numbers: TypeAlias = npt.NDArray[np.float64]
_BINS: Final = 20
"""Two sets of nine deciles divide the numbers into at most one bin less."""


class Change(NamedTuple):
    """One feature that differs more between two sets of images than its limit allows."""

    feature: str
    before: str
    after: str
    divergence: float
    limit: float

    @property
    def in_words(self) -> str:
        divergence = f"Jensen-Shannon divergence {self.divergence:.2f}, limit {self.limit:.2f}"
        return f"{self.before} -> {self.after} ({divergence})"


def find_drift(before: Statistics, after: Statistics, schema: schema_pb2.Schema, limits: Limits) -> list[Change]:
    """What changed between the images of two runs, by the schema's drift comparators; `limits` override theirs."""
    return _find(before, after, schema, limits, comparator="drift_comparator")


def find_skew(train: Statistics, held_out: Statistics, schema: schema_pb2.Schema, limits: Limits) -> list[Change]:
    """What differs between two splits of one run, by the schema's skew comparators; `limits` override theirs."""
    return _find(train, held_out, schema, limits, comparator="skew_comparator")


def _find(
    before: Statistics, after: Statistics, schema: schema_pb2.Schema, limits: Limits, *, comparator: str
) -> list[Change]:
    """Changes with our own description, because TFDV's message for a numeric feature gives only the divergence."""
    before, after = copy.deepcopy(before), copy.deepcopy(after)
    olds, news = _by_name(before), _by_name(after)
    compared = schema_pb2.Schema()
    for feature in schema.feature:
        if feature.HasField(comparator) and feature.name in olds and feature.name in news:
            old, new = olds[feature.name], news[feature.name]
            _bin_by_deciles(old, new)
            wanted = getattr(feature, comparator).jensen_shannon_divergence.threshold
            limit = limits.get(feature.name, wanted) + _expected_by_chance(old, new, before, after)
            kept = compared.feature.add(name=feature.name, type=feature.type)
            kept.drift_comparator.jensen_shannon_divergence.threshold = limit
    found = tfdv.validate_statistics(after, compared, previous_statistics=before)
    changes = []
    for info in found.drift_skew_info:
        [name] = info.path.step
        for measured in info.drift_measurements:
            if measured.value > measured.threshold:
                words = _in_words(olds[name], news[name])
                changes.append(Change(name, *words, divergence=measured.value, limit=measured.threshold))
    return sorted(changes)


def _by_name(statistics: Statistics) -> dict[str, Any]:
    return {feature.path.step[0]: feature for feature in statistics.datasets[0].features}


def _expected_by_chance(old: Any, new: Any, before: Statistics, after: Statistics) -> float:
    """A divergence that two samples of one distribution rarely exceed; the fewer images, the larger.

    For k equally filled bins the average is (k - 1) / (8 ln 2) (1/n + 1/m) bits (chi-square approximation); k / 4
    leaves room for spread.
    """
    bins = max(_BINS, old.string_stats.unique, new.string_stats.unique)
    counts = [max(1, statistics.datasets[0].num_examples) for statistics in (before, after)]
    return bins / 4 * sum(1 / count for count in counts)


def _bin_by_deciles(old: Any, new: Any) -> None:
    """Give two numeric features histograms with the same bins, divided by the deciles of both.

    The bins of TFDV are equally wide, from the smallest value to the largest. A single odd image widens them so much
    that all others share one, and a constant has one bin of no width: either looks like a completely different
    distribution.
    """
    if not (old.HasField("num_stats") and new.HasField("num_stats")):
        return
    quantiles = [_quantiles(feature) for feature in (old, new)]
    limits = np.unique([limit for values, _ in quantiles for limit in values[1:-1]])
    for feature, (values, counts) in zip((old, new), quantiles, strict=True):
        in_bins = np.diff(_at_most(limits, values, counts), prepend=0.0, append=counts[-1])
        [standard] = (one for one in feature.num_stats.histograms if one.type == one.STANDARD)
        del standard.buckets[:]
        for place, count in enumerate(in_bins):  # only whether bins are the same matters, not where they lie
            standard.buckets.add(low_value=place, high_value=place + 1, sample_count=count)


def _quantiles(feature: Any) -> tuple[Numbers, Numbers]:
    """The smallest value, the deciles and the largest value; how many images have at most each of them."""
    [deciles] = (one for one in feature.num_stats.histograms if one.type == one.QUANTILES)
    values = [deciles.buckets[0].low_value, *(bucket.high_value for bucket in deciles.buckets)]
    return np.array(values), np.cumsum([0.0, *(bucket.sample_count for bucket in deciles.buckets)])


def _at_most(limits: Numbers, values: Numbers, counts: Numbers) -> Numbers:
    """How many images have at most each limit, by `_quantiles`, if those between two deciles are evenly spread."""
    last = np.append(np.diff(values) > 0, True)  # of several images of one value, all count
    return np.interp(limits, values[last], counts[last], left=0.0)


def _in_words(old: Any, new: Any) -> tuple[str, str]:
    """Before and after: the mean, the range of sizes, or the share of the label that changed most."""
    if old.HasField("num_stats"):
        words = _describe_numbers(old.num_stats), _describe_numbers(new.num_stats)
        return words if words[0] != words[1] else (_describe_range(old.num_stats), _describe_range(new.num_stats))
    old_shares, new_shares = _shares(old), _shares(new)
    label = max(
        sorted(old_shares | new_shares), key=lambda name: abs(new_shares.get(name, 0) - old_shares.get(name, 0))
    )
    return f"{label!r} {old_shares.get(label, 0):.0%}", f"{new_shares.get(label, 0):.0%}"


def _describe_numbers(numbers: Any) -> str:
    is_whole = float(numbers.min).is_integer() and float(numbers.max).is_integer() and numbers.max > 1
    if not is_whole:
        return f"{numbers.mean:.2g}"
    return f"{numbers.min:.0f}" if numbers.min == numbers.max else f"{numbers.min:.0f} to {numbers.max:.0f}"


def _describe_range(numbers: Any) -> str:
    return f"{numbers.min:.3g} to {numbers.max:.3g} with mean {numbers.mean:.3g}"


def _shares(feature: Any) -> dict[str, float]:
    counts = {bucket.label: bucket.sample_count for bucket in feature.string_stats.rank_histogram.buckets}
    total = sum(counts.values()) or 1.0
    return {label: count / total for label, count in counts.items()}
