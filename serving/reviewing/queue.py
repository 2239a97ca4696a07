"""Scores candidates and orders them for review; their files and maps wait in a folder."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from images.decoding import upright_size
from images.regions import Placement, find_regions
from runtime.tfrecords import as_many_as_fit
from schema.signatures import (
    ANOMALY_MAP,
    GROUP,
    IMAGE_BYTES,
    IS_ANOMALY,
    IS_PADDED,
    LATENT,
    P_VALUE,
    RECONSTRUCT_SIGNATURE,
    RECONSTRUCTION,
    SCORE,
    SMALLEST_REGION,
    THRESHOLD,
)
from schema.usual_sizes import UsualSizes
from serving.errors import ServingError, Status
from serving.model.loaded_model import Arrays
from serving.model.prediction import Predictor, Request
from serving.reviewing.candidates import CONTESTED, FOLDER, KEPT, SUSPECT, WATCH, Candidate
from serving.reviewing.decisions import Subject
from serving.reviewing.order import distance_from_threshold, most_informative_first

_OUTPUTS: Final = (SCORE, THRESHOLD, IS_ANOMALY, P_VALUE, GROUP, LATENT, ANOMALY_MAP, IS_PADDED, SMALLEST_REGION)
_BATCH: Final = 16
_GRID: Final = 3
_LARGEST_SHOWN_MAP: Final = 512
"""Rows and columns of a map that are kept and sent to the page; of larger ones, the maximum of each block."""
_PROTECTED: Final = (SUSPECT, CONTESTED)
"""Sources whose images are shown wherever they score."""
_UNLABELLED: Final = (WATCH, FOLDER, KEPT)
"""Sources that do not know labels, so a normal image gets that of the group in which the model sees it, if any."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A scored image; its file is `file`, beside the file of its map."""

    subject: Subject
    file: Path
    source: str
    group: str
    known_as: str
    is_known_normal: bool
    mask: bytes
    score: float
    threshold: float
    is_anomaly: bool
    p_value: float
    latent: npt.NDArray[np.float32]
    has_map: bool
    """False for a model without maps."""
    is_padded: bool
    smallest_region: float
    place: tuple[int, int] | None
    """Row and column, on a grid of 3 x 3, of the strongest region's centre; None if there is no region."""
    size_warning: str
    """Why the score of an image of this size may be wrong; empty for a usual size."""

    @property
    def anomaly_map(self) -> npt.NDArray[np.float32]:
        """[H, W] in multiples of the pixel threshold, read from its file."""
        found: npt.NDArray[np.float32] = np.load(_map_file(self.file))
        return found

    def remove(self) -> None:
        """Remove its files."""
        self.file.unlink()
        _map_file(self.file).unlink(missing_ok=True)


Scored = Callable[[Item], None]


class ReviewQueue:
    """The `limit` images nearest to the threshold among all that were added, and all suspects.

    What contradicts the data counts as nearest: misses, false alarms, and suspects at least as strange as the rate.

    Images with the same bytes are one, with the source that was added first. An image that the model cannot read is
    left out. Files and maps wait in `folder`.
    """

    def __init__(self, folder: Path, *, rate: float, limit: int) -> None:
        self._folder, self._rate, self._limit = folder, rate, limit
        self._items: dict[str, Item] = {}
        self._known: list[npt.NDArray[np.float32]] = []

    def add_known(self, contents: Sequence[bytes], predictor: Predictor) -> None:
        """Images that the model's calibration has seen: what looks like them is no news."""
        self._known += _latents(contents, predictor)

    def add(
        self,
        candidates: Iterable[Candidate],
        predictor: Predictor,
        *,
        decided: frozenset[str] = frozenset(),
        scored: Scored = lambda item: None,
    ) -> None:
        """Score more candidates; `scored` is called with every item. `decided`: as in `in_order`, none is dropped."""
        for item in _scored(candidates, predictor, self._folder, self._items):
            scored(item)
            self._items[item.subject.digest] = item
            if len(self._items) > 2 * self._limit:
                self._keep_nearest(decided)
        self._keep_nearest(decided)

    def in_order(self, decided: frozenset[str] = frozenset()) -> list[Item]:
        """The most informative first; `decided` are the digests that come last, and count as seen."""
        new = [item for digest, item in self._items.items() if digest not in decided]
        old = [item for digest, item in self._items.items() if digest in decided]
        if not new:
            return old
        size = len(new[0].latent)
        seen = [item.latent for item in old] + self._known
        order = most_informative_first(
            [_informative_p_value(item, self._rate) for item in new],
            np.array([item.latent for item in new]),
            [item.group for item in new],
            [item.place for item in new],
            rate=self._rate,
            seen=np.array(seen).reshape(len(seen), size),
        )
        return [new[index] for index in order] + old

    def _keep_nearest(self, decided: frozenset[str]) -> None:
        optional = [x for d, x in self._items.items() if x.source not in _PROTECTED and d not in decided]
        distances = distance_from_threshold([_informative_p_value(item, self._rate) for item in optional], self._rate)
        for index in np.argsort(distances, kind="stable")[self._limit :]:
            self._items.pop(optional[index].subject.digest).remove()


def _informative_p_value(item: Item, rate: float) -> float:
    """The p-value, or the rate itself, which is the most informative, if the data contradicts the verdict."""
    is_low = item.p_value <= rate
    contradicts = (item.is_known_normal and is_low) or (bool(item.known_as) and not is_low)
    return rate if contradicts else item.p_value


def _scored(
    candidates: Iterable[Candidate], predictor: Predictor, folder: Path, known: dict[str, Item]
) -> Iterator[Item]:
    remaining, at_a_time = iter(candidates), _at_a_time(predictor)
    while batch := list(itertools.islice(remaining, at_a_time)):
        first = {one.subject.digest: one for one in reversed(batch)}
        fresh = [one for digest, one in first.items() if digest not in known]
        for one, outputs in zip(fresh, _outputs([one.content for one in fresh], predictor), strict=True):
            if outputs is not None:
                yield _item(one, outputs, folder, predictor.usual_sizes)


def _latents(contents: Sequence[bytes], predictor: Predictor) -> Iterator[npt.NDArray[np.float32]]:
    at_a_time = _at_a_time(predictor)
    for start in range(0, len(contents), at_a_time):
        for outputs in _outputs(contents[start : start + at_a_time], predictor, (LATENT,)):
            if outputs is not None:
                yield outputs[LATENT]


def _at_a_time(predictor: Predictor) -> int:
    """How many images the model gets at a time."""
    pixels = predictor.signature(RECONSTRUCT_SIGNATURE).outputs[RECONSTRUCTION].shape or ()
    return as_many_as_fit([side or 1 for side in pixels], at_most=_BATCH)


def _outputs(contents: Sequence[bytes], predictor: Predictor, wanted: Sequence[str] = _OUTPUTS) -> list[Arrays | None]:
    """The outputs for each image, without the batch dimension; None for an image that cannot be read."""
    if not contents:
        return []
    available = [name for name in wanted if name in predictor.signature(RECONSTRUCT_SIGNATURE).outputs]
    inputs = {IMAGE_BYTES: np.array(contents, dtype=object)}
    try:
        outputs = predictor.predict(Request(inputs, RECONSTRUCT_SIGNATURE, available))
    except ServingError as error:
        if error.status not in (Status.INVALID_ARGUMENT, Status.RESOURCE_EXHAUSTED):
            raise
        if len(contents) == 1:
            return [None]
        return [found for content in contents for found in _outputs([content], predictor, wanted)]
    return [{name: values[row] for name, values in outputs.items()} for row in range(len(contents))]


def _item(candidate: Candidate, outputs: Arrays, folder: Path, usual_sizes: UsualSizes | None) -> Item:
    file = folder / candidate.subject.digest
    file.write_bytes(candidate.content)
    anomaly_map = outputs.get(ANOMALY_MAP)
    if anomaly_map is not None:
        np.save(_map_file(file), _shown(np.asarray(anomaly_map, np.float32)))
    is_padded, smallest = (outputs.get(name, np.float32(0.0)) for name in (IS_PADDED, SMALLEST_REGION))
    p_value = candidate.p_value if math.isfinite(candidate.p_value) else float(outputs.get(P_VALUE, math.nan))
    group = bytes(outputs[GROUP]).decode("utf-8", "replace") if GROUP in outputs else candidate.group
    size = upright_size(candidate.content)
    is_unlabelled = GROUP in outputs and candidate.source in _UNLABELLED
    return Item(
        subject=replace(candidate.subject, label=group) if is_unlabelled else candidate.subject,
        file=file,
        source=candidate.source,
        group=group,
        known_as=candidate.known_as,
        is_known_normal=candidate.is_known_normal,
        mask=candidate.mask,
        score=float(outputs[SCORE]),
        threshold=float(outputs[THRESHOLD]),
        is_anomaly=bool(outputs[IS_ANOMALY]),
        p_value=p_value,
        latent=np.array(np.ravel(outputs[LATENT]), np.float32),  # a view would keep the batch in memory
        has_map=anomaly_map is not None,
        is_padded=bool(is_padded),
        smallest_region=float(smallest),
        place=_place(size, anomaly_map, is_padded=bool(is_padded), smallest=float(smallest)),
        size_warning=usual_sizes.warning(*size) if usual_sizes else "",
    )


def _shown(anomaly_map: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A map [H, W], reduced to at most `_LARGEST_SHOWN_MAP` rows and columns."""
    block = -(-max(anomaly_map.shape) // _LARGEST_SHOWN_MAP)
    if block == 1:
        return anomaly_map
    padded = np.pad(anomaly_map, [(0, -side % block) for side in anomaly_map.shape])
    rows, columns = (side // block for side in padded.shape)
    reduced: npt.NDArray[np.float32] = padded.reshape(rows, block, columns, block).max(axis=(1, 3))
    return reduced


def _map_file(file: Path) -> Path:
    return file.with_suffix(".npy")


def _place(size: tuple[int, int], anomaly_map: Any, *, is_padded: bool, smallest: float) -> tuple[int, int] | None:
    if anomaly_map is None:
        return None
    placement = Placement.on_map(size, anomaly_map.shape, is_padded=is_padded)
    regions, _ = find_regions(anomaly_map, placement, smallest_share=smallest)
    if not regions:
        return None
    down = (regions[0].top + regions[0].bottom) / 2 / placement.height_px
    across = (regions[0].left + regions[0].right) / 2 / placement.width_px
    row, column = (min(_GRID - 1, int(_GRID * share)) for share in (down, across))
    return row, column
