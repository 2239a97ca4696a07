"""Regions are found at their places in the original image, whatever resizing, padding or rotation came before."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import ndimage

from images.decoding import as_viewed, upright_size
from images.png import encode_png
from images.regions import Place, Placement, find_regions, strongest_place
from serving.client import Score
from serving.overlays import CocoFile, mask_of, write_mask
from trainer.data.decoding import decode_images
from trainer.settings.image import ImageSettings

SQUARE = (60, 30, 100, 70)
"""left, top, right, bottom of a white square in an upright image."""


def file_of(size, orientation=1, form="PNG"):
    """An image file of (width, height) with a white square on black, upright by EXIF's orientation."""
    pixels = np.zeros((size[1], size[0]), np.uint8)
    left, top, right, bottom = SQUARE
    pixels[top:bottom, left:right] = 255
    image = Image.fromarray(pixels)
    turn = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    stored = image if turn[orientation] is None else image.transpose(turn[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, form, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((160, 120), ImageSettings(height_px=120, width_px=160)),  # as it is
        ((160, 120), ImageSettings(height_px=60, width_px=80)),  # shrunk
        ((160, 120), ImageSettings(height_px=240, width_px=320)),  # enlarged
        ((160, 120), ImageSettings(height_px=96, width_px=96)),  # stretched
        ((160, 120), ImageSettings(height_px=96, width_px=96, fit="pad")),  # bars above and below
        ((120, 160), ImageSettings(height_px=80, width_px=128, fit="pad")),  # bars left and right
        ((161, 123), ImageSettings(height_px=97, width_px=95, fit="pad")),  # nothing divides evenly
    ],
)
def test_a_square_is_found_where_it_is_in_the_file(size, settings, orientation):
    """The model's view of the file is thresholded at half of white; a pixel of it covers up to two of the image."""
    content = file_of(size, orientation)
    assert upright_size(content) == (size[1], size[0])
    [pixels] = decode_images(tf.constant([as_viewed(content)]), settings).numpy()
    placement = Placement.on_map(upright_size(content), settings.shape[:2], is_padded=settings.fit == "pad")
    [region], _ = find_regions(pixels[..., 0] * 2, placement)
    tolerance = max(1.0, size[0] / placement.columns, size[1] / placement.rows)
    assert (region.left, region.top, region.right, region.bottom) == pytest.approx(SQUARE, abs=tolerance)
    assert region.area_percent == pytest.approx(100 * 40 * 40 / (size[0] * size[1]), rel=0.12)
    place = strongest_place(pixels[..., 0], placement)
    left, top, right, bottom = SQUARE
    assert left - tolerance < place.x < right + tolerance
    assert top - tolerance < place.y < bottom + tolerance
    assert place.value == pytest.approx(1.0, abs=0.01)
    assert region.area_px == pytest.approx(40 * 40, rel=0.12)
    assert region.peak == pytest.approx(2.0, abs=0.1)
    rows, columns = np.nonzero(placement.crop(pixels[..., 0]) > 0.5)
    left, top = placement.left + columns.min(), placement.top + rows.min()
    expected = (left, top, placement.left + columns.max() + 1, placement.top + rows.max() + 1)
    assert placement.box_on_map(region) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(7, 40), (40, 7), (48, 48), (64, 64), (33, 97), (224, 224)])
def test_padding_is_where_the_graph_puts_it(shape):
    """Also where single precision, or a graph that multiplies by 1/48, would not round to a whole side."""
    settings = ImageSettings(height_px=shape[0], width_px=shape[1], fit="pad")
    decode = tf.function(lambda encoded: decode_images(encoded, settings), autograph=False)
    sizes = (
        (100, 50),
        (50, 100),
        (99, 100),
        (20, 90),
        (100, 165),
        (165, 100),
        (29, 90),
        (32, 161),
        (80, 80),
        (97, 845),
    )
    files = [next(encode_png(np.full((1, *size, 1), 255, np.uint8))) for size in sizes]
    for size, padded in zip(sizes, decode(tf.constant(files)).numpy()[..., 0], strict=True):
        expected = np.zeros(shape)
        Placement.on_map(size, shape, is_padded=True).crop(expected)[:] = 1
        assert np.array_equal(padded > 0, expected > 0)


@pytest.mark.parametrize("size", [(8, 8), (47, 200), (30, 5)])
def test_no_region_is_lost_in_an_image_smaller_than_the_map(size):
    """What one position of the map shows is where it overlaps the image's pixels."""
    placement = Placement.on_map(size, (48, 48), is_padded=False)
    for place in np.random.default_rng(0).integers(0, 48, (20, 2)):
        one = np.zeros((48, 48), bool)
        one[tuple(place)] = True
        shown = np.nonzero(placement.enlarge(one))
        for pixels, position, side_px in zip(shown, place, size, strict=True):
            assert len(pixels) > 0
            assert all(pixels * 48 < (position + 1) * side_px)
            assert all((pixels + 1) * 48 > position * side_px)


def test_an_image_of_the_maps_aspect_ratio_fills_it():
    assert Placement.on_map((80, 80), (48, 48), is_padded=True) == Placement(80, 80, 0, 0, 48, 48)


def random_map(seed):
    random = np.random.default_rng(seed)
    return ndimage.gaussian_filter(random.standard_normal((40, 50)), 2) * 8


@pytest.mark.parametrize("seed", range(5))
def test_regions_and_labels_agree_with_a_count_of_the_pixels(seed):
    anomaly_map, placement = random_map(seed), Placement.on_map((80, 150), (40, 50), is_padded=False)
    regions, labels = find_regions(anomaly_map, placement)
    assert np.array_equal(labels > 0, anomaly_map > 1)
    assert [region.peak for region in regions] == sorted((r.peak for r in regions), reverse=True)
    for number, region in enumerate(regions, 1):
        rows, columns = np.nonzero(labels == number)
        assert (region.top, region.bottom) == (rows.min() * 2, (rows.max() + 1) * 2)
        assert (region.left, region.right) == (columns.min() * 3, (columns.max() + 1) * 3)
        assert region.area_px == pytest.approx(len(rows) * 6)
        assert region.mean == pytest.approx(anomaly_map[rows, columns].mean())
    assert sum(region.area_percent for region in regions) == pytest.approx(100 * (anomaly_map > 1).mean())


def test_small_regions_do_not_count():
    anomaly_map = np.zeros((10, 10))
    anomaly_map[0, 0], anomaly_map[5:7, 5:7] = 9, 2
    placement = Placement.on_map((10, 10), (10, 10), is_padded=False)
    [region], labels = find_regions(anomaly_map, placement, smallest_share=0.02)
    assert (region.left, region.top, region.area_px) == (5, 5, 4)
    assert labels[0, 0] == 0


def test_values_that_are_not_numbers_are_anomalous():
    anomaly_map = np.zeros((4, 4))
    anomaly_map[1, 1] = np.nan
    [region], _ = find_regions(anomaly_map, Placement.on_map((4, 4), (4, 4), is_padded=False))
    assert (region.left, region.top) == (1, 1)
    assert np.isfinite(region.peak)


def decoded(run_lengths):
    """COCO's run lengths: zeros and ones in turn, down the columns."""
    values = np.repeat(np.arange(len(run_lengths["counts"])) % 2, run_lengths["counts"])
    return values.reshape(run_lengths["size"], order="F")


@pytest.mark.parametrize("seed", range(3))
def test_masks_and_coco_instances_show_the_regions_at_the_image_s_size(seed, tmp_path):
    anomaly_map, placement = random_map(seed), Placement.on_map((123, 77), (40, 50), is_padded=True)
    score = Score(0, 0, 1, True, anomaly_map=anomaly_map, placement=placement)
    write_mask(score, tmp_path / "mask.png")
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    assert mask.shape == (123, 77)
    assert set(np.unique(mask)) == {0, 255}
    coco = CocoFile()
    coco.add("a.png", score)
    coco.add("b.png", Score(0, 0, 1, False, anomaly_map=np.zeros((40, 50)), placement=placement))
    coco.write(tmp_path / "coco.json")
    document = json.loads((tmp_path / "coco.json").read_text())
    assert [(one["file_name"], one["width"], one["height"]) for one in document["images"]] == [
        ("a.png", 77, 123), ("b.png", 77, 123)
    ]  # fmt: skip
    together = np.zeros_like(mask)
    for annotation in document["annotations"]:
        assert annotation["image_id"] == 1
        inside = decoded(annotation["segmentation"])
        left, top, width, height = annotation["bbox"]
        rows, columns = np.nonzero(inside)
        found = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert found == pytest.approx((left, top, width, height), abs=1)
        assert inside.sum() == pytest.approx(annotation["area"], rel=0.35, abs=8)
        together |= inside.astype(np.uint8) * 255
    assert np.array_equal(together, mask)
    assert np.array_equal(mask, mask_of(score))


def test_an_anomaly_without_regions_has_a_strongest_place_in_pixels_of_the_file():
    """The padding, whose values say nothing about the image, does not count."""
    anomaly_map = np.zeros((8, 8), np.float32)
    anomaly_map[0, 0], anomaly_map[3, 5] = 0.95, 0.9
    placement = Placement.on_map((40, 80), (8, 8), is_padded=True)

    def score(values, *, is_anomaly=True):
        return Score(
            error=0.1, score=2.0, threshold=1.0, is_anomaly=is_anomaly, anomaly_map=values, placement=placement
        )

    assert score(anomaly_map).strongest == Place(x=55.0, y=15.0, value=pytest.approx(0.9))
    assert score(anomaly_map, is_anomaly=False).strongest is None
    assert score(2 * anomaly_map).strongest is None, "it has a region"
    anomaly_map[4, 0] = np.nan
    assert score(np.where(anomaly_map > 1, 0, anomaly_map)).strongest is None, "what is not finite is a region"
