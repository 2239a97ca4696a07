"""Measures how often synthetic defects are detected in this run's normal test images."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from PIL import Image, ImageOps

from components.report.data_uris import pixels_uri
from components.report.scored_images import Model, Sample, Values, read_images, score_all
from components.report.synthetic_defects import DEFECTS, Defect, Pixels
from images.decoding import shown
from images.levels import EIGHT_BIT_LEVELS, Levels
from images.reading import AS_STORED
from images.region_of_interest import Inside, box_around, region_of_interest, sampled_own

RELIABLE: Final = 0.9
"""Share of the images in which a defect must be found to count as found reliably."""
_IMAGES = 32
_ATTEMPTS = 50
"""So often a defect is drawn until it touches the region of interest."""


@dataclass(frozen=True)
class Detection:
    """How often a kind was found: `found` [sizes] is the share of images flagged, `examples` one image per size."""

    kind: str
    size_of: str
    sizes: tuple[float, ...]
    found: tuple[float, ...]
    examples: tuple[Pixels, ...]
    example_scores: tuple[float, ...]

    def smallest_found(self, share: float) -> float | None:
        """The smallest size at which, and at all larger ones, at least this share is flagged; None if there is none."""
        smallest = None
        for size, found in zip(reversed(self.sizes), reversed(self.found), strict=True):
            if found < share:
                break
            smallest = size
        return smallest

    def as_json(self) -> dict[str, Any]:
        """All fields except the examples, with the smallest sizes found in half of the images and reliably."""
        values = {key: value for key, value in asdict(self).items() if not key.startswith("example")}
        return {
            **values,
            "smallest_found_in_half": self.smallest_found(0.5),
            "smallest_found": self.smallest_found(RELIABLE),
        }


def detect(
    defect: Defect,
    images: Sequence[Pixels],
    score: Callable[[Sequence[Pixels]], Values],
    threshold: float,
    *,
    seed: int,
    inside: Inside | None = None,
) -> Detection:
    """Inject a defect at every size into all `images`, which have one shape, and count scores above `threshold`.

    `score` takes images [N] and returns their scores [N]. Each image gets the same random numbers at every size,
    so its defect grows roughly in place; the same seed gives the same defects. With a region of interest `inside`
    [N, H, W] defects lie in it, and sizes are shares of the box around it.
    """
    box = (slice(None), slice(None)) if inside is None else box_around(inside[0])
    height_px, width_px = images[0][box].shape[:2]
    sizes = tuple(size for size in defect.sizes if size >= defect.smallest_size(height_px, width_px))
    regions = [None] * len(images) if inside is None else list(inside)
    examples, scores = [], []
    for size in sizes:
        damaged = [
            _damaged(defect, image, size, np.random.default_rng([seed, number]), own)
            for number, (image, own) in enumerate(zip(images, regions, strict=True))
        ]
        examples.append(damaged[0])
        scores.append(score(damaged))
    return Detection(
        kind=defect.kind,
        size_of=defect.size_of,
        sizes=sizes,
        found=tuple(float((of_size > threshold).mean()) for of_size in scores),
        examples=tuple(examples),
        example_scores=tuple(float(of_size[0]) for of_size in scores),
    )


def _damaged(defect: Defect, image: Pixels, size: float, random: np.random.Generator, inside: Inside | None) -> Pixels:
    if inside is None:
        return defect.inject(image, size, random)
    box, damaged = box_around(inside), image.copy()
    is_inside = inside[box].reshape(*inside[box].shape, *(1,) * (image.ndim - 2))
    for _ in range(_ATTEMPTS):
        damaged[box] = np.where(is_inside, defect.inject(image[box], size, random), image[box])
        if not np.array_equal(damaged, image):
            break
    return damaged


def study_defects(
    model: Model, examples_uri: str, sample: Sample, *, record: Mapping[str, Any], threshold: float, seed: int
) -> tuple[int, list[Detection]]:
    """(number of images, one Detection per kind), for normal images that raise no alarm themselves.

    Images are scaled to the model's size and range before they are damaged. `record`: the model's.
    """
    normal = np.flatnonzero(sample.normal & (sample.scores <= threshold))
    chosen = np.random.default_rng(seed).permutation(normal)[:_IMAGES]
    positions = [sample.positions[row] for row in chosen]
    files = [found.encoded for found in read_images(examples_uri, positions)]
    if not files:
        return 0, []
    levels, scaled = Levels.of_model(record, files), [scaled_to_model(file, record) for file in files]
    inside = _inside_of_files(files, record["image"])

    def score(pixels: Sequence[Pixels], own: Inside | None) -> Values:
        return score_all(model, levels.files(np.stack(pixels), own))

    scores = score(scaled, inside)
    by_score = [row for row in np.argsort(scores, kind="stable") if scores[row] <= threshold]
    if not by_score:
        return 0, []
    typical = by_score[len(by_score) // 2]
    chosen = np.array([typical, *(row for row in by_score if row != typical)])
    images, own = [scaled[row] for row in chosen], None if inside is None else inside[chosen]
    score_own = partial(score, own=own)
    return len(images), [detect(defect, images, score_own, threshold, seed=seed, inside=own) for defect in DEFECTS]


def _inside_of_files(files: Sequence[bytes], image: Mapping[str, Any]) -> Inside | None:
    """Which pixels of the images in these files count at the model's size, by the record's section `image`."""
    size = (image["height_px"], image["width_px"])
    if image.get("alpha") != "roi":
        return region_of_interest(image, np.empty((len(files), *size, 1)))
    own = (shown(file, AS_STORED).inside for file in files)
    return np.stack([np.ones(size, bool) if mask is None else sampled_own(mask, *size) for mask in own])


def defects_document(images: int, detections: Sequence[Detection], *, threshold: float, seed: int) -> dict[str, Any]:
    """The content of `synthetic_defects.json`, for programs."""
    kinds = [detection.as_json() for detection in detections]
    return {"images": images, "threshold": threshold, "seed": seed, "needed": RELIABLE, "kinds": kinds}


def pictures_of(detection: Detection, threshold: float) -> list[dict[str, Any]]:
    """One example picture per size."""
    return [
        {"uri": pixels_uri(pixels), "size": size, "found": score > threshold}
        for pixels, size, score in zip(detection.examples, detection.sizes, detection.example_scores, strict=True)
    ]


def scaled_to_model(encoded: bytes, record: Mapping[str, Any]) -> Pixels:
    """An image file in the model's size, channels and range: [H, W] or [H, W, 3] of type uint8."""
    image = record["image"]
    size = (image["width_px"], image["height_px"])
    levels = Levels.of_model(record, [encoded])
    if levels == EIGHT_BIT_LEVELS:
        opened: Image.Image = Image.open(io.BytesIO(encoded))
    else:
        pixels = np.round(255.0 * levels.pixels(encoded)).astype(np.uint8)
        opened = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    opened = opened.convert("L" if image["channels"] == 1 else "RGB")
    return np.asarray(ImageOps.pad(opened, size) if image["fit"] == "pad" else opened.resize(size))
