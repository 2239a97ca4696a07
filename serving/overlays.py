"""Pictures of where an image is anomalous: overlays to look at, masks and COCO annotations for other programs."""

import json
import math
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from images.decoding import picture_of
from images.heat import LEGEND, heat_colours, legend_strip
from runtime.object_store import AnyPath
from serving.client import Score

_BOX: Final = (255, 64, 200)
_MOST_HEIGHTS: Final = 8
"""Of a picture in its width: the image of a line camera may be a thousand times as wide as high."""
_LEGEND_PX: Final = 6
_MARGIN_PX: Final = 16
_CATEGORY: Final = {"id": 1, "name": "anomaly", "supercategory": ""}


def write_overlay(
    image_file: AnyPath, score: Score, target: Path | BinaryIO, *, page: int | None = None, height_px: int = 256
) -> None:
    """Write the image, or a page of it, with a box around each region, and its anomaly map over it, as a PNG file.

    The colours are the same for all images: dark up to the pixel threshold, then red, yellow and white. The image
    becomes `height_px` high, unless it would be more than eight times as wide.
    """
    regions, _ = score.located()
    assert score.anomaly_map is not None
    assert score.placement is not None
    placement = score.placement
    scale = min(height_px / placement.height_px, _MOST_HEIGHTS * height_px / placement.width_px)
    size = max(1, round(placement.width_px * scale)), max(1, round(placement.height_px * scale))
    original = _picture(picture_of(image_file.read_bytes(), page=page)).resize(size)
    heat = Image.fromarray(heat_colours(placement.crop(score.anomaly_map))).resize(size, Image.Resampling.BILINEAR)
    boxed = original.copy()
    draw = ImageDraw.Draw(boxed)
    for region in regions:
        first, last = (scale * region.left, scale * region.top), (scale * region.right - 1, scale * region.bottom - 1)
        draw.rectangle((*first, *(max(pair) for pair in zip(first, last, strict=True))), outline=_BOX, width=2)
    legend_px = math.ceil(draw.textlength(LEGEND)) + 4
    panels = Image.new("RGB", (max(2 * size[0], legend_px), size[1] + _LEGEND_PX + _MARGIN_PX))
    panels.paste(boxed, (0, 0))
    panels.paste(Image.blend(original, heat, 0.6), (size[0], 0))
    panels.paste(Image.fromarray(legend_strip(panels.width, _LEGEND_PX)), (0, size[1]))
    ImageDraw.Draw(panels).text((2, size[1] + _LEGEND_PX + 2), LEGEND, fill="white")
    panels.save(target, format="PNG")


def mask_of(score: Score) -> npt.NDArray[np.uint8]:
    """255 inside the regions, 0 elsewhere, at the image's size [H, W]."""
    _, labels = score.located()
    assert score.placement is not None
    return score.placement.enlarge(np.where(labels > 0, np.uint8(255), np.uint8(0)))


def write_mask(score: Score, target: Path) -> None:
    """Write `mask_of` to a PNG file."""
    Image.fromarray(mask_of(score)).save(target, format="PNG")


class CocoFile:
    """A COCO file of instances (cocodataset.org): an annotation per region, its mask as run lengths."""

    def __init__(self) -> None:
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, name: str, score: Score) -> None:
        """Add an image, anomalous or not, and its regions."""
        regions, labels = score.located()
        placement = score.placement
        assert placement is not None
        image_id = len(self._images) + 1
        self._images.append(
            {"id": image_id, "file_name": name, "width": placement.width_px, "height": placement.height_px}
        )
        for number, region in enumerate(regions, 1):
            box = [region.left, region.top, region.right - region.left, region.bottom - region.top]
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": image_id,
                    "category_id": _CATEGORY["id"],
                    "bbox": [round(number, 2) for number in box],
                    "area": round(region.area_px, 2),
                    "segmentation": _run_lengths(placement.enlarge(labels == number)),
                    "iscrowd": 0,
                    "score": round(region.peak, 4),
                }
            )

    def write(self, target: Path) -> None:
        """Write what was added."""
        document = {"images": self._images, "annotations": self._annotations, "categories": [_CATEGORY]}
        target.write_text(json.dumps(document), encoding="utf-8")


def _run_lengths(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's uncompressed run lengths: of zeros, then ones, in turn, down the columns."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [not mask.flat[-1]]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return {"size": list(mask.shape), "counts": np.diff(changes, prepend=0).tolist()}


def _picture(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))
