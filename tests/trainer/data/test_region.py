"""The region of interest: what lies outside changes neither pixels, nor scores, nor maps."""

import base64
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageDraw
from pydantic import ValidationError

from images.region import Region
from images.region_of_interest import pixels_inside
from images.stored import from_pixels
from images.synthetic_defects import KINDS, paint
from trainer.data.decoding import decode_images
from trainer.data.region import limited
from trainer.scoring.scores import FittedScore
from trainer.settings.calibration import CalibrationSettings
from trainer.settings.image import ImageSettings

BOX = {"box": [0.25, 0.25, 0.75, 0.75]}
TRIANGLE = {"polygon": [[0.1, 0.9], [0.5, 0.1], [0.9, 0.9]]}


def ring():
    """A mask of another size than any image: a disc of 45 % of each side with a hole of 15 %."""
    down, across = np.mgrid[0:60, 0:90]
    distance = np.hypot(down / 60 - 0.5, across / 90 - 0.5)
    return (distance < 0.45) & (distance > 0.15)


def png_of(white):
    file = io.BytesIO()
    Image.fromarray(white.astype(np.uint8) * 255).save(file, "PNG")
    return file.getvalue()


RING = {"mask": "data:image/png;base64," + base64.b64encode(png_of(ring())).decode()}


def settings(roi, side_px=32):
    return ImageSettings(height_px=side_px, width_px=side_px, roi=roi)


def decoded(levels, own):
    return decode_images(tf.constant([from_pixels(levels).encoded]), own)


def sound_and_defective(roi, size):
    """The same image with and without noise in all pixels whose centres lie outside the region."""
    random = np.random.default_rng(3)
    sound = random.integers(60, 200, (size, size + 7, 1), np.uint8)
    outside = ~pixels_inside(settings(roi).roi, *sound.shape[:2])
    defective = np.where(outside[..., None], random.integers(0, 256, sound.shape, np.uint8), sound)
    assert (sound != defective).any()
    return sound, defective


@pytest.mark.parametrize(
    "score", ["error", "worst_pixels", "patch_max", "local_ssim", "blurred_error", "cosine_distance"]
)
@pytest.mark.parametrize("size", [32, 101])
@pytest.mark.parametrize("roi", [BOX, TRIANGLE, RING])
def test_a_defect_outside_changes_no_bit_of_score_and_map(roi, size, score):
    own = settings(roi)
    model = limited(lambda pixels: {"reconstruction": tf.nn.avg_pool2d(pixels, 5, 1, "SAME") + 0.1}, own)
    fitted = FittedScore(score, CalibrationSettings(), {})
    results = []
    for levels in sound_and_defective(roi, size):
        pixels = decoded(levels, own)
        outputs = model(pixels)
        results.append((fitted(pixels, outputs).numpy(), fitted.anomaly_map(pixels, outputs).numpy()))
    (sound, sound_map), (defective, defective_map) = results
    assert sound.tobytes() == defective.tobytes()
    assert sound_map.tobytes() == defective_map.tobytes()
    assert sound[0] > 0
    assert (sound_map[0][~own.inside] == 0).all()
    assert (sound_map[0][own.inside] != 0).any()


def test_a_defect_inside_changes_the_pixels():
    own = settings(BOX)
    levels = np.full((64, 64, 1), 100, np.uint8)
    sound = decoded(levels, own).numpy()
    levels[30:34, 30:34] = 250
    assert (decoded(levels, own).numpy() != sound).any()


def test_a_feature_map_is_zero_outside():
    own = settings(BOX)
    model = limited(lambda pixels: {"reconstruction": pixels, "feature_error": tf.ones([1, 8, 8])}, own)
    pixels = tf.zeros([1, 32, 32, 1])
    outputs = model(pixels)
    assert outputs["feature_error"].numpy().sum() == 16
    maps = FittedScore("error", CalibrationSettings(), {}).anomaly_map(pixels, outputs).numpy()
    assert (maps[0][~own.inside] == 0).all()


def test_the_polygon_is_that_of_pillow_up_to_its_edge():
    drawn = Image.new("L", (200, 100))
    corners = [(0.1, 0.2), (0.9, 0.1), (0.6, 0.5), (0.8, 0.9), (0.2, 0.8)]
    ImageDraw.Draw(drawn).polygon([(x * 200 - 0.5, y * 100 - 0.5) for x, y in corners], fill=1)
    differs = (np.asarray(drawn) > 0) ^ pixels_inside(Region(polygon=corners), 100, 200)
    assert pixels_inside(Region(polygon=corners), 100, 200).mean() > 0.3
    assert differs.mean() < 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_synthetic_defects_lie_inside(kind):
    images = np.random.default_rng(1).uniform(0.2, 0.8, (8, 32, 32, 1)).astype(np.float32)
    inside = settings(TRIANGLE).inside
    change = (paint(images, kind, seed=1, inside=np.stack([inside] * 8)) != images)[..., 0]
    assert change.any(axis=(1, 2)).all()
    assert not change[:, ~inside].any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"roi": "mask.png"}, "mask: FILE"),
        ({"roi": {**BOX, "mask": "mask.png"}}, "must be"),
        ({"roi": {"mask": "missing.png"}}, "missing.png cannot be read: No such file"),
        ({"roi": {"mask": "data:image/png;base64,AAAA"}}, "damaged"),
        ({"roi": {"box": [0.1, 0.2]}}, "must be"),
        (
            {"roi": {"box": [0.51, 0.5, 0.52, 0.9]}},
            r"contains no pixel of an image of 8 x 8 pixels.*raise image.width_px",
        ),
        ({"roi": {"box": [0.5, 0.5, 0.5, 0.9]}}, "left 0.5 must be less than right 0.5"),
        (
            {"roi": {"box": [0.3, 0.3, 0.4, 0.2]}},
            r"top 0.3 must be less than bottom 0.2; the order is \[left, top, right",
        ),
        ({"roi": BOX, "fit": "pad"}, "fit: stretch"),
    ],
)
def test_what_cannot_work_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        ImageSettings(**fields)


def test_a_mask_file_becomes_part_of_the_settings_and_is_sampled_at_the_centres_of_pixels(tmp_path):
    file = tmp_path / "mask.png"
    file.write_bytes(png_of(ring()))
    own = settings({"mask": str(file)})
    file.unlink()
    again = ImageSettings.model_validate(own.model_dump(mode="json"))
    rows, columns = ((np.arange(32) + 0.5) / 32 * side for side in (60, 90))
    expected = ring()[np.floor(rows).astype(int)][:, np.floor(columns).astype(int)]
    assert np.array_equal(again.inside, expected)
    assert again == own


def test_a_grey_mask_counts_where_it_is_brighter_than_half(tmp_path):
    file = tmp_path / "mask.png"
    Image.fromarray(np.array([[127, 128], [0, 255]], np.uint8)).save(file)
    assert settings({"mask": str(file)}, side_px=4).inside.tolist() == [[False] * 2 + [True] * 2] * 4


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (np.zeros((8, 8)), "no white pixel"),
        (np.random.default_rng(0).integers(0, 2, (900, 900)) * 255, "at most 65,536"),
    ],
)
def test_a_mask_file_that_cannot_work_is_refused(levels, message, tmp_path):
    file = tmp_path / "mask.png"
    Image.fromarray(levels.astype(np.uint8)).save(file)
    with pytest.raises(ValidationError, match=message):
        settings({"mask": str(file)})
