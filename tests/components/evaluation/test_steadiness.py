"""Steadiness through `serving_default` of a saved model whose verdict NumPy can compute."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from components.evaluation.steadiness import images_to_change, measure_steadiness, pictures_of
from images.harmless_changes import STEADINESS, brighten
from images.regions import Placement
from images.synthetic_defects import KINDS, paint
from runtime.loaded_models import loaded
from trainer.data.resizing import resized
from trainer.settings.image import ImageSettings

RANDOM = np.random.default_rng(8)
LEVELS = RANDOM.integers(100, 150, (40, 1, 1, 1)) + RANDOM.integers(-9, 10, (40, 12, 16, 3))
IMAGES = LEVELS.astype(np.uint8)
WHOLE = [Placement.on_map((12, 16), (12, 16), is_padded=False)] * 40
THRESHOLD = 140.0


class Brightness(tf.Module):
    """The score is the mean level of the image's upper rows, times a factor."""

    def __init__(self, channels=3, factor=1.0, rows=12, threshold=THRESHOLD):
        super().__init__()
        self.channels, self.factor, self.rows, self.threshold = channels, tf.Variable(factor), rows, threshold

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def score(self, image_bytes):
        spec = tf.TensorSpec([12, 16, self.channels], tf.uint8)
        images = tf.map_fn(lambda png: tf.io.decode_png(png, self.channels), image_bytes, fn_output_signature=spec)
        score = self.factor * tf.reduce_mean(tf.cast(images[:, : self.rows], tf.float32), axis=[1, 2, 3])
        return {"score": score, "is_anomaly": tf.cast(score > self.threshold, tf.int64)}


def saved(folder, **kwargs):
    model = Brightness(**kwargs)
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.score})
    return loaded(str(folder)).signatures["serving_default"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return measure_steadiness(saved(tmp_path_factory.mktemp("model")), IMAGES, WHOLE)


def test_every_change_is_measured_beside_unchanged_images(found):
    assert list(found) == ["unchanged", *STEADINESS]


@pytest.mark.parametrize(
    ("name", "factor"),
    [("unchanged", 1.0), ("darker_10", 0.9), ("brighter_10", 1.1), ("darker_20", 0.8), ("brighter_20", 1.2)],
)
def test_alarms_are_the_share_of_changed_normal_images_above_the_threshold(found, name, factor):
    changed = np.clip(np.round(IMAGES * factor), 0, 255).mean(axis=(1, 2, 3))
    assert found[name]["alarms"] == pytest.approx((changed > THRESHOLD).mean())


def test_the_changes_matter_here(found):
    assert found["brighter_20"]["alarms"] > found["unchanged"]["alarms"] > found["darker_20"]["alarms"] == 0.0


@pytest.mark.parametrize(("name", "factor"), [("unchanged", 1.0), ("darker_10", 0.9), ("brighter_10", 1.1)])
def test_defects_of_all_kinds_in_turn_are_painted_before_the_change(found, name, factor):
    halved = IMAGES[::2]
    defective = np.empty_like(halved)
    for number, kind in enumerate(KINDS):
        defective[number::5] = paint(halved[number::5], kind, seed=22)
    scores = [brighten(images, factor).mean(axis=(1, 2, 3)) for images in (IMAGES, defective)]
    assert found[name]["recall"] == pytest.approx((scores[1] > THRESHOLD).mean())
    expected = roc_auc_score(np.repeat([0, 1], [40, 20]), np.concatenate(scores))
    assert found[name]["auroc"] == pytest.approx(expected, abs=0.005)


def test_a_grey_image_is_changed_like_a_colour_one(tmp_path):
    grey = IMAGES[..., :1]
    found = measure_steadiness(saved(tmp_path, channels=1), grey, WHOLE)
    darker = np.round(grey * 0.9).mean(axis=(1, 2, 3))
    assert found["darker_10"]["alarms"] == pytest.approx((darker > THRESHOLD).mean())
    assert found["warmer"] == found["unchanged"]


def test_a_score_that_is_not_finite_is_an_alarm_and_has_no_auroc(tmp_path):
    found = measure_steadiness(saved(tmp_path, factor=np.nan), IMAGES[:3], WHOLE[:3])
    assert found["blur"] == {"alarms": 1.0, "recall": 1.0}


def test_progress_counts_the_changes(tmp_path, caplog):
    caplog.set_level("INFO")
    measure_steadiness(saved(tmp_path), IMAGES[:2], WHOLE[:2])
    told = [
        (record.done, record.total) for record in caplog.records if getattr(record, "unit", "") == "harmless changes"
    ]
    assert told == [(done, 13) for done in range(14)]


def test_the_same_images_give_the_same_numbers(found, tmp_path):
    assert measure_steadiness(saved(tmp_path), IMAGES, WHOLE) == found


def test_one_image_can_be_measured_and_none_has_no_steadiness(tmp_path):
    assert set(measure_steadiness(saved(tmp_path), IMAGES[:1], WHOLE[:1])["blur"]) == {"alarms", "recall", "auroc"}
    assert measure_steadiness(None, IMAGES[:0], []) == {}


def test_only_what_the_camera_saw_is_changed(tmp_path):
    framed = np.zeros_like(IMAGES)  # black bars above and below
    framed[:, 3:9] = IMAGES[:, 3:9]
    model = saved(tmp_path, rows=3, threshold=0.0)
    inside, everywhere = (
        measure_steadiness(model, framed, pictures)
        for pictures in ([Placement.on_map((6, 16), (12, 16), is_padded=True)] * 40, WHOLE)
    )
    assert {of_change["alarms"] for of_change in inside.values()} == {0.0}
    assert everywhere["noise_2"]["alarms"] == everywhere["blur"]["alarms"] == 1.0


def write_split(folder, normal, anomalous=0):
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / "data")) as writer:
        for is_anomaly in [0] * normal + [1] * anomalous:
            feature = {"is_anomaly": tf.train.Feature(int64_list={"value": [is_anomaly]})}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return str(folder)


@pytest.mark.parametrize(
    ("tested", "held_out", "trained_on_held_out", "expected"),
    [
        (20, 50, False, ("test", 20)),
        (19, 50, False, ("eval", 50)),
        (19, 18, False, ("test", 19)),
        (0, 5, False, ("eval", 5)),
        (3, 50, True, ("test", 3)),
        (0, 0, False, ("test", 0)),
        (64, 0, False, ("test", 64)),
        (130, 0, False, ("test", 44)),  # every third
        (1, 65, False, ("eval", 33)),
    ],
)
def test_held_out_images_serve_if_few_normal_ones_are_tested(tmp_path, tested, held_out, trained_on_held_out, expected):
    test, others = write_split(tmp_path / "test", tested, anomalous=40), write_split(tmp_path / "eval", held_out)
    small, large = ({"height_px": side_px, "width_px": side_px} for side_px in (224, 8000))
    split, records = images_to_change(small, test, None if trained_on_held_out else others)
    assert (split, len(records)) == expected
    assert len(images_to_change(large, test, others)[1]) <= 20


def record(height_px, width_px):
    values = {"height_px": height_px, "width_px": width_px}
    feature = {name: tf.train.Feature(int64_list={"value": [value]}) for name, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


@pytest.mark.parametrize("size", [(460, 1130), (1130, 460), (12, 16), (7, 60), (60, 7), (33, 31), (100, 101)])
@pytest.mark.parametrize("frame", [(224, 224), (48, 64), (9, 11)])
def test_a_picture_is_where_preprocessing_puts_it_between_bars(size, frame):
    image = ImageSettings(height_px=frame[0], width_px=frame[1], fit="pad")
    padded = resized(tf.ones((*size, 1)), image, antialias=True).numpy()[..., 0]
    rows, columns = np.nonzero(padded)
    [picture] = pictures_of([record(*size)], height_px=frame[0], width_px=frame[1], fit="pad")
    shown = picture.crop(padded)
    assert (picture.top, picture.left) == (rows.min(), columns.min())
    assert shown.shape == (rows.max() + 1 - rows.min(), columns.max() + 1 - columns.min())


def test_a_stretched_picture_fills_the_frame_and_knows_its_size():
    [picture] = pictures_of([record(7, 300)], height_px=20, width_px=30, fit="stretch")
    assert picture == Placement(height_px=7, width_px=300, top=0, left=0, rows=20, columns=30)
