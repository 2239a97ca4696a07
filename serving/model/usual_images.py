"""What a model's training images were like, and what to say about an image that is unlike them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from images.decoding import Prepared, declared_size
from images.reading import Reading, few_levels_left
from images.values import VALUES_START
from schema.artifacts import USED_BITS
from schema.features import SPLITS
from schema.usual_sizes import UsualSizes


@dataclass(frozen=True, kw_only=True)
class UsualImages:
    """From a model's record, as far as the version that wrote it recorded them."""

    reading: Reading
    sizes: UsualSizes | None
    """None if a version without sizes wrote the record."""
    have_regions: bool
    """Whether each image had a region of interest of its own."""
    are_values: bool
    """Whether each image held values in units of its own, such as floats, for a range of the model's own."""
    use_bits: int
    """Bits of the largest value in files of 16 bits; 0 if there were none."""

    @classmethod
    def from_record(cls, record: Mapping[str, Any], reading: Reading) -> "UsualImages":
        """Of a model's record, which reads image files as in `reading`."""
        counts = record.get("images", {})
        # Duplicates leave `test` after they were counted.
        total = sum(counts.get(name, 0) for name in (*SPLITS, "duplicates"))
        return cls(
            reading=reading,
            sizes=UsualSizes.from_record(record),
            have_regions=reading.alpha == "roi" and 0 < total == counts.get("with_region"),
            are_values=reading.reads_values and 0 < total == counts.get("with_values"),
            use_bits=counts.get(USED_BITS, 0),
        )

    def warning(self, image: Prepared) -> str:
        """Why the score of the image may be wrong; empty if there is nothing to say."""
        return "; ".join(self._warnings(image))

    def _warnings(self, image: Prepared) -> Iterator[str]:
        if self.sizes is not None and (of_size := self.sizes.warning(*reversed(declared_size(image.encoded)))):
            yield of_size
        if self.have_regions and not image.has_region:
            yield (
                "the image has no transparent pixels, but each training image had a region of interest of its own, so "
                "the score is wrong: make transparent what does not count"
            )
        levels = few_levels_left(self.reading.depth, image.used_bits)
        if levels and not self.use_bits:
            white = 2**image.used_bits - 1
            yield (
                f"the file of 16 bits uses only {image.used_bits} of them, of which image.depth 8 keeps {levels} grey "
                f"level{'s' if levels > 1 else ''}: convert 0 to {white:,} to 8 bits, as in the training images, or "
                f"train with image.depth: 16 and image.range: [0, {white}]"
            )
        if self.are_values and not image.encoded.startswith(VALUES_START):
            yield (
                "the file holds levels of 8 or 16 bits, but each training image held values in units of its own, such "
                "as floats, so the model's range does not fit: send a file like the training images"
            )
        if image.page_count > 1:
            yield (
                f"the file has {image.page_count:,} pages, and only the first was scored: save the others as files, or "
                "train with image.page: all"
            )
