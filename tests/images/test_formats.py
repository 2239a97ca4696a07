"""Ingestion, scoring and serving agree on which images they accept."""

import io
import re
from pathlib import Path

import pytest
from PIL import Image

from images.decoding import UnreadableImageError, declared_size
from images.formats import DICOM_SUFFIXES, FORMATS, IMAGE_SUFFIXES, MAX_PIXELS, suffix_of
from serving.server.settings import ServerSettings


def claiming(width_px, height_px):
    """A BMP header that claims this size; no pixels follow."""
    content = io.BytesIO()
    Image.new("L", (1, 1)).save(content, "BMP")
    header = bytearray(content.getvalue())
    header[18:26] = width_px.to_bytes(4, "little") + height_px.to_bytes(4, "little")
    return bytes(header)


def test_the_server_accepts_images_as_large_as_ingestion_does():
    limit = ServerSettings(model_base_path=Path()).max_image_pixels
    assert declared_size(claiming(10_000, limit // 10_000)) == (10_000, limit // 10_000)
    too_large = f"10000x{limit // 10_000 + 1} pixels, more than {MAX_PIXELS:,}"
    with pytest.raises(UnreadableImageError, match=re.escape(too_large)):
        declared_size(claiming(10_000, limit // 10_000 + 1))


def test_every_suffix_belongs_to_a_format_that_is_read():
    Image.init()
    assert {Image.EXTENSION[suffix] for suffix in IMAGE_SUFFIXES - DICOM_SUFFIXES} == set(FORMATS)


@pytest.mark.parametrize(
    ("name", "options", "suffix"),
    [
        *[(name, {}, name) for name in (".png", ".jpg", ".gif", ".bmp", ".webp", ".tif")],
        (".tif", {"big_tiff": True}, ".tif"),
    ],
)
def test_the_suffix_of_an_image_without_a_name_is_that_of_its_format(name, options, suffix):
    Image.init()
    content = io.BytesIO()
    Image.new("L", (4, 4)).save(content, Image.EXTENSION[name], **options)
    assert suffix_of(content.getvalue()) == suffix
    assert suffix_of(bytes(128) + b"DICM") is None
