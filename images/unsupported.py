"""Names what a file is that is not an image in a supported format, from its first bytes."""

from typing import Final

_CONVERT: Final = "convert it to PNG or JPEG"
_BY_START: Final = (
    (b"version https://git-lfs", "a Git LFS pointer; run git lfs pull to fetch the image"),
    (b"/annex/objects/", "a git-annex pointer; run git annex get to fetch the image"),
    (b"%PDF", f"a PDF document; {_CONVERT}"),
    (b"8BPS", f"a Photoshop document; {_CONVERT}"),
    (b"%!PS", f"PostScript; {_CONVERT}"),
    (b"\xc5\xd0\xd3\xc6", f"PostScript; {_CONVERT}"),
    (b"\xff\x0a", f"JPEG XL; {_CONVERT}"),
    (b"\0\0\0\x0cJXL ", f"JPEG XL; {_CONVERT}"),
    (b"\0\0\0\x0cjP  ", f"JPEG 2000; {_CONVERT}"),
    (b"\xff\x4f\xff\x51", f"JPEG 2000; {_CONVERT}"),
    (b"v/1\x01", f"OpenEXR; {_CONVERT}"),
    (b"#?RADIANCE", f"a Radiance HDR image; {_CONVERT}"),
    (b"SIMPLE  =", f"FITS; {_CONVERT}"),
    (b"\x89HDF", "an HDF5 file; export its images as PNG, or as an array in .npy"),
    (b"\x93NUMPY", "a NumPy array; set data.source to numpy"),
    (b"\0\0\x01\0", f"an icon (ICO); {_CONVERT}"),
    (b"gimp xcf", f"a GIMP document; {_CONVERT}"),
    (b"PK\x03\x04", "a ZIP archive; extract it"),
    (b"\x1f\x8b", "gzip-compressed; decompress it"),
)
_BRANDS: Final = (  # ISO/IEC 14496-12, 23008-12
    ({b"avif", b"avis"}, f"AVIF; {_CONVERT}"),
    ({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}, f"HEIC; {_CONVERT}"),
    ({b"crx "}, f"a camera's raw file; {_CONVERT}"),
    ({b"qt  ", b"isom", b"iso2", b"mp41", b"mp42", b"avc1", b"M4V "}, "a video; extract its frames as PNG or JPEG"),
)
_MARKUP: Final = (
    ((b"<!doctype html", b"<html", b"<head"), "an HTML page, such as a login or error page; download the image again"),
    ((b"<svg",), f"SVG; {_CONVERT}"),
    ((b"<?xml", b"<error"), "an XML document, such as an error message; download the image again"),
)


def reason_of(content: bytes) -> str:
    """Why the content is not an image that can be read, with the kind of file if it is known, and what to do."""
    kind = _kind(content)
    return "not an image in a supported format" + (f": it is {kind}" if kind else "")


def _kind(content: bytes) -> str | None:
    for start, kind in _BY_START:
        if content.startswith(start):
            return kind
    if content[4:8] == b"ftyp":
        box = content[8 : min(int.from_bytes(content[:4], "big"), 256)]
        brands = {box[at : at + 4] for at in range(0, len(box), 4)}
        return next((kind for known, kind in _BRANDS if known & brands), None)
    text = content[:256].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for starts, kind in _MARKUP:
        if text.startswith(starts):
            return f"SVG; {_CONVERT}" if b"<svg" in content[:1024].lower() else kind
    if content and not content.strip(b"\0"):
        return "filled with zero bytes, as after an interrupted copy; copy it again"
    return None
