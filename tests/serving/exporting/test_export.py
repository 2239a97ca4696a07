"""A small model with every score, exported and replayed in the target's runtime; and what is refused."""

import json
import math
import re
import sys
from typing import get_args

import numpy as np
import pytest
import tensorflow as tf
from exportable_models import RATE, images, write_examples, write_model
from PIL import Image

from schema.artifacts import RECORD_FILE
from serving.exporting.conversion import convert
from serving.exporting.decision import NotExportableError, decision_of
from serving.exporting.export import export_model
from serving.exporting.proof import ExportRefusedError, images_of, replayed
from serving.exporting.runtimes import MissingRuntimeError
from serving.scoring import exported_scorer, score_files
from trainer.settings.calibration import ScoreName

TARGETS = ["onnx", *(pytest.param(target, marks=pytest.mark.slow) for target in ("litert", "openvino"))]


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Patterns of the parity images, the held-out ones and the test images."""
    folder = tmp_path_factory.mktemp("examples")
    names = ("parity", "held_out", "test")
    return {name: write_examples(folder / name, images(40, seed)) for seed, name in enumerate(names, 4)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The folder of a model with the default score."""
    return write_model(tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture(scope="module", params=[*get_args(ScoreName), "grouped"])
def scored(request, tmp_path_factory):
    """The folder of a model with each score, and of one with groups."""
    folder = tmp_path_factory.mktemp(request.param) / "model"
    return write_model(folder, grouped=True) if request.param == "grouped" else write_model(folder, score=request.param)


@pytest.mark.parametrize("target", TARGETS)
def test_every_score_is_the_same_in_every_runtime(scored, target, splits, tmp_path):
    found = export_model(scored, tmp_path, target=target, precision="float32", **splits).comparison
    assert (found.images, found.same_verdicts) == (40, 40)
    assert found.worst_difference < 1e-4


def test_in_fewer_bits_threshold_and_p_values_are_those_of_the_file_s_own_scores(plain, splits, tmp_path):
    """Conformal: the threshold is the held-out score of rank ceil((n + 1) (1 - rate))."""
    done = export_model(plain, tmp_path, target="onnx", precision="int8", **splits)
    assert done.is_recalibrated
    held_out, tested = (replayed(done.path, images_of(splits[name]), timeout_s=300) for name in ("held_out", "test"))
    scores = np.sort([row["score"] for row in held_out])
    threshold = scores[math.ceil(41 * (1 - RATE)) - 1]
    before = json.loads((plain / RECORD_FILE).read_text())["calibration"]["threshold"]
    assert threshold != pytest.approx(before, rel=1e-4), "other images, other bits"
    for row in tested:
        assert row["threshold"] == pytest.approx(threshold, rel=1e-6)
        assert row["p_value"] == pytest.approx((1 + np.sum(scores >= row["score"])) / 41)
        assert row["is_anomaly"] == (row["score"] > row["threshold"])
    assert {row["is_anomaly"] for row in tested} == {0, 1}


def test_groups_keep_their_thresholds_in_fewer_bits(splits, tmp_path):
    model = write_model(tmp_path / "model", grouped=True)
    done = export_model(model, tmp_path / "out", target="onnx", precision="float16", **splits)
    assert not done.is_recalibrated
    assert {row["threshold"] for row in replayed(done.path, images_of(splits["test"]), timeout_s=300)} == {1.0}


def test_a_file_of_several_pages_is_refused_with_the_remedy(plain, splits, tmp_path):
    """A single page is scored."""
    file = export_model(plain, tmp_path, target="onnx", precision="float32", **splits).path
    pages = [Image.new("RGB", (16, 16), level) for level in ("black", "white")]
    for count in (1, 2):
        pages[0].save(tmp_path / f"{count}.tif", save_all=True, append_images=pages[1:count])
    one, two = score_files([tmp_path / "1.tif", tmp_path / "2.tif"], exported_scorer(file))
    assert one.score is not None
    assert two.score is None
    assert "the file has 2 pages" in two.problem
    assert two.problem.endswith("save the pages as files, or score with the SavedModel")


def test_a_model_of_an_older_version_is_refused(plain, tmp_path):
    older = tf.Module()
    older.variable = tf.Variable(0.0)
    tf.saved_model.save(older, str(tmp_path))
    (tmp_path / RECORD_FILE).parent.mkdir()
    (tmp_path / RECORD_FILE).write_bytes((plain / RECORD_FILE).read_bytes())
    with pytest.raises(NotExportableError, match="could not prepare it for export; run the pipeline again"):
        decision_of(tmp_path)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("onnx", "onnx has no operations for TensorFlow's .*Digamma"),
        ("litert", "litert cannot represent the model: .*"),
    ],
)
def test_an_operation_that_a_target_lacks_is_named(target, reason, tmp_path):
    function = tf.function(
        lambda image: {"score": tf.reduce_sum(tf.math.digamma(tf.cast(image, tf.float32) + 1.0))},
        input_signature=[tf.TensorSpec([1, None, None, 1], tf.uint8, "image")],
    )
    function.model = tf.Module()
    with pytest.raises(NotExportableError, match=re.compile(reason, re.DOTALL)):
        convert(function, tmp_path / "model", target=target)
    assert not (tmp_path / "model").exists()


def test_int8_is_refused_for_openvino_with_the_remedy(plain, splits, tmp_path):
    with pytest.raises(NotExportableError, match="openvino in int8 is not supported; use --precision float16, or --to"):
        export_model(plain, tmp_path / "out", target="openvino", precision="int8", **splits)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("target", "package"), [("onnx", "tf2onnx"), ("openvino", "openvino")])
def test_a_converter_that_is_not_installed_is_named(plain, target, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingRuntimeError, match=rf"{package} is not installed; run: pip install 'tfx-image"):
        convert(decision_of(plain), tmp_path / "model", target=target)


def test_a_file_that_its_runtime_refuses_is_named(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ExportRefusedError, match=r"model\.onnx cannot be run in its runtime: .*"):
        replayed(tmp_path / "model.onnx", [], timeout_s=60)


def test_without_images_to_replay_nothing_is_exported(plain, splits, tmp_path):
    empty = write_examples(tmp_path / "none", [])
    with pytest.raises(ExportRefusedError, match="none: no image to replay; run the pipeline again"):
        export_model(plain, tmp_path / "out", target="onnx", precision="float32", **{**splits, "parity": empty})
    assert not (tmp_path / "out").exists()
