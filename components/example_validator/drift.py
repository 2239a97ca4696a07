"""Measures drift and skew of image statistics with TensorFlow Data Validation and describes them in words."""

import copy
from typing import Any, Final, NamedTuple, TypeAlias

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.settings import DriftFeature

Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList
Limits: TypeAlias = dict[DriftFeature, float]
_HISTOGRAM_BINS: Final = 20
"""Two histograms of ten buckets each have at most this many different boundaries."""


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
            _share_buckets(old, new)
            _share_buckets(new, old)
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
    bins = max(_HISTOGRAM_BINS, old.string_stats.unique, new.string_stats.unique)
    counts = [max(1, statistics.datasets[0].num_examples) for statistics in (before, after)]
    return bins / 4 * sum(1 / count for count in counts)


def _share_buckets(constant: Any, other: Any) -> None:
    """Sort the values of a constant feature into the other side's buckets.

    TFDV gives it one bucket of zero width, which matches no other: a single image of another size among thousands would
    count as a completely different distribution.
    """
    if constant.num_stats.min != constant.num_stats.max or other.num_stats.min == other.num_stats.max:
        return
    value = constant.num_stats.min
    for kind, histogram in enumerate(constant.num_stats.histograms):
        buckets = other.num_stats.histograms[kind].buckets
        if not buckets or not buckets[0].low_value <= value <= buckets[-1].high_value:
            return
        total = sum(bucket.sample_count for bucket in histogram.buckets)
        del histogram.buckets[:]
        histogram.buckets.extend(buckets)
        home = next(index for index, bucket in enumerate(buckets) if value <= bucket.high_value)
        for index, bucket in enumerate(histogram.buckets):
            bucket.sample_count = total if index == home else 0.0


def _in_words(old: Any, new: Any) -> tuple[str, str]:
    """Before and after: the mean, the range of sizes, or the share of the label that changed most."""
    if old.HasField("num_stats"):
        return _describe_numbers(old.num_stats), _describe_numbers(new.num_stats)
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


def _shares(feature: Any) -> dict[str, float]:
    counts = {bucket.label: bucket.sample_count for bucket in feature.string_stats.rank_histogram.buckets}
    total = sum(counts.values()) or 1.0
    return {label: count / total for label, count in counts.items()}
