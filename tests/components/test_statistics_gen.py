"""Statistics computed file by file equal those that TensorFlow Data Validation computes for all examples at once."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from repository import REPOSITORY
from tfx.types import artifact_utils, standard_artifacts

from components.example_gen.example_bytes import serialize
from components.sources.plan import SourceImage
from components.statistics_gen import MIN_GROUPS, SmallFeaturesStatisticsGenExecutor
from images.stored import from_pixels
from schema import features

SCHEMA_TEXT = REPOSITORY.joinpath("schema/schema.pbtxt").read_text()
FILES = MIN_GROUPS + 20
"""More than groups, so that some groups have one file and some two."""
RANDOM = np.random.default_rng(0)
RECORDS = [
    serialize(
        SourceImage(
            f"{row}", f"class {row % 3}", None, None, from_pixels(RANDOM.integers(0, 256, (8, 9), dtype=np.uint8))
        )
    )
    for row in range(2 * FILES)
]


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("statistics")
    for number in range(FILES):
        write(folder / f"examples/Split-train/{number}", RECORDS[number::FILES])
    examples, statistics = standard_artifacts.Examples(), standard_artifacts.ExampleStatistics()
    examples.uri, statistics.uri = str(folder / "examples"), str(folder / "computed")
    examples.split_names = artifact_utils.encode_split_names([features.TRAIN])
    SmallFeaturesStatisticsGenExecutor().Do(
        {"examples": [examples]}, {"statistics": [statistics]}, {"schema_text": SCHEMA_TEXT}
    )
    [dataset] = tfdv.load_stats_binary(str(folder / "computed/Split-train/FeatureStats.pb")).datasets
    return dataset


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    path = tmp_path_factory.mktemp("expected") / "examples"
    write(path, RECORDS)
    options = tfdv.StatsOptions(feature_allowlist=list(features.STATISTICS_FEATURES))
    [dataset] = tfdv.generate_statistics_from_tfrecord(str(path), stats_options=options).datasets
    return dataset


def by_name(dataset):
    return {feature.path.step[0]: feature for feature in dataset.features}


def test_every_example_counts_and_only_small_features_do(computed, expected):
    assert computed.num_examples == expected.num_examples == len(RECORDS)
    assert set(by_name(computed)) == set(by_name(expected)) == set(features.STATISTICS_FEATURES) - {"is_anomaly"}


@pytest.mark.parametrize("name", [features.HEIGHT_PX, features.MEAN_INTENSITY, features.CONTRAST])
def test_numbers_are_summed_up_alike(name, computed, expected):
    ours, theirs = by_name(computed)[name].num_stats, by_name(expected)[name].num_stats
    for quantity in ("mean", "std_dev", "min", "max", "median"):
        assert getattr(ours, quantity) == pytest.approx(getattr(theirs, quantity))
    assert ours.common_stats == theirs.common_stats
    buckets = [[bucket.sample_count for bucket in side.histograms[0].buckets] for side in (ours, theirs)]
    assert buckets[0] == pytest.approx(buckets[1])


def test_labels_are_counted_alike(computed, expected):
    assert by_name(computed)[features.LABEL].string_stats == by_name(expected)[features.LABEL].string_stats
