"""Which image files are read, and how large an image may be."""

from typing import Final

FORMATS: Final = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
"""Pillow knows dozens of other formats and hands some of them to external programs."""
DICOM_SUFFIXES: Final = frozenset({".dcm", ".dicom"})
IMAGE_SUFFIXES: Final = DICOM_SUFFIXES | {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff",
}  # fmt: skip
"""In lower case; file names are compared case-insensitively."""
MAX_PIXELS: Final = 100_000_000
"""Larger images are rejected before they are decoded: a small file can claim to be huge (a decompression bomb)."""
MAX_SIDE_PX: Final = 65_535
"""The largest height and width that schema/schema.pbtxt allows."""
MASKS_FOLDER: Final = "ground_truth"
"""The folder of MVTec AD's layout with masks instead of images."""

_SUFFIX_OF_START: Final = {
    b"\x89PNG": ".png",
    b"\xff\xd8": ".jpg",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"RIFF": ".webp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"II+\0": ".tif",
    b"MM\0+": ".tif",
}


def suffix_of(content: bytes) -> str | None:
    """The suffix for an encoded image, by its first bytes; None if they are of none of FORMATS, as those of DICOM."""
    return next((suffix for start, suffix in _SUFFIX_OF_START.items() if content.startswith(start)), None)


_PAGE: Final = "#"
"""Between the identifier of a file, which has no such character, and the number of a page."""


def page_id(image_id: str, page: int) -> str:
    """The identifier of a page, such as `stack.tif#1` for `page` 0."""
    return f"{image_id}{_PAGE}{page + 1}"


def file_id(image_id: str) -> str:
    """The identifier of the file that holds an image: the image's own unless it is a page of several."""
    return image_id.partition(_PAGE)[0]
