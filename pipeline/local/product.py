"""Keeps one product under one name: a run of other images would replace the reference of the earlier ones."""

import json
import os.path
from pathlib import Path
from typing import Final

from components.settings import DataSettings
from pipeline.configuration.configuration import Configuration, ConfigurationError

PRODUCT_FILE: Final = ".product"
"""In a pipeline's folder: the images of its latest finished run."""
_PUBLIC = ("digits", "mnist", "fashion_mnist")
"""Sources whose images are the same wherever they lie."""


def require_same_product(configuration: Configuration, data_fingerprint: str, folder: Path) -> None:
    """Raise ConfigurationError if the runs in `folder` learnt other images.

    They are the same if their source and location are, or if no file has changed, so files may have been moved. Files
    may be added, removed and changed in place: ExampleValidator compares what they show.
    """
    earlier = _read(folder)
    place = _place(configuration.data)
    if earlier is None or place == earlier["place"] or data_fingerprint == earlier["fingerprint"]:
        return
    raise ConfigurationError(
        f"name: {configuration.name}'s earlier runs learnt the images in {earlier['place']}, and this run's are in "
        f"{place}: it would replace their model. For another product, choose another name (in the file, or with --set "
        f"name=...); for the same product, whose images are in another place now, add --same-product"
    )


def record_product(configuration: Configuration, data_fingerprint: str, folder: Path) -> None:
    """Record the images of a finished run."""
    document = {"place": _place(configuration.data), "fingerprint": data_fingerprint}
    (folder / PRODUCT_FILE).write_text(json.dumps(document) + "\n", encoding="utf-8")


def _place(data: DataSettings) -> str:
    """Source and absolute location of the images; links are not resolved, so they may lead to newer images."""
    if data.source in _PUBLIC:
        return data.source
    path = data.path or ""
    if "://" not in path:
        path = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - pathlib keeps `..`
    return f"{data.source} {path.rstrip('/')}"


def _read(folder: Path) -> dict[str, str] | None:
    file = folder / PRODUCT_FILE
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None
