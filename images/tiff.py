"""Reads a TIFF file's tags (TIFF 6.0, BigTIFF) without decoding its pixels: its kind, and its pages."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

TIFF_STARTS: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SUBFILE_TYPE, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _SAMPLE_FORMAT = 254, 258, 259, 262, 277, 339
_KIND: Final = (_SUBFILE_TYPE, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _SAMPLE_FORMAT)
WIDTH, HEIGHT, FILL_ORDER, ORIENTATION, ROWS_PER_STRIP, PLANAR, PREDICTOR = 256, 257, 266, 274, 278, 284, 317
STRIPS, STRIP_BYTES, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 273, 279, 322, 323, 324, 325
_LAYOUT: Final = (
    WIDTH, HEIGHT, FILL_ORDER, ORIENTATION, ROWS_PER_STRIP, PLANAR, PREDICTOR, STRIPS, STRIP_BYTES, TILE_WIDTH,
    TILE_HEIGHT, TILES, TILE_BYTES,
)  # fmt: skip
_WHITE_IS_ZERO: Final = 0
_SEPARATE_PLANES: Final = 2
_REDUCED: Final = 1
"""Bit of NewSubfileType: a smaller copy of another page."""
_UNSIGNED: Final = 1
_FORMATS: Final = {
    _UNSIGNED: "unsigned integers",
    2: "signed integers",
    3: "floats",
    5: "complex integers",
    6: "complex",
}
_COLOURS: Final = {0: "grey (white is zero)", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELab"}
_CODES: Final = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""TIFF's BYTE, SHORT, LONG and LONG8 -> struct's codes."""
_MAX_VALUES: Final = 64
_MAX_ENTRIES: Final = 200_000
"""Of all pages together, which may overlap."""
SUPPORTED: Final = "8- or 16-bit unsigned grey or RGB"


@dataclass(frozen=True)
class Page:
    """The tags of one page; `photometric_offset` is where the file holds its PhotometricInterpretation.

    `layout`: of other tags the (offset, number, struct's code) of their values, which `values_of` reads.
    """

    bits: tuple[int, ...] = (1,)
    sample_formats: tuple[int, ...] = (_UNSIGNED,)
    samples: int = 1
    photometric: int = 1
    compression: int = 1
    is_reduced: bool = False
    photometric_offset: int = 0
    layout: Mapping[int, tuple[int, int, str]] = field(default_factory=dict)

    @property
    def has_fixed_scale(self) -> bool:
        """Whether 0 and the largest value of the type are black and white, as for unsigned integers of few bits."""
        return set(self.sample_formats) == {_UNSIGNED} and max(self.bits) <= 16

    @property
    def white_is_zero(self) -> bool:
        return self.photometric == _WHITE_IS_ZERO

    def __str__(self) -> str:
        bits = "/".join(map(str, sorted(set(self.bits))))
        values = " and ".join(_FORMATS.get(kind, f"SampleFormat {kind}") for kind in sorted(set(self.sample_formats)))
        colour = _COLOURS.get(self.photometric, f"PhotometricInterpretation {self.photometric}")
        channels = f"{self.samples} channel{'s' if self.samples > 1 else ''}"
        return f"a TIFF of {channels} of {bits}-bit {values}, {colour}, compression {self.compression}"


def first_page(content: bytes) -> Page:
    """The first page's tags, or TIFF's defaults if they cannot be read."""
    return next(_pages(content), Page())


def pages_of(content: bytes) -> list[tuple[int, Page]]:
    """(index of the directory, tags) of each page, without those that are smaller copies of others."""
    return [(index, page) for index, page in enumerate(_pages(content)) if not page.is_reduced]


def page_count(content: bytes) -> int:
    """The number of pages, without those that are smaller copies of others; 0 if none can be read."""
    return sum(not page.is_reduced for page in _pages(content))


def values_of(content: bytes, page: Page, tag: int, default: int | None = None) -> tuple[int, ...]:
    """All values of one of the tags above. Raises ValueError if the page lacks it and there is no default."""
    if tag not in page.layout:
        if default is None:
            raise ValueError(f"its tag {tag} is missing")
        return (default,)
    offset, number, code = page.layout[tag]
    size = struct.calcsize(code)
    if offset + number * size > len(content):
        raise ValueError(f"its tag {tag} is truncated")
    return struct.unpack_from(f"{code[0]}{number}{code[1:]}", content, offset)


def has_separate_planes(content: bytes, page: Page) -> bool:
    """Whether the page's channels are stored one after the other (PlanarConfiguration 2)."""
    return values_of(content, page, PLANAR, 1)[0] == _SEPARATE_PLANES


def black_is_zero(content: bytes, page: Page) -> bytes:
    """The same file, whose page declares that black is zero."""
    order = "<" if content.startswith(b"II") else ">"
    at = page.photometric_offset
    return content[:at] + struct.pack(order + "H", 1) + content[at + 2 :]


def _pages(content: bytes) -> Iterator[Page]:
    order = "<" if content.startswith(b"II") else ">"
    is_big = b"+" in content[2:4]
    start, seen, entries = 8 if is_big else 4, set[int](), 0
    try:
        while entries < _MAX_ENTRIES:
            (offset,) = struct.unpack_from(order + ("Q" if is_big else "I"), content, start)
            if offset == 0 or offset in seen:
                return
            seen.add(offset)
            (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), content, offset)
            first = offset + (8 if is_big else 2)
            start = first + count * (20 if is_big else 12)
            entries += 1 + count
            if start > len(content):
                return
            yield _page(content, order, is_big, first, count)
    except (struct.error, OverflowError):  # beyond the end of the file, or of any file
        return


def _page(content: bytes, order: str, is_big: bool, first: int, count: int) -> Page:
    values: dict[int, tuple[int, ...]] = {}
    places: dict[int, int] = {}
    layout: dict[int, tuple[int, int, str]] = {}
    for entry in range(first, first + count * (20 if is_big else 12), 20 if is_big else 12):
        tag, kind = struct.unpack_from(order + "HH", content, entry)
        if tag not in (*_KIND, *_LAYOUT) or kind not in _CODES:
            continue
        (number,) = struct.unpack_from(order + ("Q" if is_big else "I"), content, entry + 4)
        code, place = f"{order}{min(number, _MAX_VALUES)}{_CODES[kind]}", entry + (12 if is_big else 8)
        if number * struct.calcsize(_CODES[kind]) > (8 if is_big else 4):
            (place,) = struct.unpack_from(order + ("Q" if is_big else "I"), content, place)
        if tag in _LAYOUT:
            layout[tag] = place, number, order + _CODES[kind]
            continue
        values[tag], places[tag] = struct.unpack_from(code, content, place), place
    samples = next(iter(values.get(_SAMPLES, ())), 1)
    return Page(
        bits=values.get(_BITS) or (1,),
        sample_formats=values.get(_SAMPLE_FORMAT) or (_UNSIGNED,),
        samples=samples,
        photometric=next(iter(values.get(_PHOTOMETRIC, ())), 1),
        compression=next(iter(values.get(_COMPRESSION, ())), 1),
        is_reduced=bool(next(iter(values.get(_SUBFILE_TYPE, ())), 0) & _REDUCED),
        photometric_offset=places.get(_PHOTOMETRIC, 0),
        layout=layout,
    )
