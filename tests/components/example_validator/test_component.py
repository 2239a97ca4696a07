"""Images that do not fit the schema stop the run, and the message lists the anomalies."""

import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from repository import REPOSITORY
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import schema_utils
from tfx.types import artifact_utils, standard_artifacts

from components.example_gen.example_bytes import serialize
from components.example_validator.component import StrictExampleValidatorExecutor
from components.schema_gen import CuratedSchemaGen, CuratedSchemaGenExecutor
from components.settings import DriftSettings
from components.sources.files import DataError
from components.sources.plan import SourceImage
from images.stored import StoredImage
from schema import features

SCHEMA_TEXT = REPOSITORY.joinpath("schema/schema.pbtxt").read_text()


def example(**stored):
    fitting = {"encoded": b"", "height_px": 8, "width_px": 8, "channels": 1, "mean_intensity": 0.5, "contrast": 0.2}
    fitting["pixel_digest"] = b""
    image = SourceImage("a", "cat", None, 0, StoredImage(**{**fitting, **stored}), mask=b"", group="left")
    return tf.train.Example.FromString(serialize(image))


def validate(tmp_path, examples):
    """StrictExampleValidator on the statistics of `examples`, with the shipped schema."""
    tfdv_options = tfdv.StatsOptions(feature_allowlist=list(features.STATISTICS_FEATURES))
    records = str(tmp_path / "examples")
    with tf.io.TFRecordWriter(records) as writer:
        for one in examples:
            writer.write(one.SerializeToString())
    statistics, schema, anomalies = (
        made()
        for made in (
            standard_artifacts.ExampleStatistics,
            standard_artifacts.Schema,
            standard_artifacts.ExampleAnomalies,
        )
    )
    for artifact, name in ((statistics, "statistics"), (schema, "schema"), (anomalies, "anomalies")):
        artifact.uri = str(tmp_path / name)
    statistics.split_names = anomalies.split_names = artifact_utils.encode_split_names(["train"])
    folder = tmp_path / "statistics/Split-train"
    folder.mkdir(parents=True)
    made = tfdv.generate_statistics_from_tfrecord(records, stats_options=tfdv_options)
    (folder / "FeatureStats.pb").write_bytes(made.SerializeToString())
    (tmp_path / "schema").mkdir()
    CuratedSchemaGenExecutor().Do({}, {"schema": [schema]}, {"schema_text": SCHEMA_TEXT})
    StrictExampleValidatorExecutor().Do(
        {"statistics": [statistics], "schema": [schema]},
        {"anomalies": [anomalies]},
        {"drift": DriftSettings(action="ignore").model_dump_json()},
    )


def test_fitting_images_pass(tmp_path):
    validate(tmp_path, [example(), example(height_px=9)])


def test_four_channels_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="train: channels: Unexpectedly large value: 4"):
        validate(tmp_path, [example(), example(channels=4)])


def test_an_intensity_outside_zero_to_one_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="train: mean_intensity: "):
        validate(tmp_path, [example(), example(mean_intensity=127.0)])


def test_the_shipped_schema_names_the_features_that_examples_have():
    schema = text_format.Parse(SCHEMA_TEXT, schema_pb2.Schema())
    assert {feature.name for feature in schema.feature} == set(example().features.feature)


def test_examples_with_and_without_normality_and_mask_are_parsed_together():
    schema = text_format.Parse(SCHEMA_TEXT, schema_pb2.Schema())
    bare, full = example(), example()
    for name in (features.IS_ANOMALY, features.MASK):
        del bare.features.feature[name]
    serialized = [bare.SerializeToString(), full.SerializeToString()]
    parsed = tf.io.parse_example(serialized, schema_utils.schema_as_feature_spec(schema).feature_spec)
    assert parsed[features.MASK].indices.numpy().tolist() == [[1, 0]]
    assert parsed[features.IS_ANOMALY].indices.numpy().tolist() == [[1, 0]]
    assert parsed[features.IMAGE].shape == (2,)


def test_an_invalid_schema_is_refused_when_the_pipeline_is_built():
    with pytest.raises(text_format.ParseError):
        CuratedSchemaGen(schema_text="feature { nam: 'image' }")
