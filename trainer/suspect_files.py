"""Writes `suspects.jsonl` and the anomaly maps of the first suspects, for the report and for `data.exclude`."""

import io
import itertools
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from runtime.tfrecords import as_many_as_fit, count_records, each_record, features_of, text_of
from runtime.traced_once import traced_once
from schema import features
from schema.artifacts import SUSPECT_MAPS_FILE, SUSPECTS_FILE, SUSPECTS_SHOWN
from schema.signatures import FEATURE_ERROR
from trainer.data.dataset import parse_encoded
from trainer.scoring.groups import GroupedScore
from trainer.scoring.scores import FittedScore
from trainer.scoring.suspects import Suspect, rank_suspects, score_of_maps, scores_of_maps
from trainer.settings.calibration import CalibrationSettings, ScoreName

_EXAMINED = 10_000
"""Training images that are examined at most, at equal distances, if the model has no maps of unseen images."""
_LOG = logging.getLogger(__name__)

AnomalyMap = Callable[[tf.Tensor, Any], tf.Tensor]
"""Pixels [B, H, W, C] and the model's outputs for them -> [B, H, W] in multiples of the pixel threshold."""
Place = tuple[str, int]
"""A split, and a position in its file order."""


@dataclass(frozen=True)
class Examined:
    """Images with their scores [n]; `maps` [m, h, w] are the unseen error maps of the first m of them."""

    score: ScoreName
    places: list[Place]
    scores: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float32] | None


def examine(
    trained: Any,
    name: ScoreName,
    score: FittedScore | GroupedScore,
    settings: CalibrationSettings,
    patterns: Mapping[str, str],
    *,
    unseen_maps: tf.Tensor | None,
    cross_fitted: bool,
) -> Examined:
    """Score training images by models that were not fitted to them, as far as there are `unseen_maps` [n, h, w].

    Then held-out images are examined too, because the same folder holds them. Otherwise the model scores the images
    that it has learnt. `patterns`: split -> pattern of its files.
    """
    count = count_records([patterns[features.TRAIN]])
    if unseen_maps is None:
        rows = range(0, count, max(1, math.ceil(count / _EXAMINED)))
        places = [(features.TRAIN, row) for row in rows]
        return Examined(name, places, _scores_at(trained, score, patterns, places), None)
    held_out = [(features.EVAL, row) for row in range(count_records([patterns[features.EVAL]]))]
    fitted = [(features.TRAIN, row) for row in range(count)] + (held_out if cross_fitted else [])
    places = fitted[:: math.ceil(len(fitted) / unseen_maps.shape[0])]

    def batches() -> Iterator[tuple[tf.Tensor, Any]]:
        return _autoencoded(trained, (record for _, record in _records_at(patterns, places)))

    deciding, ungrouped = name, score.ungrouped if isinstance(score, GroupedScore) else score
    name, of_maps = score_of_maps(name, ungrouped, settings, batches, unseen_maps)
    scores = scores_of_maps(of_maps, unseen_maps, trained.mean_image.shape)
    if name != deciding:
        score = of_maps
    elif isinstance(score, GroupedScore):
        groups = tf.concat([score.group_of(outputs) for _, outputs in batches()], axis=0)
        scores = score.in_units(scores, groups).numpy()
    if not cross_fitted:
        scores = np.concatenate([scores, _scores_at(trained, score, patterns, held_out)])
        places = places + held_out
    return Examined(name, places, scores, unseen_maps.numpy())


def write_suspects(
    folder: str,
    examined: Examined,
    trained: Any,
    patterns: Mapping[str, str],
    *,
    name: ScoreName,
    anomaly_map: AnomalyMap,
) -> None:
    """Write a line for each suspect, and the maps of the first ones [k, H, W] as `.npy`.

    `anomaly_map` is that of the score `name`, which decides.
    """
    suspects = rank_suspects(examined.scores)
    records = dict(_records_at(patterns, [examined.places[suspect.index] for suspect in suspects]))
    lines = [_line(suspect, examined, records[examined.places[suspect.index]]) for suspect in suspects]
    with tf.io.gfile.GFile(f"{folder}/{SUSPECTS_FILE}", "w") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))
    inputs = (_inputs(suspect, examined, trained, records, name) for suspect in suspects[:SUSPECTS_SHOWN])
    maps = [anomaly_map(*of_suspect)[0] for of_suspect in inputs]
    buffer = io.BytesIO()
    np.save(buffer, np.stack(maps).astype(np.float32), allow_pickle=False)
    with tf.io.gfile.GFile(f"{folder}/{SUSPECT_MAPS_FILE}", "wb") as file:
        file.write(buffer.getvalue())


def calibrating_image(patterns: Mapping[str, str], row: int, *, and_train: bool) -> str:
    """The id of an image that the threshold was computed from: one held out or, before these, one that trains."""
    trained_on = count_records([patterns[features.TRAIN]]) if and_train else 0
    place = (features.TRAIN, row) if row < trained_on else (features.EVAL, row - trained_on)
    [(_, record)] = _records_at(patterns, [place])
    return text_of(features_of(record), features.IMAGE_ID)


def _line(suspect: Suspect, examined: Examined, record: bytes) -> dict[str, Any]:
    split, position = examined.places[suspect.index]
    example = features_of(record)
    return {
        "rank": suspect.rank,
        "of": suspect.of,
        "image_id": text_of(example, features.IMAGE_ID),
        "label": text_of(example, features.LABEL),
        "split": split,
        "position": position,
        "score": examined.score,
        "value": suspect.score,
        "p_value": suspect.p_value,
        "deviations": suspect.deviations,
        "unseen": examined.maps is not None,
    }


def _inputs(
    suspect: Suspect, examined: Examined, trained: Any, records: Mapping[Place, bytes], name: ScoreName
) -> tuple[tf.Tensor, Any]:
    """Pixels and outputs for the suspect's map: from a fit without the image, if the score needs no more than that."""
    [(pixels, outputs)] = _autoencoded(trained, [records[examined.places[suspect.index]]])
    if examined.maps is not None and suspect.index < len(examined.maps) and examined.score == name:
        outputs = {**outputs, FEATURE_ERROR: tf.constant(examined.maps[suspect.index : suspect.index + 1])}
    return pixels, outputs


def _scores_at(
    trained: Any, score: FittedScore | GroupedScore, patterns: Mapping[str, str], places: list[Place]
) -> npt.NDArray[np.float32]:
    compute = traced_once(score)
    parts, done = [np.empty(0, np.float32)], 0
    for pixels, outputs in _autoencoded(trained, (record for _, record in _records_at(patterns, places))):
        parts.append(compute(pixels, outputs).numpy())
        done += len(pixels)
        _LOG.info("training images examined", extra={"done": done, "total": len(places), "unit": "images"})
    return np.concatenate(parts)


def _autoencoded(trained: Any, records: Iterable[bytes]) -> Iterator[tuple[tf.Tensor, Any]]:
    """Batches of pixels [B, H, W, C] and the model's outputs for them."""
    remaining, at_a_time = iter(records), as_many_as_fit(trained.mean_image.shape)
    while batch := list(itertools.islice(remaining, at_a_time)):
        pixels = trained.decode_pixels(parse_encoded(batch))
        yield pixels, trained.autoencode(pixels)


def _records_at(patterns: Mapping[str, str], places: Iterable[Place]) -> Iterator[tuple[Place, bytes]]:
    """(place, serialized example) of each of these places, by split and position."""
    wanted: dict[str, set[int]] = {}
    for split, position in places:
        wanted.setdefault(split, set()).add(position)
    for split in sorted(wanted, key=features.SPLITS.index):
        for position, record in enumerate(each_record([patterns[split]])):
            if position in wanted[split]:
                yield (split, position), record
