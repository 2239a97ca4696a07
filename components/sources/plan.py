"""What every source returns: a plan of shards, and from each shard its images and rejects. No Beam, no TFX."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, runtime_checkable

from components.sources.files import SourceFiles
from images.stored import StoredImage
from schema.features import EVAL, TEST, TRAIN

SPLIT_OF_NAME: Final = {
    "train": TRAIN, "training": TRAIN,
    "eval": EVAL, "val": EVAL, "valid": EVAL, "validation": EVAL, "dev": EVAL,
    "test": TEST, "testing": TEST,
}  # fmt: skip
"""The names that data sets give their splits, in lower case -> our split."""


class SourceImage(NamedTuple):
    """One readable image with what its source knows about it."""

    image_id: str
    label: str
    named_split: str | None
    is_anomaly: int | None
    stored: StoredImage
    mask: bytes | None = None
    """A PNG as described in `schema.features.MASK`; None if the position of the defect is unknown."""
    is_mask_blurred: bool = False
    """Whether many of the mask's pixels are neither black nor white."""
    group: str = ""
    """Variant of the product; empty if unknown."""


@dataclass(frozen=True)
class Reject:
    """One image that cannot be used."""

    image_id: str
    reason: str


@runtime_checkable  # Beam checks its elements against their declared type
class Shard(Protocol):
    """Some images of a source. Small enough to send to a worker, which then reads the pixels."""

    def read(self) -> Iterator[SourceImage | Reject]: ...


@dataclass(frozen=True)
class SourcePlan:
    """All shards of a source, and what identifies its content."""

    shards: tuple[Shard, ...]
    image_count: int
    has_named_eval: bool
    fingerprint: str
    """Changes when a file is added, removed or changed (name, size or modification time)."""
    files: SourceFiles | None = None
    """The files behind `fingerprint`; None for a source without files."""
    excluded: frozenset[str] = frozenset()
    """Identifiers of the images that `data.exclude` leaves out; they are part of the fingerprint."""
    reviewed: "SourcePlan | None" = None
    """The images of `data.reviewed`, which replace the same images of this plan; part of the fingerprint."""
    skipped: str = ""
    """Files that are not images by their suffix, such as `50 .heic files, 1 .txt file`."""
    warning: str = ""
    """What is probably not meant, and what to do."""

    @classmethod
    def of_files(
        cls, files: SourceFiles, shards: Sequence[Shard], image_count: int, has_named_eval: bool
    ) -> "SourcePlan":
        return cls(tuple(shards), image_count, has_named_eval, files.fingerprint(), files)


BATCH_BYTES: Final = 1 << 20
"""Approximate size of the batches in which arrays are read, measured and compressed."""


def rows_per_batch(row_bytes: int) -> int:
    """The number of rows in a batch; at least one, even if a row is larger than a batch."""
    return max(1, BATCH_BYTES // row_bytes)


def row_ranges(row_count: int, rows_per_range: int) -> Iterator[tuple[int, int]]:
    """[start, stop) pairs that cover `row_count` rows in order."""
    for start in range(0, row_count, rows_per_range):
        yield start, min(start + rows_per_range, row_count)
