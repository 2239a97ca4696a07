"""Composes a commented configuration for a folder of images, or a manifest, from what was found in it."""

import json
import math
import re
import textwrap
from importlib import resources
from typing import Any, Final

import yaml

from images.reading import Reading
from trainer.settings.image import LARGEST_SIDE_PX, ImageSettings

_TEMPLATE: Final = "folder.yaml"
"""A link to configs/folder.yaml, which becomes a file in the wheel."""
_OWN: Final = ("name", "data", "image")
"""Sections that are composed for the folder; all others are the template's."""
_MOST_PIXELS: Final = 224 * 224
"""At about this number the network of `features` was trained; elongated images get as many as square ones."""
_SHORTEST_SIDE_PX: Final = 32
_STEP_PX: Final = 16
"""The stride of the coarsest feature maps, which need no mirrored border then."""
_TILE_PX: Final = 256
"""Suits the network of `features`, which was trained at about this size."""
_LONGEST_NAME: Final = 60


def name_for(folder_name: str) -> str:
    """A folder's name as a valid `name:`, such as `Bottle caps` -> `bottle-caps`; `images` if nothing is left."""
    words = re.sub(r"[^a-z0-9_]+", "-", folder_name.lower()).strip("-_")
    return words[:_LONGEST_NAME].rstrip("-_") or "images"


def image_settings_for(
    *, height_px: int, width_px: int, is_grey: bool, has_one_aspect: bool,
    used_bits: int = 0, has_values: bool = False, has_regions: bool = False,
) -> ImageSettings:  # fmt: skip
    """An image's size if it has at most 224x224 pixels, otherwise that number of pixels in its aspect ratio.

    Files of 16 bits, of which `used_bits` are used, keep them; values without black and white get a range; images with
    regions of interest of their own are stretched, since they cannot be padded.
    """
    scale = min(1.0, math.sqrt(_MOST_PIXELS / (height_px * width_px)), LARGEST_SIDE_PX / max(height_px, width_px))
    return ImageSettings.model_validate(
        {
            **_template_values().get("image", {}),
            "height_px": _scaled(height_px, scale),
            "width_px": _scaled(width_px, scale),
            "channels": 1 if is_grey else 3,
            "fit": "stretch" if has_one_aspect or has_regions else "pad",
            **({"alpha": "roi"} if has_regions else {}),
            **_reading_for(used_bits=used_bits, has_values=has_values),
        }
    )


def tiled_settings_for(image: ImageSettings, height_px: int, width_px: int) -> ImageSettings:
    """The same at another size, that of the files, in tiles."""
    tiles = {"height_px": min(_TILE_PX, height_px), "width_px": min(_TILE_PX, width_px)}
    return ImageSettings.model_validate(
        {**image.model_dump(), "height_px": height_px, "width_px": width_px, "tiles": tiles}
    )


def _reading_for(*, used_bits: int, has_values: bool) -> dict[str, Any]:
    if has_values:
        return {"depth": 16, "range": {"percentiles": [0.1, 99.9]}}
    if not used_bits:
        return {}
    return {"depth": 16, **({"range": [0, 2**used_bits - 1]} if used_bits < 16 else {})}


def _scaled(side_px: int, scale: float) -> int:
    if scale == 1:
        return max(side_px, ImageSettings().height_px)
    return max(round(side_px * scale / _STEP_PX) * _STEP_PX, min(side_px, _SHORTEST_SIDE_PX))


def compose(
    *, command: str, name: str, source: str, path: str, normal_labels: tuple[str, ...], labels: tuple[str, ...],
    image: ImageSettings, tiled: ImageSettings | None, comments: dict[str, tuple[str, ...]],
) -> str:  # fmt: skip
    """The text of a configuration; `comments`: lines above the sections `data` and `image`; `tiled`: an alternative."""
    data = {**_template_values().get("data", {}), "source": source, "path": path}
    data.pop("normal_labels", None)
    lines = [f"# {command}", f"name: {name}", *_commented(comments["data"]), "data:"]
    lines += [f"  {field}: {_yaml(value)}" for field, value in data.items()]
    if normal_labels:
        lines.append(f"  normal_labels: {_yaml(list(normal_labels))}  # images of any other class are anomalies")
    elif labels:
        lines.append(f"  # normal_labels: {_yaml(list(labels))}  # images of any other class are anomalies")
    lines += [*_commented(comments["image"]), f"image: {_yaml(_without_defaults(image))}"]
    if tiled:
        lines.append("# To keep smaller defects, at the price of time (docs/tiles.md), use this line instead:")
        lines.append(f"# image: {_yaml(_without_defaults(tiled))}")
    lines.append("")
    return "\n".join(lines) + _template_sections()


def _without_defaults(image: ImageSettings) -> dict[str, Any]:
    """Without what is not used, and without the usual reading."""
    values = image.model_dump(mode="json", exclude_none=True)
    default = Reading().model_dump(mode="json")
    return {name: value for name, value in values.items() if name not in default or value != default[name]}


def _commented(lines: tuple[str, ...]) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, 118, initial_indent="# ", subsequent_indent="#   ")]


def _yaml(value: Any) -> str:
    """One line of YAML, which JSON is too."""
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, dict) else _flow(value)


def _flow(values: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{field}: {_plain(value)}" for field, value in values.items()) + "}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return _flow(value)
    return value if isinstance(value, str) and value.isidentifier() else json.dumps(value)


def _template() -> str:
    return resources.files("pipeline.configuration").joinpath(_TEMPLATE).read_text(encoding="utf-8")


def _template_values() -> dict[str, Any]:
    return dict(yaml.safe_load(_template()))


def _template_sections() -> str:
    """The template's sections other than those in _OWN, with their comments."""
    sections = re.split(r"^(?=\w+:)", _template(), flags=re.MULTILINE)[1:]
    return "".join(section for section in sections if section.split(":")[0] not in _OWN)
