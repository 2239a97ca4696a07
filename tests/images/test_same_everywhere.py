"""Whatever a file contains, ingestion, client, score and server show the same pixels or give the same reason."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_entrances import by_pillow, seen, seen_or_refused
from image_files import chunk, encode, tiff
from PIL import Image

from images.decoding import UnreadableImageError, as_pixels, as_viewed, declared_size, shown
from images.reading import AS_STORED, Reading
from images.stored import from_file_bytes
from images.values import Values, encode_values

RANDOM = np.random.RandomState(0)
GREY = RANDOM.randint(0, 256, (9, 11), "u1")
COLOUR = RANDOM.randint(0, 256, (9, 11, 3), "u1")
SMOOTH = np.broadcast_to(np.arange(0, 220, 20, dtype="u1")[None, :, None], (9, 11, 3)).copy()
ALPHA = RANDOM.randint(0, 256, (9, 11), "u1")
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "GIF": ("1", "L", "P", "RGB"),
    "BMP": ("1", "L", "P", "RGB"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"),
}
OPTIONS = {
    "PNG": ({}, {"compress_level": 0}, {"optimize": True}),
    "JPEG": ({}, {"quality": 100}, {"progressive": True}, {"subsampling": 0}, {"quality": 5}),
    "GIF": ({}, {"interlace": 0}),
    "BMP": ({},),
    "WEBP": ({"lossless": True}, {"quality": 50}),
    "TIFF": ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}, {"compression": "packbits"}),
}
KINDS = [(kind, mode, number) for kind in MODES for mode in MODES[kind] for number in range(len(OPTIONS[kind]))]


def picture(mode, pixels=COLOUR):
    if mode == "I;16":
        return Image.fromarray(pixels[:, :, 0].astype("u2") * 257 - 3)
    image = Image.fromarray(pixels).convert(mode.removesuffix("A") if mode != "RGBA" else "RGB")
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(ALPHA))
    return image


def file_of(kind, mode, number, *, orientation=1):
    exif = Image.Exif()
    exif[0x0112] = orientation
    given_exif = {"exif": exif} if orientation != 1 and kind not in ("GIF", "BMP") else {}
    return encode(picture(mode, SMOOTH if kind == "JPEG" else COLOUR), kind, **OPTIONS[kind][number], **given_exif)


def blended(content):
    """The oracle: Pillow's pixels over white."""
    rgba = by_pillow(content, "RGBA").astype(float)
    share = rgba[:, :, 3:] / 255
    return rgba[:, :, :3] * share + 255 * (1 - share)


@pytest.mark.parametrize(("kind", "mode", "number"), KINDS)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_sound_file_shows_what_pillow_shows(kind, mode, number, orientation):
    content = file_of(kind, mode, number, orientation=orientation)
    is_wide = mode == "I;16"
    expected = np.repeat((by_pillow(content, "I") >> 8)[:, :, None], 3, axis=2) if is_wide else blended(content)
    assert np.abs(seen(content) - expected).max() <= (1 if mode.endswith("A") else 0)


@st.composite
def damaged_files(draw):
    """A file with changed, removed, repeated or appended bytes; checksums of a PNG may be corrected afterwards."""
    content = bytearray(file_of(*draw(st.sampled_from(KINDS)), orientation=draw(st.sampled_from((1, 6)))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content) - 1))
        match draw(st.sampled_from(("change", "change", "remove", "repeat", "cut", "append"))):
            case "change":
                content[at] = draw(st.integers(0, 255))
            case "remove":
                del content[at : at + draw(st.integers(1, 8))]
            case "repeat":
                content[at:at] = content[at : at + draw(st.integers(1, 40))]
            case "cut":
                del content[max(at, 1) :]
            case "append":
                content += draw(st.binary(max_size=30))
        if not content:
            content = bytearray(b"\0")
    return _with_correct_checksums(bytes(content)) if draw(st.booleans()) else bytes(content)


def _with_correct_checksums(content):
    """The chunks that a PNG's lengths delimit, each with its correct checksum; other files unchanged."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    fixed, at = content[:8], 8
    while at + 12 <= len(content) and (length := int.from_bytes(content[at : at + 4], "big")) <= len(content) - at - 12:
        fixed += chunk(content[at + 4 : at + 8], content[at + 8 : at + 8 + length])
        at += 12 + length
    return fixed + content[at:]


@settings(max_examples=600, deadline=None)
@given(damaged_files())
def test_a_damaged_file_shows_the_same_or_is_refused_alike(content):
    seen_or_refused(content)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_tiff_shows_the_same_or_is_refused_alike(data):
    values = data.draw(st.sampled_from((GREY, COLOUR, GREY.astype("u2") * 200, GREY.astype("i2"), GREY.astype("f4"))))
    content = bytearray(
        tiff(
            values,
            order=data.draw(st.sampled_from("<>")),
            sample_format={"u": 1, "i": 2, "f": 3}[values.dtype.kind],
            photometric=data.draw(st.sampled_from((0, 1, 2, 6, 8))),
            page_count=data.draw(st.integers(1, 2)),
        )
    )
    for _ in range(data.draw(st.integers(0, 2))):
        content[data.draw(st.integers(0, min(len(content), 200) - 1))] = data.draw(st.integers(0, 255))
    seen_or_refused(bytes(content))


WIDE_FILES = (
    encode(Image.fromarray(GREY.astype("u2") * 200), "PNG"),
    tiff(GREY.astype("u2") * 200),
    tiff(COLOUR.astype("u2") * 200, photometric=2),
    tiff(GREY.astype("i2") - 100, sample_format=2),
    encode(Image.fromarray(GREY.astype("f4")), "TIFF", compression="tiff_lzw"),
    encode(Image.fromarray(GREY.astype("i4")), "TIFF", compression="tiff_adobe_deflate"),
    encode_values(Values(GREY[..., None].astype("f4"))),
)
READINGS = (Reading(depth=16), Reading(depth=16, range=(-100.0, 50_000.0)))


@pytest.mark.parametrize("position", [9, 36])
def test_a_tiff_whose_depth_cannot_be_read_is_refused(position):
    content = bytearray(tiff(GREY.astype("u2") * 200))
    content[position] = 9  # in the number of tags, and in the tag of the depth
    with pytest.raises(UnreadableImageError, match="its header is damaged"):
        shown(bytes(content), Reading(depth=16))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(WIDE_FILES), st.sampled_from(READINGS), st.data())
def test_a_damaged_file_of_more_bits_is_read_alike_or_refused(file, reading, data):
    content = bytearray(file)
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(1, len(content)))] if data.draw(st.booleans()) else content)
    content = _with_correct_checksums(content)
    try:
        declared_size(content)
        pixels = shown(content, reading).pixels
    except UnreadableImageError:
        return
    for encoded in (
        from_file_bytes(content, reading).encoded,
        as_viewed(content, AS_STORED),
        as_pixels(content, reading).encoded,
    ):
        assert np.array_equal(shown(encoded, reading).pixels, pixels)
    assert np.isfinite(pixels).all()
    if pixels.dtype != np.float32:
        assert np.array_equal(shown(content).pixels, pixels >> 8 if pixels.dtype == np.uint16 else pixels)
