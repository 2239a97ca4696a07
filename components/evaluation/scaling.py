"""What to do when images are scaled down so far that small defects vanish, which no score or preset can make up for."""

import math
from collections.abc import Mapping
from typing import Any, Final

from images.regions import Placement
from schema.usual_sizes import UsualSizes

_SEVERAL_TIMES: Final = 2.0
_EXAMPLE_PX: Final = 10


def more_pixels(record: Mapping[str, Any]) -> str:
    """The remedy, with the numbers of a model's record; empty if its images are hardly scaled down, or unknown."""
    sizes = UsualSizes.from_record(record)
    if sizes is None or not sizes.median_height_px:
        return ""
    image, own = record["image"], (sizes.median_height_px, sizes.median_width_px)
    seen = Placement.on_map(own, (image["height_px"], image["width_px"]), is_padded=image.get("fit") == "pad")
    factor = math.sqrt(math.prod(own) / (seen.rows * seen.columns))
    if factor < _SEVERAL_TIMES:
        return ""
    tiles = "" if image.get("tiles") else ", and set image.tiles if they get large"
    return (
        f"your images have {own[1]:,}x{own[0]:,} pixels (median) and the model sees {seen.columns:,}x{seen.rows:,}: a "
        f"defect of {_EXAMPLE_PX} pixels has {_EXAMPLE_PX / factor:.1g}. If your defects are small, raise "
        f"image.height_px and image.width_px{tiles} (docs/tiles.md)"
    )
