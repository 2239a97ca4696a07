"""Inspects a folder of images, or a manifest: layout, sizes, colours, depth, and which images are normal."""

import io
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from PIL import Image

from components.settings import DataSettings
from components.sources.csv_manifest import plan_csv
from components.sources.files import DataError
from components.sources.folder import FileEntry, FilesShard, entries_of, is_normal_folder, plan_folder
from components.sources.plan import Reject, SourceImage
from images.reading import AS_STORED
from images.values import VALUES_START
from runtime.object_store import as_path
from schema.features import TRAIN

INSPECTED: Final = 200
"""Images that are decoded at most, at equal distances in the listing."""
_GREY_WITHIN: Final = 3
"""Largest difference in levels between the channels of a grey image that is stored as RGB, such as a JPEG file."""
_SAME_ASPECT: Final = 1.25
"""Aspect ratios that differ by at most this factor count as one, except for the most extreme 5 % at either end."""


@dataclass(frozen=True)
class FilesFacts:
    """What a folder holds or a manifest lists; `inspected` of its images were decoded."""

    source: Literal["folder", "csv"]
    manifest: str
    """Of a folder: the only manifest directly in it that lists its images; empty if there is none."""
    listed: int
    """Images that this manifest lists."""
    groups: tuple[str, ...]
    """Variants of the product, from a manifest's column `group`."""
    has_regions: bool
    """Whether a manifest gives images regions of interest of their own."""

    image_count: int
    skipped: str
    warning: str
    images_in: dict[tuple[str | None, str], int]
    """(named split, label) -> images."""
    normality_is_known: bool
    """Whether the folders' names, or the manifest, alone tell which images are normal."""
    normal_labels: tuple[str, ...]
    """Labels of the classes that are normal by their names, if that needs `data.normal_labels`."""
    inspected: int
    unreadable: tuple[Reject, ...]
    max_reject_fraction: float
    """The share of unreadable images above which a run stops, unless its configuration sets another."""
    files_of_pages: int
    """Inspected files of several pages."""
    inspected_pages: int
    """Pages of these files."""
    height_px: int
    """Median of the images' heights."""
    width_px: int
    sizes: int
    """Number of different sizes."""
    has_one_aspect: bool
    stored_channels: int
    is_grey: bool
    """Whether no image shows a colour."""
    used_bits: int
    """Bits of the largest level, if all inspected files of levels have 16 bits; otherwise 0."""
    has_values: bool
    """Whether most files hold values in units of their own, such as floats, instead of levels of 8 or 16 bits."""
    of_other_kind: tuple[str, ...]
    """The inspected files that hold levels where most hold values, or values where most hold levels."""

    @property
    def has_too_many_unreadable(self) -> bool:
        """Whether a run would stop if the other images are like the inspected ones."""
        return len(self.unreadable) > self.max_reject_fraction * self.inspected

    @property
    def splits(self) -> frozenset[str]:
        """The splits that the folder names."""
        return frozenset(split for split, _ in self.images_in if split)

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, sorted."""
        return tuple(sorted({label for _, label in self.images_in if label}))


def inspect_files(path: str) -> FilesFacts:
    """List the images in a folder, or in a manifest if `path` is a file, as a run does, and decode some of them.

    Raises DataError if a run could not use them; `height_px` is 0 if no inspected image is readable.
    """
    place = as_path(path)
    if not place.exists():
        raise DataError(f"{path}: no such folder or manifest; name the folder that holds the images, or a CSV file")
    source: Literal["folder", "csv"] = "csv" if place.is_file() else "folder"
    settings = DataSettings(source=source, path=path)
    # Read as stored, a manifest may give regions of interest: whether it has any decides how images are read later.
    plan = plan_csv(settings, AS_STORED) if source == "csv" else plan_folder(settings)
    entries = entries_of(plan)
    manifest, listed = _manifest_in(path, entries) if source == "folder" else ("", 0)
    count = min(len(entries), INSPECTED)
    chosen = tuple(entries[index * len(entries) // count] for index in range(count))
    folder = path if source == "folder" else str(place.parent)
    read = list(FilesShard(folder, chosen, follow_links=False, reading=AS_STORED).read())
    images = [image for image in read if isinstance(image, SourceImage)]
    values = [image for image in images if image.stored.encoded.startswith(VALUES_START)]
    levels = [image for image in images if not image.stored.encoded.startswith(VALUES_START)]
    has_values = len(values) > len(levels)
    used_bits = [image.stored.used_bits for image in levels]
    sizes = [(image.stored.height_px, image.stored.width_px) for image in images]
    pages = [image.stored.page_count for image in images if image.stored.page_count > 1]
    narrow, wide = np.percentile([width / height for height, width in sizes] or [1.0], (5, 95))
    return FilesFacts(
        source=source,
        manifest=manifest,
        listed=listed,
        groups=tuple(sorted({entry.group for entry in entries if entry.group})),
        has_regions=any(entry.roi_path for entry in entries),
        image_count=plan.image_count,
        skipped=plan.skipped,
        warning=plan.warning,
        images_in=dict(Counter((entry.named_split, entry.label) for entry in entries)),
        normality_is_known=any(entry.is_anomaly is not None for entry in entries),
        normal_labels=_normal_labels(entries),
        inspected=len(read),
        unreadable=tuple(reject for reject in read if isinstance(reject, Reject)),
        max_reject_fraction=settings.max_reject_fraction,
        files_of_pages=len(pages),
        inspected_pages=sum(pages),
        height_px=round(statistics.median(height for height, _ in sizes)) if sizes else 0,
        width_px=round(statistics.median(width for _, width in sizes)) if sizes else 0,
        sizes=len(set(sizes)),
        has_one_aspect=bool(wide <= _SAME_ASPECT * narrow),
        stored_channels=max((image.stored.channels for image in images), default=1),
        is_grey=all(_is_grey(image) for image in images),
        used_bits=0 if has_values or min(used_bits, default=0) == 0 else max(used_bits),
        has_values=has_values,
        of_other_kind=tuple(image.image_id for image in (levels if has_values else values)),
    )


def _manifest_in(folder: str, entries: list[FileEntry]) -> tuple[str, int]:
    """(the only manifest directly in the folder, how many of its images it lists), or ("", 0).

    CSV files with other columns, or that list no image of the folder, are not manifests.
    """
    images = {entry.relative_path for entry in entries}
    place = as_path(folder)
    names = [path.name for path in place.glob("*.csv")] if isinstance(place, Path) else []
    found = []
    for name in names:
        try:
            listed = entries_of(plan_csv(DataSettings(source="csv", path=str(place / name)), AS_STORED))
        except DataError:
            continue
        count = sum(entry.relative_path in images for entry in listed)
        if count:
            found.append((str(place / name), count))
    return found[0] if len(found) == 1 else ("", 0)


def _normal_labels(entries: list[FileEntry]) -> tuple[str, ...]:
    """Classes with a normal name; images directly in `train` are normal too if a class of `test` has such a name."""
    if any(entry.is_anomaly is not None for entry in entries):
        return ()
    labels = {entry.label for entry in entries}
    normal = sorted(label for label in labels if is_normal_folder(label))
    if not normal or len(normal) == len(labels):
        return ()
    is_flat = any(entry.named_split == TRAIN and not entry.label for entry in entries)
    return (*normal, *([""] if is_flat else []))


def _is_grey(image: SourceImage) -> bool:
    if image.stored.channels == 1:
        return True
    pixels = np.asarray(Image.open(io.BytesIO(image.stored.encoded)).convert("RGB"), np.int16)
    return bool((pixels.max(axis=2) - pixels.min(axis=2)).max() <= _GREY_WITHIN)
