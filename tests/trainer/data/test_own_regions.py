"""Each image's own region of interest: what is transparent changes neither pixels, nor scores, nor maps."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pydantic import ValidationError

from components.report.defect_study import detect
from components.report.synthetic_defects import DEFECTS
from images.decoding import as_pixels, as_viewed
from images.reading import AS_STORED, Reading
from images.region_of_interest import sampled_own
from images.stored import UnreadableImageError, from_file_bytes
from images.synthetic_defects import KINDS, paint
from images.wide_png import wide_colour
from trainer.data.decoding import decode_images
from trainer.data.masks import masks_of
from trainer.data.region import inside_of_images, limited
from trainer.export.probes import probe
from trainer.scoring.scores import FittedScore
from trainer.settings.calibration import CalibrationSettings
from trainer.settings.image import ImageSettings

RANDOM = np.random.default_rng(12)
OWN = Reading(alpha="roi")
DISC = np.hypot(*(np.mgrid[0:50, 0:40] - np.array([20, 22])[:, None, None])) < 15
"""Where the part is in an image of 50 x 40 pixels."""
SCORES = ["error", "worst_pixels", "patch_max", "local_ssim", "blurred_error", "cosine_distance"]


def settings(**fields):
    return ImageSettings(**{"height_px": 25, "width_px": 20, "alpha": "roi", **fields})


def saved(pixels, form="PNG", **how):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **how)
    return file.getvalue()


def white(mask):
    return saved(mask.astype(np.uint8) * 255)


def parts(dtype=np.uint8):
    """The same part before two backgrounds: [50, 40, 3], with black pixels in the part, too."""
    top = np.iinfo(dtype).max
    part = RANDOM.integers(top // 5, top, (50, 40, 3), dtype)
    part[20:22, 20:24] = 0
    return [np.where(DISC[..., None], part, RANDOM.integers(0, top, part.shape, dtype)) for _ in range(2)]


def by_column(pixels):
    return from_file_bytes(saved(pixels), OWN, roi=white(DISC)).encoded


def by_alpha(pixels):
    return as_viewed(saved(np.dstack([pixels, DISC * np.uint8(255)])), OWN)


def by_tiff(pixels):
    return as_viewed(saved(np.dstack([pixels, DISC * np.uint8(255)]), "TIFF", compression="tiff_lzw"), OWN)


def by_a_client(pixels):
    """What a client that knows nothing about the model sends."""
    return as_viewed(as_viewed(saved(np.dstack([pixels, DISC * np.uint8(255)])), AS_STORED), OWN)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stored", [by_column, by_alpha, by_tiff, by_a_client])
def test_a_defect_outside_changes_no_bit_of_score_and_map(stored, channels, score):
    own = settings(channels=channels)
    model = limited(lambda pixels: {"reconstruction": tf.nn.avg_pool2d(pixels, 5, 1, "SAME") + 0.1}, own)
    fitted = FittedScore(score, CalibrationSettings(), {})
    results = []
    for pixels in map(stored, parts()):
        decoded = decode_images(tf.constant([pixels]), own)
        outputs = model(decoded)
        results.append((fitted(decoded, outputs).numpy(), fitted.anomaly_map(decoded, outputs).numpy()))
        inside = inside_of_images(decoded, own).numpy()[0]
    (sound, sound_map), (defective, defective_map) = results
    assert sound.tobytes() == defective.tobytes()
    assert sound_map.tobytes() == defective_map.tobytes()
    assert sound[0] > 0
    assert np.array_equal(inside, DISC[1::2, 1::2])
    assert (sound_map[0][~inside] == 0).all()


def test_all_ways_to_give_the_region_are_the_same_to_the_graph():
    own = settings(channels=3)
    [pixels, _] = parts()
    files = [way(pixels) for way in (by_column, by_alpha, by_tiff, by_a_client)]
    files.append(as_pixels(saved(np.dstack([pixels, DISC * np.uint8(255)])), OWN).encoded)
    decoded = decode_images(tf.constant(files), own).numpy()
    assert (decoded == decoded[0]).all()


def test_sixteen_bits_keep_all_bits_and_the_region():
    own = settings(depth=16, channels=3, height_px=50, width_px=40)
    sound, defective = parts(np.uint16)
    one, other = (
        from_file_bytes(as_viewed_wide(pixels), Reading(depth=16, alpha="roi"), roi=white(DISC)).encoded
        for pixels in (sound, defective)
    )
    assert one == other
    assert np.array_equal(wide_colour(one, (50, 40))[..., :3][DISC], sound[DISC])
    decoded = decode_images(tf.constant([one]), own).numpy()[0]
    assert np.allclose(decoded[DISC], np.maximum(sound[DISC] / 65535, 1e-5), atol=1e-7)
    assert (decoded[~DISC] == 0).all()


def as_viewed_wide(pixels):
    from images.png import encode_png

    return next(encode_png(pixels[np.newaxis]))


def test_grey_with_alpha_and_a_turned_jpeg_with_a_mask():
    grey = parts()[0][..., 0]
    with_alpha = saved(np.dstack([grey, DISC * np.uint8(255)]))
    decoded = decode_images(tf.constant([as_viewed(with_alpha, OWN)]), settings(height_px=50, width_px=40)).numpy()[0]
    assert np.array_equal(decoded[..., 0] > 0, DISC)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: a viewer turns it by 90 degrees
    turned = from_file_bytes(saved(np.rot90(parts()[0]), "JPEG", quality=95, exif=exif), OWN, roi=white(DISC))
    decoded = decode_images(tf.constant([turned.encoded]), settings(height_px=50, width_px=40)).numpy()[0]
    assert np.array_equal(decoded[..., 0] > 0, DISC)


def test_all_of_an_image_without_alpha_counts():
    black = np.zeros((50, 40, 3), np.uint8)
    files = [saved(black), saved(black, "JPEG"), saved(black, "BMP")]
    assert inside_of_images(decode_images(tf.constant(files), settings()), settings()).numpy().all()


def test_without_the_setting_transparent_pixels_are_white_as_before():
    [pixels, _] = parts()
    own = ImageSettings(height_px=50, width_px=40, channels=3)
    direct, by_client = (
        decode_images(tf.constant([file]), own).numpy()[0]
        for file in (as_viewed(saved(np.dstack([pixels, DISC * np.uint8(255)]))), by_a_client(pixels))
    )
    assert (direct[~DISC] == 1).all()
    assert np.array_equal(direct, by_client)


def test_an_image_without_any_pixel_that_counts_is_rejected_and_scored_as_unknown():
    nothing = saved(np.zeros((50, 40, 4), np.uint8))
    with pytest.raises(UnreadableImageError, match="every pixel is transparent"):
        from_file_bytes(nothing, OWN)
    own = settings()
    decoded = decode_images(tf.constant([as_viewed(nothing, OWN), by_alpha(parts()[0])]), own)
    outputs = limited(lambda pixels: {"reconstruction": pixels + 0.1, "feature_error": tf.ones([2, 5, 5])}, own)(
        decoded
    )
    for fitted in (FittedScore(name, CalibrationSettings(), {}) for name in ("error", "worst_pixels")):
        assert np.isfinite(fitted(decoded, outputs).numpy()).tolist() == [False, True]


@pytest.mark.parametrize("place", [(0, 0), (21, 11), (49, 39)], ids=str)
@pytest.mark.parametrize("size", [(8, 8), (25, 20), (7, 9)], ids=str)
def test_a_region_between_the_models_pixels_keeps_the_pixel_that_contains_it(size, place):
    own = settings(height_px=size[0], width_px=size[1])
    mask = np.zeros((50, 40), bool)
    mask[place] = True
    files = [from_file_bytes(saved(pixels), OWN, roi=white(mask)).encoded for pixels in parts()]
    images = decode_images(tf.constant(files), own).numpy()
    inside = inside_of_images(images, own).numpy()
    assert np.argwhere(inside[0]).tolist() == [[place[0] * size[0] // 50, place[1] * size[1] // 40]]
    assert np.array_equal(inside[0], sampled_own(mask, *size))
    outputs = limited(lambda pixels: {"reconstruction": pixels + 0.1}, own)(tf.constant(images))
    assert np.isfinite(FittedScore("error", CalibrationSettings(), {})(images, outputs).numpy()).all()
    for kind in KINDS:
        painted = paint(images, kind, seed=1, inside=inside)
        assert np.isfinite(painted).all()
        assert np.array_equal(inside_of_images(painted, own).numpy(), inside)
    levels = [np.round(image * 255).astype(np.uint8) for image in images[..., 0]]
    for defect in DEFECTS:
        detect(defect, levels, lambda damaged: np.zeros(len(damaged)), 1.0, seed=3, inside=inside)


@pytest.mark.parametrize(
    ("roi", "reason"),
    [
        (white(np.ones((8, 8))), "its roi: 8x8 pixels, but the image has 40x50"),
        (white(np.zeros((50, 40))), "every pixel is transparent or outside"),
        (b"no image", "its roi: not an image"),
    ],
)
def test_an_unusable_mask_is_named(roi, reason):
    with pytest.raises(UnreadableImageError, match=reason):
        from_file_bytes(saved(parts()[0]), OWN, roi=roi)


def test_values_of_32_bits_cannot_have_a_region():
    own = Reading(depth=16, range=(0, 1), alpha="roi")
    with pytest.raises(UnreadableImageError, match="values of 32 bits"):
        from_file_bytes(saved(RANDOM.random((50, 40), np.float32), "TIFF"), own, roi=white(DISC))


@pytest.mark.parametrize("kind", KINDS)
def test_synthetic_defects_lie_in_each_images_own_region(kind):
    own = settings()
    moved = [by_alpha(parts()[0]), by_column(parts()[0])]
    images = decode_images(tf.constant(moved * 3), own).numpy()
    inside = inside_of_images(images, own).numpy()
    painted = paint(images, kind, seed=1, inside=inside)
    change = (painted != images)[..., 0]
    assert change.any(axis=(1, 2)).all()
    assert not change[~inside].any()
    assert np.array_equal(inside_of_images(painted, own).numpy(), inside)


def test_ground_truth_outside_is_unknown_and_noise_stays_inside():
    own = settings(height_px=50, width_px=40)
    pixels = decode_images(tf.constant([by_alpha(parts()[0])]), own)
    feature = {"mask": tf.train.Feature(bytes_list={"value": [white(np.ones((50, 40)))]})}
    example = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
    masks = masks_of(tf.constant([example]), tf.constant([1], tf.int64), pixels, own).numpy()[0]
    assert np.array_equal(masks, np.where(DISC, 1, -1))
    given = []

    def reconstruct(noisy):
        given.append(noisy.numpy()[0])
        return noisy

    probe(tf.constant([b"x"]), pixels, reconstruct, 1.0, inside_of_images(pixels, own))
    for noisy in given[1:]:
        assert np.array_equal(noisy[..., 0] > 0, DISC)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fit": "pad"}, "image.alpha: roi cannot be combined with fit: pad"),
        ({"roi": {"box": [0, 0, 1, 0.5]}}, "leave out one"),
    ],
)
def test_what_cannot_work_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        settings(**fields)
