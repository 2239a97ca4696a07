"""At a depth of 16 every entrance and the graph keep all bits of a file; depth 8 shows their upper byte."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from image_files import chunk, encode, tiff, with_chunk
from PIL import Image

from images.decoding import UnreadableImageError, as_pixels, as_viewed, declared_size, picture_of, shown, upright_size
from images.reading import AS_STORED, EIGHT_BITS, Reading
from images.stored import from_file_bytes
from images.values import Values, encode_values
from trainer.data.decoding import decode_images
from trainer.settings.image import ImageSettings

RANDOM = np.random.RandomState(3)
GREY = RANDOM.randint(0, 65536, (9, 11)).astype("u2")
COLOUR = RANDOM.randint(0, 65536, (9, 11, 3)).astype("u2")
ALPHA = RANDOM.randint(0, 65536, (9, 11, 1)).astype("u2")
SIXTEEN = Reading(depth=16)
RANGED = Reading(depth=16, range=(-1000.0, 3000.0))


def in_graph(encoded, reading, *, channels=3):
    """The pixels in [0, 1] that the preprocessing graph decodes."""
    height_px, width_px = declared_size(encoded)[::-1]
    own = {name: getattr(reading, name) for name in Reading.model_fields}
    settings = ImageSettings(height_px=height_px, width_px=width_px, channels=channels, **own)
    return decode_images(tf.constant([encoded]), settings).numpy()[0]


def seen(content, reading, *, channels=3):
    """The pixels in [0, 1] that every entrance shows."""
    first, *others = (
        in_graph(encoded, reading, channels=channels)
        for encoded in (
            from_file_bytes(content, reading).encoded,
            as_viewed(content, reading),
            as_pixels(content, reading).encoded,
            as_viewed(as_viewed(content, AS_STORED), reading),  # through the client, which does not know the model
        )
    )
    for other in others:
        assert np.array_equal(first, other)
    return first


def png(pixels, *, row_filter=0, is_interlaced=False):
    """A PNG of 16 bits, [H, W, C], written from ISO/IEC 15948; `row_filter`: 0 to 4 in every row."""
    height_px, width_px, channels = pixels.shape
    steps = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    passes = [pixels[y::down, x::across] for y, x, down, across in steps] if is_interlaced else [pixels]
    lines = b"".join(_filtered(one, row_filter) for one in passes if one.size)
    header = struct.pack(">IIBBBBB", width_px, height_px, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, is_interlaced)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _filtered(pixels, kind):
    rows = pixels.astype(">u2").reshape(len(pixels), -1).view("u1").astype(int)
    unit = 2 * pixels.shape[2]
    left = np.pad(rows, ((0, 0), (unit, 0)))[:, :-unit]
    above = np.pad(rows, ((1, 0), (0, 0)))[:-1]
    corner = np.pad(left, ((1, 0), (0, 0)))[:-1]
    distances = np.abs([above - corner, left - corner, left + above - 2 * corner])
    paeth = np.choose(distances.argmin(axis=0), [left, above, corner])  # the first of equal distances wins
    predicted = (0 * rows, left, above, (left + above) // 2, paeth)[kind]
    lines = ((rows - predicted) % 256).astype("u1")
    return np.insert(lines, 0, kind, axis=1).tobytes()


@pytest.mark.parametrize("is_interlaced", [False, True])
@pytest.mark.parametrize("row_filter", range(5))
def test_every_filter_of_a_colour_png(row_filter, is_interlaced):
    content = png(COLOUR, row_filter=row_filter, is_interlaced=is_interlaced)
    decoded = tf.io.decode_png(content, dtype=tf.uint16).numpy()
    assert np.array_equal(decoded, COLOUR)  # the file of this test is right
    assert np.array_equal(shown(content, SIXTEEN).pixels, COLOUR)
    assert np.array_equal(seen(content, SIXTEEN), COLOUR.astype("f4") / np.float32(65535))
    assert np.array_equal(seen(content, EIGHT_BITS), (COLOUR >> 8).astype("f4") / np.float32(255))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("values", [GREY, COLOUR], ids=["grey", "colour"])
def test_tiff_keeps_all_bits(order, values):
    content = tiff(values, order=order, photometric=2 if values.ndim == 3 else 1)
    expected = values.reshape(9, 11, -1)
    assert np.array_equal(shown(content, SIXTEEN).pixels, expected)
    assert np.array_equal(
        seen(content, SIXTEEN), np.broadcast_to(expected.astype("f4") / np.float32(65535), (9, 11, 3))
    )


@pytest.mark.parametrize("order", ["<", ">"])
def test_white_is_zero(order):
    content = tiff(GREY, order=order, photometric=0)
    assert np.array_equal(shown(content, SIXTEEN).pixels[..., 0], 65535 - GREY)


@pytest.mark.parametrize("channels", [2, 4])
def test_transparent_pixels_are_blended_with_white(channels):
    content = png(np.concatenate([COLOUR[..., : channels - 1], ALPHA], axis=2))
    share = ALPHA / 65535
    expected = COLOUR[..., : channels - 1] * share + 65535 * (1 - share)
    # Within two levels of 8 bits, in which Pillow blends.
    assert np.abs(shown(content, SIXTEEN).pixels - expected).max() <= 2 * 257
    seen(content, SIXTEEN)


def test_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = with_chunk(png(COLOUR), b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    assert np.array_equal(shown(content, SIXTEEN).pixels, np.rot90(COLOUR, -1))


FILES = {
    "grey png": encode(Image.fromarray(GREY), "PNG"),
    "grey png with a transparent level": with_chunk(
        encode(Image.fromarray(GREY), "PNG"), b"tRNS", GREY[0, 0].tobytes()
    ),
    "colour png": png(COLOUR),
    "grey and alpha": png(np.concatenate([COLOUR[..., :1], ALPHA], axis=2), row_filter=4),
    "rgba": png(np.concatenate([COLOUR, ALPHA], axis=2), row_filter=3, is_interlaced=True),
    "grey tiff": tiff(GREY, order=">"),
    "white is zero": tiff(GREY, photometric=0),
    "colour tiff": tiff(COLOUR, photometric=2),
    "rgba tiff": tiff(np.concatenate([COLOUR, ALPHA], axis=2), photometric=2, tags=[(338, "H", 2)]),
    "8 bits": encode(Image.fromarray((COLOUR >> 8).astype("u1")), "PNG"),
    "jpeg": encode(Image.fromarray((COLOUR >> 8).astype("u1")), "JPEG"),
    "palette": encode(Image.fromarray((COLOUR >> 8).astype("u1")).quantize(9), "PNG"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("channels", [1, 3])
def test_depth_8_shows_the_upper_byte_of_depth_16(name, channels):
    levels = np.round(seen(FILES[name], SIXTEEN, channels=channels).astype("f8") * 65535).astype(int)
    before = np.round(seen(FILES[name], EIGHT_BITS, channels=channels).astype("f8") * 255).astype(int)
    if channels == 3:
        assert np.array_equal(levels >> 8, before)
    else:  # grey is rounded to whole levels
        assert np.abs(levels / 257 - before).max() <= 1.5


def test_a_damaged_colour_png_is_refused():
    content = png(COLOUR)
    for reading in (EIGHT_BITS, SIXTEEN):
        with pytest.raises(UnreadableImageError):
            shown(content[: len(content) // 2], reading)


def test_used_bits_of_files_of_sixteen_bits():
    for values, used in ((GREY >> 4, 12), (GREY >> 8, 8), (GREY | 1 << 15, 16), (np.zeros_like(GREY), 8)):
        assert from_file_bytes(encode(Image.fromarray(values), "PNG")).used_bits == used
        assert from_file_bytes(tiff(values), SIXTEEN).used_bits == used
    assert from_file_bytes(png(COLOUR >> 4)).used_bits == 12
    assert from_file_bytes(FILES["8 bits"]).used_bits == 0


# Ranges


@pytest.mark.parametrize("depth", [8, 16])
def test_a_range_becomes_0_to_1(depth):
    content = FILES["grey png"] if depth == 16 else encode(Image.fromarray((GREY >> 8).astype("u1")), "PNG")
    low, high = (10_000, 40_000) if depth == 16 else (50, 200)
    values = GREY if depth == 16 else GREY >> 8
    pixels = seen(content, Reading(depth=depth, range=(low, high)), channels=1)[..., 0]
    assert pixels == pytest.approx(np.clip((values.astype("f8") - low) / (high - low), 0, 1), abs=1e-6)


def test_a_level_of_8_bits_counts_257_of_16():
    assert seen(FILES["8 bits"], SIXTEEN) == pytest.approx((COLOUR >> 8) / 255, abs=1e-7)
    assert seen(FILES["jpeg"], SIXTEEN) == pytest.approx(seen(FILES["jpeg"], EIGHT_BITS), abs=1e-7)


WHOLE = RANDOM.randint(-1200, 3200, (9, 11))
VALUES = {
    "int16": (WHOLE.astype("i2"), 2),
    "int32": (WHOLE.astype("i4"), 2),
    "uint32": (np.abs(WHOLE).astype("u4"), 1),
    "float16": (WHOLE.astype("f2"), 3),
    "float32": ((WHOLE / 7).astype("f4"), 3),
    "float64": (WHOLE / 7, 3),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", VALUES)
def test_values_get_one_common_scale(kind, order):
    values, sample_format = VALUES[kind]
    content = tiff(values, order=order, sample_format=sample_format)
    expected = np.clip((values.astype("f8") + 1000) / 4000, 0, 1)
    assert seen(content, RANGED, channels=1)[..., 0] == pytest.approx(expected, abs=1e-6)
    assert declared_size(content) == (11, 9)
    for reading in (EIGHT_BITS, SIXTEEN, Reading(range=(0, 100))):
        with pytest.raises(UnreadableImageError, match="no fixed black and white|not supported"):
            shown(content, reading)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["I", "F"])
def test_compressed_values(mode, compression):
    values = WHOLE.astype("i4" if mode == "I" else "f4")
    content = encode(Image.fromarray(values, mode), "TIFF", compression=compression)
    assert np.array_equal(shown(content, RANGED).pixels[..., 0], values.astype("f4"))


def test_large_unsigned_values_do_not_wrap_around():
    values = np.array([[0, 2**31 + 2**8], [2**32 - 2**8, 2**30]], "u4")
    for order in "<>":
        assert np.array_equal(shown(tiff(values, order=order), RANGED).pixels[..., 0], values.astype("f4"))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_numbers_are_refused(wrong):
    values = WHOLE.astype("f4")
    values[2, 3] = wrong
    with pytest.raises(UnreadableImageError, match="1 of its values are not numbers"):
        shown(tiff(values, sample_format=3), RANGED)


def test_statistics_are_those_of_the_range():
    values, sample_format = VALUES["int16"]
    stored = from_file_bytes(tiff(values, sample_format=sample_format), RANGED)
    assert stored.mean_intensity == pytest.approx((values.mean() + 1000) / 4000)
    assert stored.contrast == pytest.approx(values.std() / 4000)
    wide = from_file_bytes(FILES["grey png"], Reading(depth=16, range=(0, 70_000)))
    assert wide.mean_intensity == pytest.approx(GREY.mean() / 70_000)
    unknown = from_file_bytes(tiff(values, sample_format=sample_format), AS_STORED)
    assert 0.5 < unknown.mean_intensity < 1
    assert 0 < unknown.contrast < 0.5


def test_pages_are_read_one_by_one():
    pages = [Image.fromarray(GREY + np.uint16(number)) for number in range(3)]
    content = io.BytesIO()
    pages[0].save(content, "TIFF", save_all=True, append_images=pages[1:])
    for number in range(3):
        stored = from_file_bytes(content.getvalue(), SIXTEEN, page=number)
        assert np.array_equal(tf.io.decode_png(stored.encoded, dtype=tf.uint16)[..., 0], GREY + np.uint16(number))


@pytest.mark.parametrize("orientation", [1, 2, 6])
@pytest.mark.parametrize("kind", ["values", "colour"])
def test_tiff_is_turned_and_so_is_its_size(kind, orientation):
    values = COLOUR if kind == "colour" else VALUES["int16"][0]
    tags = [(274, "H", orientation)]
    content = tiff(values, sample_format=1 if kind == "colour" else 2, photometric=1 + (kind == "colour"), tags=tags)
    expected = {1: values, 2: values[:, ::-1], 6: np.rot90(values, -1)}[orientation]
    pixels = shown(content, RANGED).pixels
    assert np.array_equal(pixels.reshape(expected.shape), expected)
    assert upright_size(content) == expected.shape[:2]


def test_a_picture_shows_the_values_that_a_file_uses():
    values = np.arange(1000, 1000 + 99).reshape(9, 11)
    for content in (
        encode(Image.fromarray(values.astype("u2")), "PNG"),
        tiff(values.astype("f4"), sample_format=3),
        encode_values(Values(-values[..., None].astype("f4"))),
    ):
        picture = picture_of(content)
        assert (picture.dtype, picture.shape, picture.min(), picture.max()) == (np.uint8, (9, 11, 1), 0, 255)
    assert np.array_equal(picture_of(FILES["8 bits"]), COLOUR >> 8)
