"""Scores test images: a sample's scores and latents, and single images with reconstructions and anomaly maps."""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from runtime.loaded_models import loaded
from runtime.tfrecords import as_many_as_fit, bytes_of, each_record, features_of, text_of
from schema import features
from schema.signatures import (
    ALL_SCORES_SIGNATURE,
    ANOMALY_MAP,
    IMAGE_BYTES,
    IS_PADDED,
    LATENT,
    RECONSTRUCT_SIGNATURE,
    RECONSTRUCTION,
    SCORE,
    SMALLEST_REGION,
)

_BATCH = 64
_LOG = logging.getLogger(__name__)

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """A SavedModel's signatures `reconstruct` and, if it has one, `all_scores`; `at_a_time`: the largest batch."""

    reconstruct: Callable[[Sequence[bytes]], dict[str, Any]]
    """Encoded images [B] -> outputs as arrays."""
    at_a_time: int
    all_scores: Callable[[Sequence[bytes]], dict[str, Any]] | None = None
    """Encoded images [B] -> each compared score [B] by name."""


@dataclass(frozen=True)
class ExampleImage:
    """One record of a split; `position` is its index in file order, `is_anomaly` is -1 if unknown."""

    position: int
    image_id: str
    label: str
    is_anomaly: int
    encoded: bytes
    mask: bytes | None


@dataclass(frozen=True)
class Sample:
    """N test images in file order: scores [N], latents [N, Z], is_anomaly [N]; `total` is the split's size.

    A score that is not finite is infinite, so that it is an alarm, as in the model.
    """

    total: int
    positions: tuple[int, ...]
    labels: tuple[str, ...]
    is_anomaly: npt.NDArray[np.int64]
    scores: Values
    latents: Values

    @property
    def normal(self) -> npt.NDArray[np.bool_]:
        """[N]: which images are normal or not known to be anomalous."""
        return self.is_anomaly != 1


@dataclass(frozen=True)
class ShownImage:
    """A test image with the model's outputs: reconstruction [H, W, C] and anomaly_map [H, W].

    A model of a version without anomaly maps has none, and so no regions.
    """

    source: ExampleImage
    score: float
    reconstruction: Values
    anomaly_map: Values | None = None
    is_padded: bool = False
    smallest_region: float = 0.0
    """Share of the image's area below which a region does not count."""


def load_model(folder: str) -> Model:
    """Load a SavedModel, unless this process has analysed it just now."""
    model = loaded(folder)  # `reconstruct` keeps it alive; a signature alone would lose its variables
    signature = model.signatures[RECONSTRUCT_SIGNATURE]

    def outputs_of(name: str, encoded: Sequence[bytes]) -> dict[str, Any]:
        outputs = model.signatures[name](**{IMAGE_BYTES: tf.constant(list(encoded), tf.string)})
        return {name: value.numpy() for name, value in outputs.items()}

    return Model(
        partial(outputs_of, RECONSTRUCT_SIGNATURE),
        as_many_as_fit(signature.structured_outputs[RECONSTRUCTION].shape[1:], at_most=_BATCH),
        partial(outputs_of, ALL_SCORES_SIGNATURE) if ALL_SCORES_SIGNATURE in model.signatures else None,
    )


def score_all(model: Model, encoded: Sequence[bytes]) -> Values:
    """Scores [N] of encoded images [N], in batches; infinite where they are not finite, as in a Sample."""
    batches = [encoded[start : start + model.at_a_time] for start in range(0, len(encoded), model.at_a_time)]
    return np.concatenate([_scores_in(model.reconstruct(batch)) for batch in batches])


def score_sample(model: Model, examples_uri: str, *, total: int, limit: int, seed: int) -> Sample:
    """Score at most `limit` of the split's `total` images, chosen at random by `seed`, batch by batch."""
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:limit])
    labels, known, scores, latents = [], [], [], []
    for batch, outputs in _reconstructed(model, examples_uri, chosen):
        labels += [image.label for image in batch]
        known += [image.is_anomaly for image in batch]
        scores.append(_scores_in(outputs))
        latents.append(outputs[LATENT])
        _LOG.info("images scored", extra={"done": len(labels), "total": len(chosen), "unit": "images"})
    return Sample(
        total=total,
        positions=tuple(int(position) for position in chosen),
        labels=tuple(labels),
        is_anomaly=np.asarray(known),
        scores=np.concatenate(scores),
        latents=np.concatenate(latents).astype(np.float64),
    )


def show(model: Model, examples_uri: str, positions: Iterable[int]) -> dict[int, ShownImage]:
    """Position -> the image there, with the model's outputs."""
    shown = {}
    for batch, outputs in _reconstructed(model, examples_uri, positions):
        for row, image in enumerate(batch):
            shown[image.position] = ShownImage(
                source=image,
                score=float(_scores_in(outputs)[row]),
                reconstruction=outputs[RECONSTRUCTION][row],
                **_map_of(outputs, row),
            )
    return shown


def _scores_in(outputs: dict[str, Any]) -> Values:
    scores = np.asarray(outputs[SCORE], np.float64)
    return np.where(np.isfinite(scores), scores, np.inf)


def _map_of(outputs: dict[str, Any], row: int) -> dict[str, Any]:
    if ANOMALY_MAP not in outputs:
        return {}
    return {
        "anomaly_map": outputs[ANOMALY_MAP][row],
        "is_padded": bool(outputs[IS_PADDED][row]),
        "smallest_region": float(outputs[SMALLEST_REGION][row]),
    }


def read_images(examples_uri: str, positions: Iterable[int], split: str = features.TEST) -> Iterator[ExampleImage]:
    """The split's images at these positions, in file order; other records are skipped without parsing."""
    wanted = frozenset(int(position) for position in positions)
    for position, record in enumerate(each_record([f"{examples_uri}/Split-{split}/*"])):
        if position in wanted:
            yield _parse(position, record)


def _parse(position: int, record: bytes) -> ExampleImage:
    feature = features_of(record)
    known = feature[features.IS_ANOMALY].int64_list.value if features.IS_ANOMALY in feature else ()
    mask = feature[features.MASK].bytes_list.value if features.MASK in feature else ()
    return ExampleImage(
        position=position,
        image_id=text_of(feature, features.IMAGE_ID),
        label=text_of(feature, features.LABEL),
        is_anomaly=int(known[0]) if known else features.UNKNOWN,
        encoded=bytes_of(feature, features.IMAGE),
        mask=mask[0] if mask else None,
    )


def _reconstructed(
    model: Model, examples_uri: str, positions: Iterable[int]
) -> Iterator[tuple[list[ExampleImage], dict[str, Any]]]:
    """Batches of the test split's images at these positions, with the model's outputs."""
    images = read_images(examples_uri, positions)
    while batch := list(itertools.islice(images, model.at_a_time)):
        yield batch, model.reconstruct([image.encoded for image in batch])
