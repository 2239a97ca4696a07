"""`data.reviewed`: a manifest of images that people have decided about, which replace the same images of the data."""

import hashlib
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from typing import Final

from components.settings import DataSettings
from components.sources.csv_manifest import plan_csv
from components.sources.files import DataError, SourceFiles
from components.sources.folder import FilesShard
from components.sources.plan import Reject, Shard, SourceImage, SourcePlan
from images.reading import Reading
from schema.reviewed import REVIEWED_PREFIX

AUTO: Final = "auto"
"""Resolved by `autoencoder run`, which knows the run's folder; elsewhere it means none."""


@dataclass(frozen=True)
class ReviewedShard:
    """A shard of reviewed images: their identifiers begin with REVIEWED_PREFIX."""

    shard: Shard

    def read(self) -> Iterator[SourceImage | Reject]:
        for image in self.shard.read():
            image_id = REVIEWED_PREFIX + image.image_id
            yield (
                image._replace(image_id=image_id)
                if isinstance(image, SourceImage)
                else replace(image, image_id=image_id)
            )


def with_reviewed(plan: SourcePlan, settings: DataSettings, reading: Reading) -> SourcePlan:
    """The plan with the images of the manifest. Raises DataError if it cannot be used, or does not decide an image."""
    reviewed = reviewed_plan(settings, reading)
    return replace(plan, reviewed=reviewed, fingerprint=fingerprint_with(plan.fingerprint, reviewed))


def reviewed_plan(settings: DataSettings, reading: Reading) -> SourcePlan | None:
    """The images of the manifest, if there is one. Raises DataError like `with_reviewed`."""
    if settings.reviewed in (None, AUTO):
        return None
    own = {"source": "csv", "path": settings.reviewed, "max_images": None, "exclude": None}
    try:
        listed = plan_csv(settings.model_copy(update=own), reading)
    except DataError as error:
        raise DataError(f"data.reviewed: {error}") from None
    shards = [shard for shard in listed.shards if isinstance(shard, FilesShard)]
    undecided = [entry.relative_path for shard in shards for entry in shard.entries if entry.is_anomaly is None]
    if undecided:
        raise DataError(f"data.reviewed: {settings.reviewed}: {undecided[0]} has no is_anomaly; write 0 or 1")
    # The manifest itself may change while it is used, because reviewers go on; copies of images stay as they are.
    names = tuple(entry.relative_path for shard in shards for entry in shard.entries)
    files = listed.files and SourceFiles(listed.files.folder, names)
    return replace(
        listed, shards=tuple(map(ReviewedShard, shards)), files=files, fingerprint=_fingerprint(shards, files)
    )


def fingerprint_with(fingerprint: str, reviewed: SourcePlan | None) -> str:
    """The fingerprint of data with these reviewed images; the same if there are none."""
    return fingerprint if reviewed is None else f"{fingerprint} with {reviewed.fingerprint}"


def _fingerprint(shards: list[FilesShard], files: SourceFiles | None) -> str:
    """Of what was decided about which files, not of who decided it when."""
    digest = hashlib.blake2b((files.fingerprint() if files else "").encode(), digest_size=8)
    for entry in sorted(astuple(entry) for shard in shards for entry in shard.entries):
        digest.update(repr(entry).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
