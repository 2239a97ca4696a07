"""Images that differ from those of the newest pushed model stop the run, and the message describes the change."""

import json

import numpy as np
import pandas as pd
import pytest
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from repository import REPOSITORY
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.types import artifact_utils, standard_artifacts

from components.example_validator.component import StrictExampleValidatorExecutor
from components.example_validator.drift import find_drift
from components.settings import DriftSettings
from components.sources.files import DataError
from schema import features

SCHEMA_TEXT = REPOSITORY.joinpath("schema/schema.pbtxt").read_text()
SCHEMA = text_format.Parse(SCHEMA_TEXT, schema_pb2.Schema())


def statistics_of(count=1000, *, mean=0.13, height_px=28, labels=("",), seed=0, odd=()):
    """Statistics of `count` images with brightness N(mean, 0.03), some `odd`; sizes and labels alternate."""
    random = np.random.default_rng(seed)
    columns = {
        features.LABEL: np.resize(labels, count),
        features.HEIGHT_PX: np.resize(height_px, count),
        features.WIDTH_PX: np.full(count, 28),
        features.CHANNELS: np.full(count, 1),
        features.MEAN_INTENSITY: np.append(np.clip(random.normal(mean, 0.03, count), 0, 1)[len(odd) :], odd).astype(
            "f4"
        ),
        features.CONTRAST: np.clip(random.normal(0.3, 0.02, count), 0, 0.5).astype(np.float32),
    }
    return tfdv.generate_statistics_from_dataframe(pd.DataFrame(columns))


def write_statistics(folder, train, held_out):
    for split, statistics in ((features.TRAIN, train), (features.EVAL, held_out), (features.TEST, held_out)):
        target = folder / f"Split-{split}"
        target.mkdir(parents=True)
        (target / "FeatureStats.pb").write_bytes(statistics.SerializeToString())


def validate(tmp_path, *, pushed=None, train, held_out=None, **drift):
    """Runs StrictExampleValidator on `train`, after a model trained on `pushed` was pushed."""
    statistics, schema, anomalies = (
        standard_artifacts.ExampleStatistics(),
        standard_artifacts.Schema(),
        standard_artifacts.ExampleAnomalies(),
    )
    for artifact, name in ((statistics, "statistics"), (schema, "schema"), (anomalies, "anomalies")):
        artifact.uri = str(tmp_path / name)
    statistics.split_names = artifact_utils.encode_split_names(list(features.SPLITS))
    statistics.set_string_custom_property(artifact_utils.ARTIFACT_TFX_VERSION_CUSTOM_PROPERTY_KEY, "1.16.0")
    write_statistics(tmp_path / "statistics", train, held_out or train)
    (tmp_path / "schema").mkdir()
    (tmp_path / "schema/schema.pbtxt").write_text(SCHEMA_TEXT)
    if pushed:
        write_statistics(tmp_path / "serving/7/assets.extra/statistics", pushed, pushed)
        (tmp_path / "serving/7/saved_model.pb").touch()
    StrictExampleValidatorExecutor().Do(
        {"statistics": [statistics], "schema": [schema]},
        {"anomalies": [anomalies]},
        {"drift": DriftSettings(**drift).model_dump_json(), "push_destination": str(tmp_path / "serving")},
    )


def changes(before, after):
    return {change.feature: change.in_words for change in find_drift(before, after, SCHEMA, {})}


def test_a_brighter_camera_stops_the_run_and_is_described(tmp_path):
    with pytest.raises(DataError) as raised:
        validate(tmp_path, pushed=statistics_of(), train=statistics_of(mean=0.31))
    assert str(raised.value) == (
        f"the training images differ from those of the newest pushed model, {tmp_path}/serving/7:\n"
        "  mean_intensity drifted: 0.13 -> 0.31 (Jensen-Shannon divergence 0.90, limit 0.11)\n"
        "if this change is intended, run once with data.drift.action=warn: the model pushed by that run becomes the "
        "reference; data.drift.limits sets other limits"
    )


def test_the_first_run_has_no_drift(tmp_path):
    validate(tmp_path, train=statistics_of(mean=0.31))


def test_action_warn_only_logs_drift(tmp_path, caplog):
    validate(tmp_path, pushed=statistics_of(), train=statistics_of(mean=0.31), action="warn")
    assert "mean_intensity drifted: 0.13 -> 0.31" in caplog.text
    written = json.loads((tmp_path / "anomalies" / "drift.json").read_text())
    assert written["since"] == str(tmp_path / "serving" / "7")
    assert written["changes"] == {"mean_intensity": "0.13 -> 0.31 (Jensen-Shannon divergence 0.90, limit 0.11)"}


def test_the_first_run_records_that_there_is_nothing_to_compare_with(tmp_path):
    validate(tmp_path, train=statistics_of())
    assert json.loads((tmp_path / "anomalies" / "drift.json").read_text()) == {"since": None, "changes": {}}


def test_action_ignore_logs_nothing(tmp_path, caplog):
    validate(tmp_path, pushed=statistics_of(), train=statistics_of(mean=0.31), action="ignore")
    assert "drifted" not in caplog.text


def test_a_limit_in_the_settings_overrides_the_schema(tmp_path):
    validate(tmp_path, pushed=statistics_of(), train=statistics_of(mean=0.31), limits={"mean_intensity": 1.0})


def test_skew_stops_even_the_first_run(tmp_path):
    with pytest.raises(
        DataError, match=r"differ from those of train,.*\n  mean_intensity differs: 0.13 -> 0.31.*\ntake both"
    ):
        validate(tmp_path, train=statistics_of(), held_out=statistics_of(200, mean=0.31))


def test_a_new_size_is_described_by_its_range():
    found = changes(statistics_of(), statistics_of(height_px=(28, 32)))
    assert found == {"height_px": "28 -> 28 to 32 (Jensen-Shannon divergence 0.31, limit 0.11)"}


def test_one_image_of_another_size_is_not_drift():
    """TFDV itself measures a divergence of 1 between a constant 28 and 28 with one exception."""
    odd = statistics_of(height_px=[28] * 999 + [32])
    assert not changes(statistics_of(), odd)
    assert not changes(odd, statistics_of())


@pytest.mark.parametrize("counts", [(260, 32), (1000, 250), (5000, 1000)])
@pytest.mark.parametrize("odd", [[0.97], [0.0], [0.0, 0.97]])
def test_one_odd_image_is_not_drift(counts, odd):
    """With TFDV's bins of equal width it is: the others then share one or two."""
    usual, with_odd = statistics_of(counts[1], seed=1), statistics_of(counts[0], odd=odd)
    assert not changes(usual, with_odd)
    assert not changes(with_odd, usual)


def test_a_shift_of_the_mean_by_a_standard_deviation_is_drift_despite_an_odd_image():
    assert set(changes(statistics_of(odd=[0.97]), statistics_of(mean=0.16, odd=[0.97]))) == {"mean_intensity"}


def test_another_spread_about_the_same_mean_is_described_by_the_range():
    found = changes(statistics_of(), statistics_of(odd=[0.11] * 500 + [0.15] * 500))
    assert found["mean_intensity"].startswith("0.013 to 0.222 with mean 0.129 -> 0.11 to 0.15 with mean 0.13 (")


def test_a_new_label_is_described_by_its_share():
    found = changes(statistics_of(labels=("cat",)), statistics_of(labels=("cat", "dog")))
    assert found == {"label": "'cat' 100% -> 50% (Jensen-Shannon divergence 0.31, limit 0.11)"}


@pytest.mark.parametrize("count", [10, 60, 250])
@pytest.mark.parametrize("seed", range(5))
def test_differences_by_chance_between_few_images_are_not_drift(count, seed):
    labels = [str(label) for label in np.random.default_rng(seed).integers(0, 10, count)]
    heights = np.random.default_rng(seed).choice([28, 32, 40, 64], count)
    before, after = statistics_of(count, seed=seed, labels=labels), statistics_of(count, seed=99, labels=labels[::-1])
    assert not changes(before, after)
    assert not changes(
        statistics_of(count, seed=seed, height_px=heights), statistics_of(count, seed=99, height_px=heights[::-1])
    )
