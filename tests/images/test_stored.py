"""Any image file is converted to bytes that TensorFlow decodes to what a viewer shows."""

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from images.decoding import UnreadableImageError, as_viewed
from images.stored import from_file_bytes, from_pixels, mask_from_file_bytes

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (5, 7), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(content: bytes) -> np.ndarray:
    """The pixels that the graph decodes, which must be the same for ingestion and for scoring."""
    ingested, sent = (
        tf.io.decode_image(encoded, expand_animations=False).numpy()
        for encoded in (from_file_bytes(content).encoded, as_viewed(content))
    )
    assert np.array_equal(ingested, sent)
    return ingested


def test_pixels_are_unchanged_as_png():
    assert np.array_equal(tf.io.decode_png(from_pixels(GREY).encoded).numpy()[:, :, 0], GREY)
    assert np.array_equal(tf.io.decode_png(from_pixels(COLOUR).encoded).numpy(), COLOUR)


def test_statistics_equal_numpys():
    stored = from_file_bytes(encode(Image.fromarray(COLOUR), "PNG"))
    assert (stored.height_px, stored.width_px, stored.channels) == (5, 7, 3)
    assert stored.mean_intensity == pytest.approx(np.mean(COLOUR / 255.0))
    assert stored.contrast == pytest.approx(np.std(COLOUR / 255.0))


@pytest.mark.parametrize("value", [255, None])
@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (16, 17, 3), (257, 255, 3), (300, 310, 3)])
def test_statistics_of_eight_bits_are_exact(shape, value):
    pixels = RANDOM.integers(0, 256, shape, np.uint8) if value is None else np.full(shape, value, np.uint8)
    stored = from_pixels(pixels)
    mean = int(pixels.sum(dtype=np.int64)) / pixels.size
    variance = int(np.square(pixels, dtype=np.int64).sum()) / pixels.size - mean**2
    assert (stored.mean_intensity, stored.contrast) == (mean / 255.0, max(variance, 0.0) ** 0.5 / 255.0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR])
def test_bytes_that_tensorflow_decodes_are_kept(kind, pixels):
    content = encode(Image.fromarray(pixels), kind)
    assert from_file_bytes(content).encoded == as_viewed(content) == content


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP", "GIF"])
def test_other_formats_are_converted(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    image = Image.fromarray(GREY) if kind == "GIF" else Image.fromarray(COLOUR)
    expected = np.asarray(image.convert("RGB"))
    seen = decoded(encode(image, kind, **options))
    assert np.array_equal(np.broadcast_to(seen, expected.shape), expected)


def test_sixteen_bits_keep_their_high_byte():
    wide = np.array([[0, 255, 256], [32768, 65280, 65535]], np.uint16)
    assert decoded(encode(Image.fromarray(wide), "PNG"))[:, :, 0].tolist() == [[0, 0, 1], [128, 255, 255]]


def test_transparent_pixels_are_blended_with_white():
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    assert decoded(encode(image, "PNG")).tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_palettes_are_resolved():
    image = Image.fromarray(COLOUR).quantize(8)
    assert np.array_equal(decoded(encode(image, "PNG")), np.asarray(image.convert("RGB")))


def test_cmyk_becomes_rgb():
    assert decoded(encode(Image.new("CMYK", (3, 2), (0, 255, 255, 0)), "TIFF")).tolist() == [[[255, 0, 0]] * 3] * 2


def test_the_first_picture_of_a_multi_picture_file_is_used():
    first, second = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    seen = decoded(encode(first, "MPO", save_all=True, append_images=[second]))
    assert np.abs(seen.astype(int) - [255, 0, 0]).max() <= 2


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise by 90 degrees to view
    content = encode(Image.fromarray(COLOUR), "PNG", exif=exif)
    assert np.array_equal(decoded(content), np.rot90(COLOUR, k=-1))


DEFECT = np.array([[0, 0, 1], [0, 200, 0]], np.uint8)
BRIGHT = DEFECT > 127
PALETTE = Image.fromarray(BRIGHT.astype(np.uint8), "P")
PALETTE.putpalette([0, 0, 0, 0, 0, 200])  # a blue that becomes nearly black in greyscale


def mask_of(content: bytes) -> np.ndarray:
    return tf.io.decode_png(mask_from_file_bytes(content, height_px=2, width_px=3).encoded).numpy()[:, :, 0]


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(DEFECT),
        Image.fromarray(BRIGHT),
        Image.fromarray(DEFECT.astype(np.uint16) * 300),
        Image.merge("RGB", [Image.fromarray(plane) for plane in (0 * DEFECT, 0 * DEFECT, DEFECT)]),
        Image.merge("LA", [Image.fromarray(plane) for plane in (DEFECT, 0 * DEFECT)]),
        PALETTE,
    ],
    ids=lambda mask: mask.mode,
)
def test_a_mask_is_white_where_its_file_is_brighter_than_half(mask):
    assert np.array_equal(mask_of(encode(mask, "PNG")), np.where(BRIGHT, 255, 0))


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_every_class_number_but_zero_is_defective(kind):
    numbers = np.array([[0, 1, 2], [3, 0, 0]], kind)
    assert np.array_equal(mask_of(encode(Image.fromarray(numbers), "PNG")), np.where(numbers > 0, 255, 0))


def test_a_jpeg_mask_has_the_area_of_the_png():
    square = np.zeros((64, 64), np.uint8)
    square[20:36, 20:36] = 255
    content = encode(Image.fromarray(square), "JPEG", quality=30)
    assert np.mean(np.asarray(Image.open(io.BytesIO(content))) > 0) > 1.5 * np.mean(square > 0)
    mask = mask_from_file_bytes(content, height_px=64, width_px=64)
    assert np.array_equal(tf.io.decode_png(mask.encoded).numpy()[:, :, 0], square)
    assert not mask.has_many_intermediate_values


def test_a_mask_with_many_intermediate_values_is_noticed():
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    assert mask_from_file_bytes(encode(Image.fromarray(ramp), "PNG"), height_px=64, width_px=64)[1]


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(UnreadableImageError, match="3x2 pixels, but the image has 2x3"):
        mask_from_file_bytes(encode(Image.fromarray(DEFECT), "PNG"), height_px=3, width_px=2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"hello, world", "not an image"),
        (encode(Image.fromarray(COLOUR), "PPM"), "not an image in a supported format"),
        (encode(Image.fromarray(COLOUR), "EPS"), "not an image in a supported format"),  # Pillow would run Ghostscript
        (encode(Image.fromarray(COLOUR), "PNG")[:60], "cannot be decoded"),
        (encode(Image.new("RGB", (64, 64)), "JPEG")[:-200], "cannot be decoded"),
        (encode(Image.new("L", (20_000, 20_000)), "PNG"), "pixels"),
    ],
)
def test_unusable_content_is_refused_with_its_reason(content, reason):
    with pytest.raises(UnreadableImageError, match=reason):
        from_file_bytes(content)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]), st.data())
def test_damaged_files_are_read_or_refused_without_other_errors(kind, data):
    content = bytearray(encode(Image.fromarray(COLOUR), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(content)))
    try:
        stored = from_file_bytes(bytes(content[:cut]))
    except UnreadableImageError:
        return
    assert tf.io.decode_image(stored.encoded, expand_animations=False).shape[2] in (1, 3)
