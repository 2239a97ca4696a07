"""Tiles cover an image, are blended back to what they were cut from, and are the same with and without a loop."""

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from pipeline.configuration.configuration import Configuration
from trainer.data.dataset import Draw, ImageSet, PixelConstants
from trainer.data.tiles import blended_errors, cut, tiled, tiled_at_once, tiled_latents
from trainer.data.unseen_maps import of_whole_images
from trainer.settings.following import following_images
from trainer.settings.image import ImageSettings
from trainer.settings.tiles import starts
from trainer.settings.trainer import TrainerSettings

IMAGE = ImageSettings(height_px=53, width_px=70, channels=3, tiles={"height_px": 16, "width_px": 20, "overlap": 0.3})
PIXELS = np.random.default_rng(1).random((3, 53, 70, 3), np.float32)


def of_tiles(tiles):
    """Everything that a family can return, each computed from the tile alone."""
    return {
        "reconstruction": tiles,
        "latent": tf.reduce_mean(tiles, axis=[1, 2]),
        "kl": tf.reduce_sum(tiles, axis=[1, 2, 3]),
        "feature_error": tf.nn.avg_pool2d(tiles[..., :1], 4, 4, "VALID")[..., 0],
    }


@pytest.mark.parametrize("side_px", [16, 17, 31, 32, 100, 8000])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.8])
def test_tiles_cover_a_side_and_overlap_as_much_as_wanted(side_px, overlap):
    found = starts(side_px, 16, overlap)
    assert (found[0], found[-1]) == (0, side_px - 16)
    steps = np.diff(found)
    assert (steps >= 1).all()
    assert (16 - steps >= 16 * overlap - 1).all()  # rounded to whole pixels
    assert len(found) <= (side_px - 16) / (16 * (1 - overlap)) + 2


def test_tiles_are_blended_back_to_the_image_they_were_cut_from():
    assert IMAGE.tile_count == 5 * 5
    outputs = tf.function(tiled(of_tiles, IMAGE), autograph=False)(PIXELS)
    assert outputs["reconstruction"].numpy() == pytest.approx(PIXELS, abs=1e-6)
    for row, pixels in enumerate(PIXELS):
        tiles = np.stack([cut(pixels, IMAGE, number) for number in range(25)])
        assert outputs["latent"][row].numpy() == pytest.approx(tiles.mean(axis=(1, 2)).ravel(), abs=1e-6)
        assert outputs["kl"][row].numpy() == pytest.approx(tiles.sum(), rel=1e-5)


def test_a_batch_gives_what_each_image_gives_alone_and_at_once():
    together = tiled(of_tiles, IMAGE)(tf.constant(PIXELS))
    at_once = tiled_at_once(of_tiles, IMAGE)
    for row in range(len(PIXELS)):
        alone = at_once(tf.constant(PIXELS[row : row + 1]))
        assert {*alone, "pixel_error"} == set(together)
        for name, values in alone.items():
            assert values.numpy() == pytest.approx(together[name][row : row + 1].numpy(), rel=1e-5, abs=1e-6), name
    assert tiled(of_tiles, IMAGE)(tf.zeros([0, 53, 70, 3]))["latent"].shape == (0, 75)


def test_the_graph_that_takes_all_tiles_at_once_is_smaller_than_an_image():
    tiles = {"height_px": 256, "width_px": 256}
    large = ImageSettings.model_validate({"height_px": 2000, "width_px": 2000, "channels": 3, "tiles": tiles})
    at_once = tf.function(tiled_at_once(lambda tiles: {"reconstruction": tiles}, large), autograph=False)
    graph = at_once.get_concrete_function(tf.TensorSpec([1, *large.shape], tf.float32)).graph
    assert graph.as_graph_def().ByteSize() < 1_000_000


def test_errors_without_a_whole_reconstruction_are_the_same_to_the_last_bit():
    """Tiles are reconstructed darker, by a share that is their own."""

    def darker(tiles):
        return {"reconstruction": tiles * tf.reduce_mean(tiles, axis=[1, 2, 3], keepdims=True)}

    shown, kept = (tf.function(tiled(darker, IMAGE, shows=shows), autograph=False)(PIXELS) for shows in (True, False))
    assert set(kept) == {"pixel_error"}
    errors = np.square(PIXELS - shown["reconstruction"].numpy()).mean(axis=-1)
    assert shown["pixel_error"].numpy() == pytest.approx(errors, rel=1e-5, abs=1e-7)
    assert kept["pixel_error"].numpy().tobytes() == shown["pixel_error"].numpy().tobytes()
    assert errors.max() > 0.1


def test_neighbours_that_disagree_fade_into_each_other():
    """Two tiles of 16 that share 8 columns: one is all 0, the other all 1."""
    image = ImageSettings(height_px=16, width_px=24, tiles={"height_px": 16, "width_px": 16, "overlap": 0.5})
    is_second = tf.function(tiled(lambda tiles: {"reconstruction": tf.zeros_like(tiles) + tiles[:, :1, -1:]}, image))
    pixels = np.zeros((1, 16, 24, 1), np.float32)
    pixels[..., -1, :] = 1
    blended = is_second(pixels)["reconstruction"].numpy()[0, 3, :, 0]
    assert (blended[:8] == 0).all()
    assert (blended[16:] == 1).all()
    assert blended[8:16] == pytest.approx(np.arange(1, 9) / 9)


@pytest.mark.parametrize("place", [(0, 0), (20, 30), (41, 58)])
def test_a_coarse_map_shows_a_square_where_it_is_in_the_image(place):
    top, left = place
    pixels = np.zeros((1, 53, 70, 3), np.float32)
    pixels[:, top : top + 12, left : left + 12] = 1
    found = tiled(of_tiles, IMAGE)(tf.constant(pixels))["feature_error"].numpy()[0]
    assert found.shape == (13, 18)  # a cell for 4 x 4 pixels, as in a tile
    down, across = ((np.arange(count) + 0.5) * side / count for count, side in ((13, 53), (18, 70)))
    centre = np.average(down, weights=found.sum(axis=1)), np.average(across, weights=found.sum(axis=0))
    assert centre == pytest.approx((top + 6, left + 6), abs=1.5)
    assert found.sum() * (53 / 13) * (70 / 18) == pytest.approx(144, rel=0.1)


def test_latents_are_decoded_to_what_their_tiles_show():
    flat = tiled(lambda tiles: {"latent": tf.reshape(tiles, [-1, 16 * 20 * 3])}, IMAGE)(PIXELS)["latent"]
    decode = tiled_latents(lambda latents: {"reconstruction": tf.reshape(latents, [-1, 16, 20, 3])}, IMAGE)
    assert decode(flat)["reconstruction"].numpy() == pytest.approx(PIXELS, abs=1e-6)


def test_without_tiles_nothing_is_wrapped():
    whole = ImageSettings()
    assert tiled(of_tiles, whole) is tiled_at_once(of_tiles, whole) is tiled_latents(of_tiles, whole) is of_tiles
    assert (whole.network_shape, whole.tile_count) == (whole.shape, 1)


@pytest.mark.parametrize("at_most", [40, 1000])
def test_tiles_are_drawn_once_each_from_all_images(at_most):
    rows = Draw(IMAGE, at_most, seed=3).rows(images=10)
    drawn = rows[rows >= 0]
    assert rows.shape == (10, 25)
    assert np.array_equal(np.sort(drawn), np.arange(min(at_most, 250)))
    assert len(np.unique(np.nonzero(rows >= 0)[0])) == 10


def test_values_that_follow_the_images_follow_the_tiles():
    settings = TrainerSettings.model_validate({"preset": "residual", "max_tiles": 200})
    tiles = {"height_px": 64, "width_px": 64, "overlap": 0}
    large = ImageSettings(height_px=640, width_px=640, tiles=tiles)
    small = ImageSettings(height_px=64, width_px=64)
    assert following_images(settings, large, 50) == following_images(settings, small, 200)
    assert following_images(settings, large, 1) == following_images(settings, small, 100)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height_px": 2000}, "set image.tiles"),
        ({"tiles": {"height_px": 16, "width_px": 8}}, "image.tiles.height_px 16 is more than image.height_px 8"),
        ({"height_px": 20_000, "width_px": 20_000, "tiles": {"height_px": 64, "width_px": 64}}, "100,000,000 pixels"),
        ({"tiles": {"height_px": 8, "width_px": 8, "overlap": 1}}, "overlap"),
        (
            {
                "height_px": 8000,
                "width_px": 8000,
                "tiles": {"height_px": 64, "width_px": 64},
                "roi": {"box": [0, 0, 1, 1]},
            },
            "image.roi supports at most 16,777,216 pixels",
        ),
    ],
)
def test_sizes_that_cannot_work_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        ImageSettings.model_validate(fields)


def test_a_latent_too_large_for_its_score_is_refused():
    image = {"height_px": 1024, "width_px": 1024, "tiles": {"height_px": 64, "width_px": 64}}
    configuration = {"image": image, "trainer": {"latent_dim": 32}, "evaluation": {"score": "neighbour_distance"}}
    with pytest.raises(ValidationError, match="neighbour_distance supports latents of at most 4096 numbers"):
        Configuration.model_validate(configuration)
    members = {"score": "ensemble", "score_members": ["error", "latent_distance"]}
    with pytest.raises(ValidationError, match="latent_distance supports"):
        Configuration.model_validate({**configuration, "evaluation": members})
    with pytest.raises(ValidationError, match="evaluation.groups supports"):
        Configuration.model_validate({**configuration, "evaluation": {"groups": "label"}})
    assert Configuration.model_validate({**configuration, "evaluation": {"score": "auto"}}).image.tile_count > 128


def drawn(image):
    """(maps of all tiles of PIXELS in the random order of training, an ImageSet that tells the order)."""
    rows = Draw(image, max_tiles=1000, seed=3).rows(len(PIXELS))
    order = np.argsort(rows.ravel())
    tiles_of, numbers = np.divmod(order, image.tile_count)
    pairs = zip(tiles_of, numbers, strict=True)
    tiles = np.stack([cut(PIXELS[of], image, number) for of, number in pairs])
    maps = of_tiles(tf.constant(tiles))["feature_error"].numpy()
    return maps, ImageSet(len(maps), image.network_shape, None, None, tiles_of, numbers)


def test_maps_of_tiles_in_training_order_become_those_of_the_images():
    maps, learnt = drawn(IMAGE)
    expected = tiled(of_tiles, IMAGE)(tf.constant(PIXELS))["feature_error"].numpy()
    assert blended_errors(maps, learnt.tiles_of, learnt.numbers, IMAGE) == pytest.approx(expected, abs=1e-6)
    assert blended_errors(maps[1:], learnt.tiles_of[1:], learnt.numbers[1:], IMAGE) is None


def test_unseen_maps_of_images_are_0_outside_the_region():
    image = ImageSettings.model_validate({**IMAGE.model_dump(), "roi": {"box": (0.5, 0.0, 1.0, 1.0)}})
    maps, learnt = drawn(image)
    constants = PixelConstants(np.zeros(3, np.float32), np.ones(3, np.float32))
    found = of_whole_images(tf.Variable(maps, shape=(None, *maps.shape[1:])), learnt, constants, image).numpy()
    expected = tiled(of_tiles, IMAGE)(tf.constant(PIXELS))["feature_error"].numpy()
    middle = found.shape[2] // 2
    assert (found[..., : middle - 1] == 0).all()
    assert found[..., middle + 1 :] == pytest.approx(expected[..., middle + 1 :], abs=1e-6)


def test_a_fit_that_left_out_tiles_tells_nothing_about_whole_images():
    maps, learnt = drawn(IMAGE)
    constants = PixelConstants(np.zeros(3, np.float32), np.ones(3, np.float32))
    some = tf.Variable(maps[::2], shape=(None, *maps.shape[1:]))
    assert of_whole_images(some, learnt, constants, IMAGE) is None
