"""A file shows the same pixels through every entrance: those of Pillow, or of the format's specification."""

import contextlib
import io
import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from image_entrances import by_pillow, refusal, seen, seen_grey
from image_files import chunk, encode, tiff, with_chunk
from PIL import Image, PngImagePlugin
from repository import REPOSITORY

from images.decoding import UnreadableImageError, declared_size, shown
from images.formats import MAX_PIXELS, MAX_SIDE_PX
from images.jpeg_segments import plain_frame

RANDOM = np.random.RandomState(1)
NOISE = RANDOM.randint(0, 256, (64, 64), "u1")
COLOUR = RANDOM.randint(0, 256, (6, 9, 3), "u1")
WIDE = (np.arange(64, dtype="u2") * 1000).reshape(8, 8)
ROTATE = 6
"""EXIF: rotate clockwise by 90 degrees to view."""


# Sizes


def test_a_side_is_as_long_as_the_schema_allows():
    schema = (REPOSITORY / "schema/schema.pbtxt").read_text()
    for name in ("height_px", "width_px"):
        assert f'int_domain {{ name: "{name}" min: 1 max: {MAX_SIDE_PX} }}' in schema


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("size", [(1, 65_536), (65_536, 1)])
def test_a_longer_side_is_refused(kind, size):
    content = encode(Image.new("1", size), kind)
    assert f"{size[0]}x{size[1]} pixels; a side may have at most 65,535" in refusal(content)
    with pytest.raises(UnreadableImageError, match="a side may have"):
        declared_size(content)


def test_a_size_that_no_image_has_is_refused_before_its_checksum():
    content = bytearray(encode(Image.new("L", (5, 5)), "PNG"))
    content[16:24] = b"\7" * 8
    assert refusal(bytes(content)) == "117901063x117901063 pixels, more than 100,000,000"
    with pytest.raises(UnreadableImageError, match="117901063x117901063 pixels"):
        declared_size(bytes(content))


def test_the_longest_side_is_read():
    assert seen(encode(Image.new("L", (1, MAX_SIDE_PX), 7), "PNG")).shape == (MAX_SIDE_PX, 1, 3)


# JPEG


@pytest.mark.parametrize("pixels", [NOISE, np.stack([NOISE, NOISE.T, NOISE[::-1]], axis=2)])
@pytest.mark.parametrize("options", [{"quality": 100}, {"quality": 40}, {"progressive": True}, {"subsampling": 0}])
def test_a_jpeg_is_decoded_as_by_pillow(pixels, options):
    content = encode(Image.fromarray(pixels), "JPEG", **options)
    assert np.array_equal(seen(content), by_pillow(content))
    assert np.array_equal(seen_grey(content), by_pillow(content, "L"))


# Grey


GAMMA = chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"gAMA", struct.pack(">I", 100_000)), chunk(b"sRGB", b"\0")


@pytest.mark.parametrize("extra", [b"", *GAMMA])
def test_grey_is_one_linear_combination_whatever_the_gamma(extra):
    plain = encode(Image.fromarray(COLOUR), "PNG")
    content = plain[:33] + extra + plain[33:]
    assert np.array_equal(seen_grey(content), by_pillow(plain, "L"))
    red = encode(Image.new("RGB", (8, 8), "red"), "PNG")
    assert (seen_grey(red[:33] + extra + red[33:]) == 76).all()


def test_every_grey_level_stays_itself():
    ramp = np.arange(256, dtype="u1").reshape(16, 16)
    assert np.array_equal(seen_grey(encode(Image.fromarray(ramp), "PNG")), ramp)
    assert np.array_equal(seen_grey(encode(Image.fromarray(np.stack([ramp] * 3, axis=2)), "PNG")), ramp)


# Sixteen bits


def test_sixteen_bit_png_with_a_transparent_level():
    content = with_chunk(encode(Image.fromarray(WIDE), "PNG"), b"tRNS", struct.pack(">H", 3000))
    expected = WIDE >> 8
    expected[WIDE == 3000] = 255
    assert np.array_equal(seen_grey(content), expected)


# Metadata


def test_orientation_in_xmp_is_applied():
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", f'<x tiff:Orientation="{ROTATE}"/>')
    content = encode(Image.fromarray(COLOUR), "PNG", pnginfo=info)
    assert np.array_equal(seen(content), np.rot90(COLOUR, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_every_orientation_in_every_format(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    content = encode(Image.fromarray(COLOUR), kind, exif=exif, **options)
    assert np.array_equal(seen(content), by_pillow(content))


@pytest.mark.parametrize("orientation", [2, 6])
def test_sixteen_bits_are_rotated(orientation):
    for order in "<>":
        content = tiff(WIDE, order=order, tags=[(274, "H", orientation)])
        expected = (WIDE[:, ::-1] if orientation == 2 else np.rot90(WIDE, -1)) >> 8
        assert np.array_equal(seen_grey(content), expected)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0junk", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"]
)
def test_damaged_exif_is_ignored(kind, exif):
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    plain = encode(Image.fromarray(COLOUR), kind, **options)
    content = encode(Image.fromarray(COLOUR), kind, exif=exif, **options)
    assert np.array_equal(seen(content), by_pillow(plain))


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"gAMA", b"pHYs", b"abCd"])
@pytest.mark.parametrize("checksum", [None, b"oops"])
def test_damaged_ancillary_chunks_are_ignored(kind, checksum):
    content = with_chunk(encode(Image.fromarray(COLOUR), "PNG"), kind, b"x\0y", checksum=checksum)
    assert np.array_equal(seen(content), COLOUR)


def test_a_chunk_whose_name_is_not_of_letters_is_ignored():
    """libpng refuses it, even with a correct checksum."""
    content = with_chunk(encode(Image.fromarray(COLOUR), "PNG"), b"e\0If", b"x")
    assert np.array_equal(seen(content), COLOUR)


def test_damaged_transparency_is_ignored():
    content = with_chunk(encode(Image.fromarray(NOISE), "PNG"), b"tRNS", b"\0\1", checksum=b"oops")
    assert np.array_equal(seen_grey(content), NOISE)


def test_text_that_expands_to_megabytes_is_ignored():
    bomb = b"XML:com.adobe.xmp\0\0" + zlib.compress(b"x" * 80_000_000)
    content = with_chunk(encode(Image.fromarray(COLOUR), "PNG"), b"zTXt", bomb)
    assert np.array_equal(seen(content), COLOUR)


# Damaged pixels


def test_a_png_without_its_end_is_read():
    content = encode(Image.fromarray(COLOUR), "PNG")
    assert np.array_equal(seen(content[:-12]), COLOUR)
    assert np.array_equal(seen(content[:-4]), COLOUR)


def test_a_png_with_a_wrong_checksum_of_its_pixels_is_read():
    content = encode(Image.fromarray(COLOUR), "PNG")
    end = content.index(b"IEND") - 4
    assert np.array_equal(seen(content[: end - 4] + b"oops" + content[end:]), COLOUR)


def test_a_png_with_half_its_pixels_is_refused():
    content = encode(Image.fromarray(NOISE), "PNG")
    assert "truncated" in refusal(content[: len(content) // 2])


# What is not an image


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is HEIC; convert it to PNG or JPEG"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "it is AVIF; convert it"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1miaf", "it is AVIF; convert it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "a Git LFS pointer; run git lfs pull"),
        (b"\xef\xbb\xbf\n <!DOCTYPE html><title>Sign in</title>", "an HTML page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML document"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "it is SVG"),
        (b"\0" * 500, "filled with zero bytes"),
        (b"\xff\x0a\0\0", "it is JPEG XL"),
        (b"hello, world", "not an image in a supported format"),
    ],
)  # fmt: skip
def test_what_is_not_an_image_is_named(content, reason):
    assert reason in refusal(content)


# Time


def timed(content):
    started = time.process_time()
    with contextlib.suppress(UnreadableImageError):
        shown(content)
    return time.process_time() - started


GIF = encode(Image.fromarray(NOISE), "GIF")
GIF_PIXELS_START = 13 + 768


@pytest.mark.parametrize(
    "junk",
    [b"\0", b"!\xfe\1x\0", b"!\xf9\x04\0\0\0\0\0", b"!\xfe" + b"\1x" * 1000 + b"\0"],
    ids=["bytes", "comments", "controls", "sub-blocks"],
)
def test_a_gif_with_junk_before_its_first_frame_costs_little(junk):
    assert GIF[GIF_PIXELS_START:][:1] in (b",", b"!")
    short, long = (
        GIF[:GIF_PIXELS_START] + junk * (n // len(junk)) + GIF[GIF_PIXELS_START:] for n in (1 << 19, 1 << 24)
    )
    assert np.array_equal(seen_grey(short), NOISE)
    assert "no frame in the first" in refusal(long)
    assert timed(long) < 1  # Pillow needs eight seconds


def test_a_jpeg_with_millions_of_segments_is_refused():
    content = encode(Image.fromarray(NOISE), "JPEG")
    assert "segments" in refusal(content[:2] + b"\xff\xe0\0\2" * 1_000_000 + content[2:])
    assert "fill bytes" in refusal(content[:2] + b"\xff" * 4_000_000 + content[2:])


def test_a_png_with_millions_of_chunks_costs_little():
    content = encode(Image.fromarray(NOISE), "PNG")
    assert timed(content[:33] + chunk(b"tEXt", b"") * 1_000_000 + content[33:]) < 3


@given(
    options=st.sampled_from([{}, {"progressive": True}, {"subsampling": 0}, {"comment": b"c"}, {"exif": b"Exif\0\0"}]),
    mode=st.sampled_from(["L", "RGB", "CMYK"]),
    changes=st.lists(st.tuples(st.integers(2, 700), st.sampled_from([0, 1, 8, 0xC0, 0xDA, 0xDB, 0xE1, 0xFF, None]))),
)
@settings(max_examples=300, deadline=None)
def test_a_jpeg_that_needs_no_closer_look_is_what_pillow_finds(options, mode, changes):
    content = bytearray(encode(Image.fromarray(COLOUR).convert(mode), "JPEG", **options))
    for at, value in changes[:3]:
        content[at : at + 1] = b"" if value is None else bytes([value])
    found = plain_frame(bytes(content))
    if found is not None:
        channels, height_px, width_px = found
        assume(height_px * width_px <= MAX_PIXELS)
        with Image.open(io.BytesIO(content)) as image:
            assert (image.format, image.mode) == ("JPEG", {1: "L", 3: "RGB"}[channels])
            assert (image.height, image.width) == (height_px, width_px)
            assert image.getexif().get(0x0112, 1) == 1
            assert image.info.keys() <= {
                "jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "progressive", "progression", "comment",
            }  # fmt: skip


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_an_ordinary_jpeg_needs_no_closer_look(mode, channels):
    assert plain_frame(encode(Image.fromarray(COLOUR).convert(mode), "JPEG")) == (channels, *COLOUR.shape[:2])
