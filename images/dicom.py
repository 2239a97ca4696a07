"""Reads the pixels of DICOM files with pydicom, an optional package: nothing else of the file, such as who it shows."""

import io
import logging
import math
import warnings
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from images.values import Values, require_finite
from runtime.errors import UserError

_START: Final = slice(128, 132)
_MAGIC: Final = b"DICM"
_SIZE_TAGS: Final = ["Rows", "Columns", "NumberOfFrames"]
_PIXEL_TAGS: Final = [
    *_SIZE_TAGS, "PixelData", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "PhotometricInterpretation", "PlanarConfiguration", "RescaleSlope", "RescaleIntercept", "WindowCenter",
    "WindowWidth", "VOILUTFunction", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
"""All that is ever read: no tag about patient, physician or institution."""
_SCALES_OF_GROUP: Final = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
"""Where an enhanced file has the rescaling and the window, for all frames or for each (PS3.3, C.7.6.16)."""
_INVERTED: Final = "MONOCHROME1"

# Their texts quote the file.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"pydicom\.")


class DicomError(UserError):
    """The file cannot be used; the message is the reason, and quotes nothing of the file."""


class Size(NamedTuple):
    """Of each frame in pixels, and the number of frames."""

    width_px: int
    height_px: int
    frames: int


def is_dicom(content: bytes) -> bool:
    """Whether the file is DICOM (PS3.10)."""
    return content[_START] == _MAGIC


def size_of(content: bytes) -> Size:
    """Raises DicomError if it cannot be read, if it claims more frames than it has bytes, or if pydicom is missing."""
    dataset = _read(content, _SIZE_TAGS, stop_before_pixels=True)
    try:
        size = Size(int(dataset.Columns), int(dataset.Rows), int(dataset.get("NumberOfFrames") or 1))
    except (AttributeError, TypeError, ValueError):
        raise DicomError("a DICOM file without an image") from None
    if not 1 <= size.frames <= len(content):  # each becomes an image or a reject
        raise DicomError("a DICOM file with an impossible number of frames")
    return size


def frame_of(content: bytes, frame: int) -> Values | npt.NDArray[Any]:
    """A frame's grey values after rescaling (modality LUT), or its RGB pixels [H, W, 3] of type uint8 or uint16.

    Black and white of grey values are those of the first window (VOI LUT), or else of the stored type. Raises
    DicomError.
    """
    dataset = _read(content, _PIXEL_TAGS, stop_before_pixels=False)
    try:
        from pydicom.pixels.utils import pixel_array

        pixels = pixel_array(dataset, index=frame)
        if pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype in (np.uint8, np.uint16):
            return np.ascontiguousarray(pixels)
        if pixels.ndim != 2 or not str(dataset.PhotometricInterpretation).startswith("MONOCHROME"):
            raise DicomError("a DICOM file of other than grey or RGB pixels; export it as PNG")
        _adopt_scales(dataset, frame)
        return _grey(dataset, pixels)
    except (DicomError, MemoryError):
        raise
    except Exception as error:  # pydicom and its decoders raise many types, and their texts quote the file
        raise DicomError(
            f"a DICOM file that cannot be decoded ({type(error).__name__}); decompress it, for example with dcmdjpeg"
        ) from None


def _read(content: bytes, tags: list[str], *, stop_before_pixels: bool) -> Any:
    try:
        import pydicom
    except ImportError:
        raise DicomError(
            "a DICOM file, which needs the package pydicom: pip install pydicom; or export it as PNG or TIFF"
        ) from None
    try:
        return pydicom.dcmread(io.BytesIO(content), stop_before_pixels=stop_before_pixels, specific_tags=list(tags))
    except MemoryError:
        raise
    except Exception as error:
        raise DicomError(f"a damaged DICOM file ({type(error).__name__})") from None


def _adopt_scales(dataset: Any, frame: int) -> None:
    """Give the dataset the rescaling and the window of the frame in an enhanced file."""
    of_all = dataset.get("SharedFunctionalGroupsSequence") or []
    of_each = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for group in (*of_all[:1], *of_each[frame : frame + 1]):
        for name in _SCALES_OF_GROUP:
            for scale in (group.get(name) or [])[:1]:
                dataset.update(scale)


def _grey(dataset: Any, stored: npt.NDArray[Any]) -> Values:
    is_signed = bool(dataset.PixelRepresentation)
    slope, intercept = (
        float(dataset.get(tag, default)) for tag, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    # Inverting the stored bits mirrors the values, and with them the window.
    highest = 2 ** int(dataset.BitsStored) - 1
    is_inverted = dataset.PhotometricInterpretation == _INVERTED
    if is_inverted and is_signed:
        raise DicomError(
            "a DICOM file of signed MONOCHROME1 values, which would leave their units if they were inverted; "
            "save it as MONOCHROME2, or export it as PNG"
        )
    stored = highest - stored.astype(np.float64) if is_inverted else stored.astype(np.float64)
    ends = _window(dataset)
    if ends and is_inverted:
        mirror = slope * highest + 2 * intercept
        ends = mirror - ends[1], mirror - ends[0]
    if ends is None and not is_signed and (slope, intercept) == (1.0, 0.0):
        ends = 0.0, float(highest)
    values = require_finite((stored * slope + intercept).astype(np.float32))
    return Values(values[:, :, np.newaxis], ends)


def _window(dataset: Any) -> tuple[float, float] | None:
    """The values of black and white (PS3.3, C.11.2.1.2), by the first of several windows; None without any."""
    centre, width = (dataset.get(tag) for tag in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None
    centre, width = (float(one if isinstance(one, int | float | str) else one[0]) for one in (centre, width))
    if dataset.get("VOILUTFunction", "LINEAR") == "LINEAR":
        centre, width = centre - 0.5, width - 1.0
    return (centre - width / 2, centre + width / 2) if math.isfinite(centre) and width > 0 else None
