"""A model of tiles, from training tiles to the calibrated SavedModel: its users see whole images."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tfx.types import standard_artifacts

from images.stored import from_pixels
from schema import features
from schema.artifact_types import Calibration
from schema.features import NORMALISED
from serving.exporting.decision import decision_of
from serving.scoring import local_scorer
from trainer.calibrator import CalibratorExecutor
from trainer.data.dataset import ImageSet, PixelConstants
from trainer.data.decoding import decode_images
from trainer.data.tiles import cut
from trainer.data.unseen_maps import of_whole_images
from trainer.export.portions import in_portions
from trainer.export.trained_model import TrainedModel, export_trained
from trainer.families.registry import started_autoencoder
from trainer.scoring.scores import fit_score
from trainer.settings.calibration import CalibrationSettings
from trainer.settings.image import ImageSettings
from trainer.settings.trainer import TrainerSettings

SQUARE = (150, 40, 174, 64)
"""left, top, right and bottom in a file of 240 x 160 pixels, which the model sees at half of its size."""
UNIT = PixelConstants(np.zeros(3, np.float32), np.ones(3, np.float32))
CASES = {
    "dense": ({"preset": "dense", "linear_path": True, "latent_dim": 16, "loss": "mse"}, 32),
    "features": ({"preset": "features", "latent_dim": 4, "steady_against": []}, 64),
}
"""The `trainer` section, and a tile's side."""
SCORE = "worst_pixels"


def files(count, seed, *, defective=False):
    """PNG files of a pattern of stripes in varying contrast with noise, each with or without the square."""
    random = np.random.default_rng(seed)
    stripes = np.sin(np.arange(240) / 8.0) * np.cos(np.arange(160)[:, None] / 9.0)
    left, top, right, bottom = SQUARE
    for _ in range(count):
        levels = 110 + random.uniform(40, 70) * stripes[..., None] + random.normal(0, 3, (160, 240, 3))
        if defective:
            levels[top:bottom, left:right] = 255
        yield from_pixels(np.clip(np.round(levels), 0, 255).astype(np.uint8)).encoded


def write_split(folder, split, contents):
    (folder / f"Split-{split}").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / f"Split-{split}/data")) as writer:
        for row, content in enumerate(contents):
            values = {"image": content, "image_id": f"{split}/{row}".encode(), "label": b"good"}
            feature = {name: tf.train.Feature(bytes_list={"value": [value]}) for name, value in values.items()}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def artifact(kind, uri):
    made = kind()
    made.uri = str(uri)
    return made


@pytest.fixture(scope="module", params=CASES)
def calibrated(request, tmp_path_factory):
    """(folder of the SavedModel, and the trained model before calibration)."""
    trainer, tile_px = CASES[request.param]
    image = ImageSettings(
        height_px=80, width_px=120, channels=3, tiles={"height_px": tile_px, "width_px": tile_px, "overlap": 0.25}
    )
    root = tmp_path_factory.mktemp("tiled")
    splits = {"train": list(files(12, 1)), "eval": list(files(20, 2))}
    for split, contents in splits.items():
        write_split(root / "examples", split, contents)
    (root / "examples/counts.json").write_text(json.dumps({split: len(own) for split, own in splits.items()}))

    pixels = decode_images(tf.constant(splits["train"]), image).numpy()
    numbers = range(image.tile_count)
    tiles = np.stack([cut(one, image, number) for one in pixels for number in numbers])
    tiles_of, in_image = np.divmod(np.arange(len(tiles)), image.tile_count)
    learnt = ImageSet(len(tiles), image.network_shape, tiles, None, tiles_of, in_image)
    keras.utils.set_random_seed(1)
    settings = TrainerSettings.model_validate(trainer)
    autoencoder = started_autoencoder(image, settings, learnt, lambda values: values)
    errors = autoencoder.feature_errors
    model = TrainedModel(
        autoencoder,
        transform_layer=lambda encoded: {NORMALISED: decode_images(encoded[features.IMAGE], image)},
        constants=UNIT,
        mean_image=pixels.mean(axis=0),
        image=image,
        unseen_maps=None if errors is None else of_whole_images(errors.unseen_maps, learnt, UNIT, image),
    )
    record = {"image": image.model_dump(mode="json"), "latent_dim": image.tile_count * autoencoder.latent_dim}
    export_trained(model, str(root / "trained/Format-Serving"), record=record)
    examples = artifact(standard_artifacts.Examples, root / "examples")
    examples.split_names = json.dumps(["train", "eval"])
    (root / "calibration").mkdir()
    CalibratorExecutor().Do(
        {"examples": [examples], "trained_model": [artifact(standard_artifacts.Model, root / "trained")]},
        {
            "model": [artifact(standard_artifacts.Model, root / "model")],
            "calibration": [artifact(Calibration, root / "calibration")],
        },
        {
            "settings": CalibrationSettings(score=SCORE, false_alarm_rate=0.05).model_dump_json(),
            "source_fingerprint": "abc",
        },
    )
    return root / "model/Format-Serving", model


def test_a_square_is_found_through_tiles_where_it_is_in_the_file(calibrated):
    folder, model = calibrated
    scorer = local_scorer(folder, with_maps=True)
    cell_px = 16 if "feature_error" in model.autoencode(tf.zeros([1, 80, 120, 3])) else 0
    highest = max(score.score for score in scorer(list(files(10, 3))))
    for score in scorer(list(files(3, 4, defective=True))):
        assert score.is_anomaly
        assert score.score > 1.5 * highest
        row, column = np.unravel_index(score.anomaly_map.argmax(), score.anomaly_map.shape)
        assert (2 * column, 2 * row) == pytest.approx((162, 52), abs=12 + cell_px)
        if not cell_px:  # a feature sees more of its surroundings than its cell
            down, across = np.nonzero(score.anomaly_map > score.anomaly_map.max() / 10)
            box = across.min(), down.min(), across.max() + 1, down.max() + 1
            assert [2 * edge for edge in box] == pytest.approx(SQUARE, abs=4)
        strongest = score.regions[0]
        assert strongest.left < 162 < strongest.right
        assert strongest.top < 52 < strongest.bottom


def test_the_score_is_the_mean_of_the_tiled_map_s_worst_positions(calibrated):
    """3 % of the positions, `evaluation.worst_percent`, of the map that the tiles are blended to."""
    _, model = calibrated
    pixels = model.decode_pixels(list(files(2, 5, defective=True)))
    outputs = model.autoencode(pixels)
    score = fit_score(SCORE, CalibrationSettings(), lambda: iter(()))
    own = outputs.get("feature_error", np.square(pixels - outputs["reconstruction"]).mean(axis=-1))
    for values, found in zip(np.asarray(own), score(pixels, outputs).numpy(), strict=True):
        worst = np.sort(values.ravel())[-max(1, round(values.size * 0.03)) :]
        assert found == pytest.approx(worst.mean(), rel=1e-5)


def test_the_saved_model_scores_as_the_pipeline_does_alone_and_in_batches(calibrated):
    folder, model = calibrated
    contents = [*files(3, 6), *files(2, 7, defective=True)]
    pixels = model.decode_pixels(contents)
    in_pipeline = fit_score(SCORE, CalibrationSettings(), lambda: iter(()))(pixels, model.autoencode(pixels)).numpy()
    scorer = local_scorer(folder)
    assert [one.score for one in scorer(contents)] == pytest.approx(in_pipeline, rel=1e-5)
    assert [scorer([one])[0].score for one in contents] == pytest.approx(in_pipeline, rel=1e-5)


def test_more_images_than_fit_into_memory_are_computed_in_portions():
    """Images of a million pixels fit four at a time."""
    image = ImageSettings(height_px=1000, width_px=1000, tiles={"height_px": 256, "width_px": 256})
    sizes = []

    def note_size(values):
        sizes.append(len(values))
        return np.float32(values.sum(axis=1))

    def compute(values):
        return {"sum": tf.ensure_shape(tf.numpy_function(note_size, [values], tf.float32), [None])}

    values = np.random.default_rng(1).random((9, 3), np.float32)
    in_graph = tf.function(lambda inputs: in_portions(compute, inputs, image), autograph=False)
    assert in_graph(values)["sum"].numpy() == pytest.approx(values.sum(axis=1))
    assert in_graph(values[:2])["sum"].numpy() == pytest.approx(values[:2].sum(axis=1))
    assert sizes == [4, 4, 1, 2]


def test_latent_and_reconstruction_are_those_of_all_tiles(calibrated):
    folder, model = calibrated
    signatures = tf.saved_model.load(str(folder)).signatures
    pixels = model.decode_pixels(list(files(2, 8)))
    outputs = signatures["pixels"](image=pixels)
    assert outputs["reconstruction"].shape == outputs["anomaly_map"].shape + (3,) == (2, 80, 120, 3)
    assert (
        outputs["latent"].shape[1] == json.loads((folder / "assets.extra/autoencoder.json").read_text())["latent_dim"]
    )
    latent = signatures["encode"](image=pixels)["latent"]
    assert latent.numpy() == pytest.approx(outputs["latent"].numpy(), rel=1e-4, abs=1e-5)
    decoded = signatures["decode"](latent=latent)["reconstruction"]
    assert decoded.numpy() == pytest.approx(outputs["reconstruction"].numpy(), abs=1e-5)


def test_the_function_for_export_decides_the_same(calibrated):
    folder, _ = calibrated
    [content] = files(1, 9, defective=True)
    [served] = local_scorer(folder)([content])
    exported = decision_of(folder)(tf.io.decode_png(content)[tf.newaxis])
    assert exported["score"].numpy()[0] == pytest.approx(served.score, rel=1e-4)


def test_held_out_images_are_not_trained_on_although_there_are_few(calibrated):
    folder, model = calibrated
    record = json.loads((folder / "assets.extra/autoencoder.json").read_text())
    has_unseen = hasattr(model, "unseen_maps")
    assert record["calibration"]["method"] == ("pooled" if has_unseen else "split")
    assert record["calibration"]["images"] == (12 + 20 if has_unseen else 20)
