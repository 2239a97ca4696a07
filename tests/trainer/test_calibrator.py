"""The Calibrator on a saved model with an error map of its own: the chosen score, the threshold and the signatures."""

import io
import json
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score
from tfx.types import standard_artifacts

from images.synthetic_defects import KINDS, paint
from schema.artifact_types import Calibration
from trainer.calibrator import CalibratorExecutor, _sizes_of, _smallest_region_percent
from trainer.scoring.calibration import limits_of
from trainer.scoring.cross_fitting import OF_MAPS
from trainer.scoring.learners import ScoreError
from trainer.settings.calibration import CalibrationSettings

RANDOM = np.random.default_rng(12)
PATTERN = RANDOM.uniform(0.3, 0.6, (16, 16, 1))
UNSEEN = RANDOM.uniform(0.01, 0.02, (30, 4, 4)).astype(np.float32)


class FeatureModel(tf.Module):
    """Reconstructs the pattern; its error map is the mean absolute difference of blocks of 4 x 4 pixels."""

    def __init__(self, unseen_maps=UNSEEN):
        super().__init__()
        self.mean_image = tf.Variable(PATTERN.astype(np.float32))
        if unseen_maps is not None:
            self.unseen_maps = tf.Variable(unseen_maps)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def decode_pixels(self, encoded):
        def decode(png):
            return tf.cast(tf.ensure_shape(tf.io.decode_png(png, 1), [16, 16, 1]), tf.float32) / 255.0

        return tf.map_fn(decode, encoded, fn_output_signature=tf.TensorSpec([16, 16, 1]))

    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 1])])
    def autoencode(self, pixels):
        difference = tf.abs(pixels - self.mean_image)
        return {
            "reconstruction": tf.zeros_like(pixels) + self.mean_image,
            "latent": tf.reduce_mean(pixels, axis=[1, 2]),
            "feature_error": tf.nn.avg_pool2d(difference, 4, 4, "VALID")[..., 0],
        }

    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 1])])
    def encode(self, pixels):
        return tf.reduce_mean(pixels, axis=[1, 2])

    @tf.function(input_signature=[tf.TensorSpec([None, 1])])
    def decode(self, latent):
        return tf.zeros([tf.shape(latent)[0], 16, 16, 1]) + latent[:, :, None, None]


def png(levels):
    buffer = io.BytesIO()
    Image.fromarray(levels[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


def write_split(folder, images, labels=None):
    folder.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "data")) as writer:
        for row, image in enumerate(images):
            values = {"image": png(image), "image_id": f"{folder.name}/{row}".encode(), "label": b"good"}
            if labels is not None:
                values["label"] = labels[row]
            feature = {name: tf.train.Feature(bytes_list={"value": [value]}) for name, value in values.items()}
            for name, side_px in zip(("height_px", "width_px"), image.shape[:2], strict=True):
                feature[name] = tf.train.Feature(int64_list={"value": [side_px]})
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def artifact(kind, uri):
    made = kind()
    made.uri = str(uri)
    return made


@pytest.fixture(scope="module")
def images():
    levels = np.round(255 * np.clip(PATTERN + RANDOM.normal(0, 0.02, (90, 16, 16, 1)), 0, 1)).astype(np.uint8)
    return {"train": levels[:30], "eval": levels[30:]}


@pytest.fixture(scope="module")
def calibrate(images, tmp_path_factory):
    """Runs the Calibrator with a score: (the loaded SavedModel, the calibration record)."""
    return calibrator_of(FeatureModel(), images, tmp_path_factory.mktemp("calibrator"))


def calibrator_of(trained, images, root, labels=None, **record):
    for split, of_split in images.items():
        write_split(root / f"examples/Split-{split}", of_split, labels and labels[split])
    (root / "examples/counts.json").write_text(json.dumps({split: len(x) for split, x in images.items()}))
    tf.saved_model.save(trained, str(root / "trained/Format-Serving"))
    record |= {"latent_dim": 1, "image": {"height_px": 16, "width_px": 16, "channels": 1}}
    (root / "trained/Format-Serving/assets.extra").mkdir()
    (root / "trained/Format-Serving/assets.extra/autoencoder.json").write_text(json.dumps(record))
    examples = artifact(standard_artifacts.Examples, root / "examples")
    examples.split_names = json.dumps(["train", "eval"])

    def run(score, folder=None, rate=0.05, **settings):
        out = root / (folder or score)
        (out / "calibration").mkdir(parents=True)
        CalibratorExecutor().Do(
            {"examples": [examples], "trained_model": [artifact(standard_artifacts.Model, root / "trained")]},
            {
                "model": [artifact(standard_artifacts.Model, out / "model")],
                "calibration": [artifact(Calibration, out / "calibration")],
            },
            {
                "settings": CalibrationSettings(score=score, false_alarm_rate=rate, **settings).model_dump_json(),
                "source_fingerprint": "abc",
            },
        )
        loaded = tf.saved_model.load(str(out / "model/Format-Serving"))
        written = json.loads((out / "calibration/calibration.json").read_text())
        beside = json.loads((out / "model/Format-Serving/assets.extra/autoencoder.json").read_text())
        assert beside["calibration"] == written
        return loaded, written

    return run


@pytest.fixture(scope="module")
def automatic(calibrate):
    return calibrate("auto")


def blocks(pixels):
    """The model's error map with NumPy: [N, 4, 4]."""
    return np.abs(pixels - PATTERN).reshape(len(pixels), 4, 4, 4, 4).mean(axis=(2, 4))


def test_the_table_has_numpys_auroc_for_every_score_and_kind(automatic, images):
    _, record = automatic
    assert set(record["auroc_by_score"]) == set(OF_MAPS)  # the model has an error map of its own
    assert all(set(of_kind) == set(KINDS) for of_kind in record["auroc_by_score"].values())
    pixels = (images["eval"] / 255.0).astype(np.float32)
    labels = np.repeat([0, 1], len(pixels))
    usual = UNSEEN.mean(axis=0) + UNSEEN.mean()
    scores = {"error": lambda maps: maps.mean(axis=(1, 2)), "weighted_error": lambda m: (m / usual).mean(axis=(1, 2))}
    for name, score in scores.items():
        for kind in KINDS:
            both = [score(blocks(pixels)), score(blocks(paint(pixels, kind, seed=20)))]
            expected = roc_auc_score(labels, np.concatenate(both))
            assert record["auroc_by_score"][name][kind] == pytest.approx(expected, abs=0.01)


def test_the_chosen_score_is_at_most_a_little_worse_than_the_best(automatic):
    _, record = automatic
    means = {name: np.mean(list(of_kind.values())) for name, of_kind in record["auroc_by_score"].items()}
    assert record["score"] in means
    assert means[record["score"]] > max(means.values()) - 0.05
    assert means[record["score"]] > 0.6


def test_the_threshold_is_the_conformal_quantile_of_held_out_images_if_not_all_that_train_have_unseen_maps(
    images, tmp_path
):
    model, record = calibrator_of(FeatureModel(UNSEEN[:15]), images, tmp_path)("auto")
    encoded = tf.constant([png(image) for image in images["eval"]])
    scores = model.signatures["serving_default"](image_bytes=encoded)["score"].numpy()
    rank = math.ceil((len(scores) + 1) * 0.95)
    assert (record["method"], record["images"]) == ("split", 60)
    assert record["threshold"] == pytest.approx(np.sort(scores)[rank - 1], rel=1e-5)
    every = model.signatures["all_scores"](image_bytes=encoded)
    assert set(every) == set(OF_MAPS)
    assert every[record["score"]].numpy() == pytest.approx(scores, rel=1e-4)


def test_images_that_train_calibrate_too_if_each_has_an_unseen_map(calibrate, images):
    model, record = calibrate("error")
    encoded = tf.constant([png(image) for image in images["eval"]])
    held_out = model.signatures["serving_default"](image_bytes=encoded)["score"].numpy()
    scores = np.concatenate([UNSEEN.mean(axis=(1, 2)), held_out])
    assert (record["method"], record["images"]) == ("pooled", 90)
    assert record["threshold"] == pytest.approx(np.sort(scores)[math.ceil(91 * 0.95) - 1], rel=1e-5)
    assert record["scores"] == pytest.approx(np.sort(scores), rel=1e-5)
    peaks = enlarged(np.concatenate([UNSEEN, blocks(images["eval"] / 255.0)])).max(axis=(1, 2))
    assert record["pixel_threshold"] == pytest.approx(np.sort(peaks)[math.ceil(91 * 0.95) - 1], rel=1e-4)


def test_the_same_images_and_model_give_the_same_record(automatic, calibrate):
    _, record = automatic
    _, again = calibrate("auto", folder="again")
    assert again == record


def test_maps_have_the_image_s_size_and_the_error_stays_that_of_the_reconstruction(calibrate, images):
    model, record = calibrate("patch_max")
    assert (record["score"], record["auroc_by_score"]) == ("patch_max", {})
    assert "all_scores" not in model.signatures
    encoded = tf.constant([png(image) for image in images["eval"]])
    outputs = {name: x.numpy() for name, x in model.signatures["reconstruct"](image_bytes=encoded).items()}
    pixels = images["eval"] / 255.0
    assert outputs["error"] == pytest.approx(((pixels - PATTERN) ** 2).mean(axis=(1, 2, 3)), rel=1e-3)
    enlarged = tf.image.resize(blocks(pixels)[..., None], (16, 16))[..., 0]
    assert outputs["error_map"] == pytest.approx(enlarged.numpy(), abs=1e-5)
    # A patch of 3 pixels is one position of the map.
    assert outputs["score"] == pytest.approx(blocks(pixels).max(axis=(1, 2)), rel=1e-4)


def enlarged(maps):
    """[N, 4, 4] -> [N, 16, 16]."""
    return tf.image.resize(maps[..., None], (16, 16)).numpy()[..., 0]


PLANTED = (5, 17, 22)


def with_blots(levels, rows=PLANTED):
    """Images with a white square of 4 x 4 pixels, one position of the error map, in these rows."""
    levels = levels.copy()
    for row in rows:
        levels[row, 4:8, 8:12] = 255
    return levels


def suspects_of(folder):
    return [json.loads(line) for line in (folder / "calibration/suspects.jsonl").read_text().splitlines()]


def test_suspects_are_ranked_by_the_error_maps_of_fits_without_them(images, tmp_path):
    """The training images look alike to the model; only the unseen maps of three of them differ."""
    unseen = UNSEEN.copy()
    unseen[list(PLANTED), 1, 2] += np.array([0.3, 0.5, 0.4], np.float32)
    _, written = calibrator_of(FeatureModel(unseen), images, tmp_path)("worst_pixels")
    suspects = suspects_of(tmp_path / "worst_pixels")
    assert [suspect["image_id"] for suspect in suspects[:3]] == ["Split-train/17", "Split-train/22", "Split-train/5"]
    # With 16 positions, the worst 3 % are the maximum. Held-out images are compared with them, by the final model.
    held_out = blocks(images["eval"] / 255.0).max(axis=(1, 2))
    expected = np.sort(np.concatenate([unseen.max(axis=(1, 2)), held_out]))[::-1]
    assert [suspect["value"] for suspect in suspects] == pytest.approx(expected[:12], rel=1e-4)
    assert {suspect["of"] for suspect in suspects} == {90}
    assert {suspect["split"] for suspect in suspects} == {"train", "eval"}
    assert all(suspect["unseen"] and suspect["label"] == "good" for suspect in suspects)
    maps = np.load(tmp_path / "worst_pixels/calibration/suspect_maps.npy")
    assert maps[:3] == pytest.approx(enlarged(unseen[[17, 22, 5]]) / written["pixel_threshold"], rel=1e-4)


def test_maps_of_every_second_training_image_belong_to_those_images(images, tmp_path):
    unseen = UNSEEN[:15].copy()
    unseen[11, 0, 0] += 0.5
    calibrator_of(FeatureModel(unseen), images, tmp_path)("error")
    first = suspects_of(tmp_path / "error")[0]
    assert (first["image_id"], first["position"]) == ("Split-train/22", 22)


def test_a_held_out_image_can_be_a_suspect(images, tmp_path):
    planted = {**images, "eval": with_blots(images["eval"], [40])}
    _, written = calibrator_of(FeatureModel(), planted, tmp_path)("patch_max")
    first = suspects_of(tmp_path / "patch_max")[0]
    assert (first["image_id"], first["split"]) == ("Split-eval/40", "eval")
    found = np.load(tmp_path / "patch_max/calibration/suspect_maps.npy")[0]
    expected = enlarged(blocks(planted["eval"][40:41] / 255.0))[0] / written["pixel_threshold"]
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_with_few_images_the_maps_are_those_of_both_splits(images, tmp_path):
    few = {"train": images["train"], "eval": images["eval"][:20]}
    unseen = np.concatenate([UNSEEN, UNSEEN[:20]])
    unseen[[3, 44], 2, 2] += np.array([0.4, 0.6], np.float32)
    calibrator_of(FeatureModel(unseen), few, tmp_path, cross_fitted=True)("error")
    suspects = suspects_of(tmp_path / "error")
    assert [suspect["image_id"] for suspect in suspects[:2]] == ["Split-eval/14", "Split-train/3"]
    assert suspects[0]["of"] == 50


def test_with_few_images_auto_chooses_nothing_and_says_so(images, tmp_path, caplog):
    caplog.set_level("INFO")
    few = {"train": images["train"], "eval": images["eval"][:20]}
    unseen = np.concatenate([UNSEEN, UNSEEN[:20]])
    _, written = calibrator_of(FeatureModel(unseen), few, tmp_path, cross_fitted=True)("auto")
    assert (written["score"], written["auroc_by_score"]) == ("worst_pixels", {})
    assert any("do not train; 0 are too few" in record.getMessage() for record in caplog.records)


def test_with_few_held_out_images_auto_chooses_nothing_either(images, tmp_path, caplog):
    caplog.set_level("INFO")
    few = {"train": images["train"], "eval": images["eval"][:19]}
    _, written = calibrator_of(FeatureModel(UNSEEN), few, tmp_path)("auto")
    assert (written["score"], written["method"], written["images"]) == ("worst_pixels", "pooled", 30 + 19)
    assert any("19 are too few" in record.getMessage() for record in caplog.records)


def test_with_few_images_the_model_s_record_counts_all_of_them_as_training_images(images, tmp_path):
    few = {"train": images["train"], "eval": images["eval"][:20]}
    unseen = np.concatenate([UNSEEN, UNSEEN[:20]])
    calibrator_of(FeatureModel(unseen), few, tmp_path, cross_fitted=True)("error")
    record = json.loads((tmp_path / "error/model/Format-Serving/assets.extra/autoencoder.json").read_text())
    assert record["images"] == {"train": 50, "eval": 0}
    usual = {"smallest_height_px": 16, "smallest_width_px": 16, "lowest_aspect": 1.0, "highest_aspect": 1.0}
    assert record["sizes"] == {**usual, "median_height_px": 16, "median_width_px": 16}


def test_a_score_that_needs_more_than_the_map_gives_way_to_standardised_patch(images, tmp_path):
    unseen = UNSEEN.copy()
    unseen[9, 3, 3] += 0.5
    calibrator_of(FeatureModel(unseen), images, tmp_path)("local_ssim")
    first = suspects_of(tmp_path / "local_ssim")[0]
    assert (first["image_id"], first["score"]) == ("Split-train/9", "standardised_patch")


def test_without_unseen_maps_the_model_s_own_scores_rank_the_images_it_has_learnt(images, tmp_path):
    planted = {**images, "train": with_blots(images["train"])}
    calibrator_of(FeatureModel(None), planted, tmp_path)("worst_pixels")
    suspects = suspects_of(tmp_path / "worst_pixels")
    assert {suspect["position"] for suspect in suspects[:3]} == set(PLANTED)
    assert not any(suspect["unseen"] for suspect in suspects)
    expected = np.sort(blocks(planted["train"] / 255.0).max(axis=(1, 2)))[::-1]
    assert [suspect["value"] for suspect in suspects] == pytest.approx(expected[:12], rel=1e-4)
    assert {suspect["of"] for suspect in suspects} == {30}


def test_an_image_that_determines_the_threshold_alone_is_named(images, tmp_path, caplog):
    few = {"train": images["train"], "eval": images["eval"][:20]}
    unseen = np.concatenate([UNSEEN, UNSEEN[:20]])
    unseen[44, 2, 2] += np.float32(0.6)
    calibrator_of(FeatureModel(unseen), few, tmp_path, cross_fitted=True)("error", rate=0.02)
    [notice] = [record.getMessage() for record in caplog.records if "single image" in record.getMessage()]
    scores = np.sort(unseen.mean(axis=(1, 2)))
    assert f"{scores[-1]:.4g}, rests on the score of a single image: Split-eval/14; without it" in notice
    assert f"would be about {scores[-2]:.4g}" in notice


def test_at_most_the_promised_share_of_normal_images_shows_an_anomalous_pixel(tmp_path):
    """Over 200 draws of 40 held-out images and 40 new ones, with the limit from the largest values."""
    settings, flagged = CalibrationSettings(pixel_false_alarm_rate=0.1), []
    for draw in range(200):
        random = np.random.default_rng(draw)
        maps = random.standard_t(4, (80, 6, 6)).astype(np.float32)
        peaks = maps[:40].max(axis=(1, 2))
        threshold = limits_of(settings, peaks, peaks).pixel_threshold
        flagged.append(np.mean((maps[40:] > threshold).any(axis=(1, 2))))
        shown = [ndimage.label(one > threshold, np.ones((3, 3)))[0] for one in maps[:40]]
        areas = [100 / 36 * count for labels in shown for count in np.bincount(labels.ravel())[1:]]
        smallest = _smallest_region_percent(settings, peaks, threshold, lambda rows, own=maps: [own[rows]])
        assert smallest == (min(0.1, np.median(areas)) if areas else 0.0)
    assert 0.06 < np.mean(flagged) <= 0.1


def test_the_smallest_region_of_a_padded_image_is_a_share_of_the_image_without_its_bars():
    maps = np.zeros((3, 64, 64), np.float32)
    maps[1, 30, 30:32] = maps[2, 30:32, 30] = 2.0
    maps[2, 0, :] = 2.0  # in the bar above the image
    settings, peaks = CalibrationSettings(), maps.max(axis=(1, 2))

    def smallest(sizes):
        return _smallest_region_percent(settings, peaks, 1.0, lambda rows: [maps[rows]], padded_sizes=lambda: sizes)

    assert smallest([(9, 9), (300, 600), (150, 300)]) == pytest.approx(100 * 2 / (32 * 64))
    assert smallest([(0, 0)] * 3) == _smallest_region_percent(settings, peaks, 1.0, lambda rows: [maps[rows]])


def test_sizes_are_read_in_the_order_in_which_images_calibrate(tmp_path):
    sizes = {"train": [(4, 6), (8, 5)], "eval": [(7, 7), (3, 9), (5, 5)]}
    for split, of_split in sizes.items():
        write_split(tmp_path / split, [np.zeros((*size, 1), np.uint8) for size in of_split])
    assert _sizes_of([f"{tmp_path}/train/*", f"{tmp_path}/eval/*"]) == sizes["train"] + sizes["eval"]


def test_the_smallest_region_can_be_set():
    settings = CalibrationSettings(smallest_region_percent=2.5)
    assert _smallest_region_percent(settings, np.arange(30, dtype=np.float32), 1.0, None) == 2.5


DARKER = PATTERN - 0.2


def two_variants(count, random):
    """Images of two variants in turn, the second 0.3 brighter, so that its errors are 20 times as large."""
    images = DARKER + random.normal(0, 0.02, (count, 16, 16, 1))
    images[1::2] += 0.3 + random.normal(0, 0.03, (len(images[1::2]), 1, 1, 1))
    return np.round(255 * np.clip(images, 0, 1)).astype(np.uint8), [b"easy", b"hard"] * (count // 2)


@pytest.fixture(scope="module")
def variants():
    random = np.random.default_rng(6)
    return {split: two_variants(count, random) for split, count in (("train", 40), ("eval", 82), ("new", 400))}


class Shifted(FeatureModel):
    """FeatureModel that expects the first variant."""

    def __init__(self, levels):
        """`levels` are the training images [n, 16, 16, 1], whose unseen errors are the usual ones."""
        super().__init__(np.abs(levels / 255.0 - DARKER).reshape(-1, 4, 4, 4, 4).mean(axis=(2, 4)).astype(np.float32))
        self.mean_image.assign(DARKER.astype(np.float32))


@pytest.fixture(scope="module")
def grouped(variants, tmp_path_factory):
    images, labels = ({split: variants[split][part] for split in ("train", "eval")} for part in (0, 1))
    return calibrator_of(Shifted(images["train"]), images, tmp_path_factory.mktemp("groups"), labels)(
        "error", groups="label"
    )


@pytest.fixture(scope="module")
def calibrating(variants):
    """Images and labels that the thresholds come from: those of train, whose unseen errors are known, and of eval."""
    return np.concatenate([variants[x][0] for x in ("train", "eval")]), np.array(
        variants["train"][1] + variants["eval"][1]
    )


def expected_scores(levels):
    return np.abs(levels / 255.0 - DARKER).mean(axis=(1, 2, 3))


def test_each_group_has_the_threshold_of_its_own_images(grouped, calibrating):
    _, record = grouped
    levels, labels = calibrating
    assert record["method"] == "pooled"
    assert [group["name"] for group in record["groups"]] == ["easy", "hard"]
    for group in record["groups"]:
        own = np.sort(expected_scores(levels)[labels == group["name"].encode()])
        assert group["images"] == len(own) == 61
        assert group["threshold"] == pytest.approx(own[math.ceil(62 * 0.95) - 1], rel=1e-5)
        assert group["typical"] == pytest.approx(np.median(own), rel=1e-5)
    assert (record["threshold"], record["pixel_threshold"], record["false_alarm_rate"]) == (1.0, 1.0, 0.05)


def test_the_group_with_too_few_images_for_the_rate_is_named(variants, tmp_path, caplog):
    held_out, labels = variants["eval"]
    kept = [row for row in range(len(labels)) if labels[row] == b"easy" or row < 20]
    images = {"train": variants["train"][0], "eval": held_out[kept]}
    of_images = {"train": variants["train"][1], "eval": [labels[row] for row in kept]}
    calibrator_of(Shifted(images["train"][::2]), images, tmp_path, of_images)("error", groups="label")
    [warning] = [record.getMessage() for record in caplog.records if "to calibrate with, but" in record.getMessage()]
    assert "there are 10 of group 'hard', so the rate is 0.0909" in warning


def test_new_images_are_judged_by_their_own_group(grouped, variants, calibrating):
    loaded, record = grouped
    new, labels = variants["new"]
    found = loaded.signatures["reconstruct"](image_bytes=tf.constant([png(image) for image in new]))
    assert found["group"].numpy().tolist() == labels
    left_out, names = expected_scores(calibrating[0]), calibrating[1]
    scores, alarms = expected_scores(new), found["is_anomaly"].numpy()
    for group in record["groups"]:
        own = np.array(labels) == group["name"].encode()
        relative = (scores[own] - group["typical"]) / (group["threshold"] - group["typical"])
        assert found["score"].numpy()[own] == pytest.approx(relative, abs=2e-3)
        calibrated = left_out[names == group["name"].encode()]
        p_values = [(1 + np.count_nonzero(calibrated >= score - 1e-9)) / 62 for score in scores[own]]
        assert np.mean(np.isclose(found["p_value"].numpy()[own], p_values)) > 0.98  # rounding may swap neighbours
        assert 0.0 < alarms[own].mean() < 0.12
        expected = found["error_map"].numpy()[own] / group["pixel_threshold"]
        assert found["anomaly_map"].numpy()[own] == pytest.approx(expected, rel=1e-5)
        assert 0.0 < found["anomaly_mask"].numpy()[own].any(axis=(1, 2)).mean() < 0.12


def test_a_rate_is_that_of_the_images_own_group(grouped, variants, calibrating):
    loaded, record = grouped
    [one, other], rates = variants["new"][0][:2], tf.constant([0.1, 0.1])
    found = loaded.signatures["score_at"](image_bytes=tf.constant([png(one), png(other)]), false_alarm_rate=rates)
    for row, group in enumerate(record["groups"]):
        own = np.sort(expected_scores(calibrating[0])[row::2])
        expected = (own[math.ceil(62 * 0.9) - 1] - group["typical"]) / (group["threshold"] - group["typical"])
        assert found["threshold"].numpy()[row] == pytest.approx(expected, abs=2e-3)


def test_a_defect_that_one_threshold_hides_is_found_with_groups(grouped, variants, tmp_path):
    images, labels = ({split: variants[split][part] for split in ("train", "eval")} for part in (0, 1))
    painted = paint((variants["new"][0][::2] / 255.0).astype(np.float32), "blob", seed=1)
    defective = [png(image) for image in np.round(255 * painted).astype(np.uint8)]
    single, _ = calibrator_of(Shifted(images["train"]), images, tmp_path, labels)("error")
    found = [
        model.signatures["serving_default"](image_bytes=tf.constant(defective))["is_anomaly"].numpy().mean()
        for model in (single, grouped[0])
    ]
    assert found[0] == 0.0
    assert found[1] > 0.4


def test_groups_work_with_few_images_and_with_auto(variants, tmp_path):
    few = {"train": variants["train"], "eval": tuple(part[:20] for part in variants["eval"])}
    images, labels = ({split: few[split][part] for split in few} for part in (0, 1))
    every = np.concatenate([images["train"], images["eval"]])
    calibrate = calibrator_of(Shifted(every), images, tmp_path / "few", labels, cross_fitted=True)
    _, record = calibrate("error", groups="label")
    assert [group["images"] for group in record["groups"]] == [30, 30]
    assert record["method"] == "cross"
    images, labels = ({split: variants[split][part] for split in ("train", "eval")} for part in (0, 1))
    _, record = calibrator_of(Shifted(images["train"]), images, tmp_path / "auto", labels)("auto", groups="label")
    assert min(record["auroc_by_score"]["error"].values()) > 0.6  # pooled over the variants they would hardly differ


def test_a_group_whose_usual_error_is_zero_calibrates_and_finds_defects(variants, tmp_path):
    """Of its images, which are black, only one shows anything, so both its thresholds are 0."""
    images, labels = ({split: variants[split][part].copy() for split in ("train", "eval")} for part in (0, 1))
    black = np.zeros((16, 16, 1), np.uint8)
    for of_split in images.values():
        of_split[::2] = black
    images["eval"][0, 4:8, 4:8] = 100
    model = FeatureModel(blocks(images["train"] / 255.0 + PATTERN).astype(np.float32))
    model.mean_image.assign(np.zeros_like(PATTERN, np.float32))
    loaded, record = calibrator_of(model, images, tmp_path, labels)("error", groups="label")
    easy = record["groups"][0]
    assert (easy["name"], easy["pixel_threshold"], easy["threshold"]) == ("easy", 0.0, 0.0)
    found = loaded.signatures["reconstruct"](image_bytes=tf.constant([png(black), png(images["eval"][0])]))
    assert found["is_anomaly"].numpy().tolist() == [0, 1]
    assert found["anomaly_mask"].numpy().any(axis=(1, 2)).tolist() == [False, True]


def test_groups_need_two_labels(calibrate):
    with pytest.raises(ScoreError, match="all training images have the label 'good': put each variant in a folder"):
        calibrate("error", "one-label", groups="label")
