"""Which files are images."""

from typing import Final

IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
"""In lower case; the name is compared in any case."""
