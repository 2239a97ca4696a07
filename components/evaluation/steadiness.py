"""How steady the verdict on normal images is under harmless changes, and whether defects are still found then."""

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from components.evaluation.synthetic_auroc import count_known, most_images, normal_records
from images.harmless_changes import STEADINESS, change_picture
from images.levels import EIGHT_BIT_LEVELS, Levels
from images.region_of_interest import Inside
from images.regions import Placement
from images.synthetic_defects import KINDS, paint
from runtime.tfrecords import as_many_as_fit, features_of
from runtime.traced_once import traced_once
from schema.features import EVAL, HEIGHT_PX, TEST, UNKNOWN, WIDTH_PX
from schema.signatures import IMAGE_BYTES, IS_ANOMALY, SCORE

AT_MOST: Final = 64
"""Normal images that are changed; every second one also with a defect."""
ENOUGH: Final = 20
"""So many normal test images are enough; with fewer, held-out images may serve."""
UNCHANGED: Final = "unchanged"
_SEED: Final = 22
_BATCH: Final = 32
_MOVING: Final = ("shift_1", "rotation_1")
"""Changes that move the part, and with it its region of interest, if each image has its own."""

_LOG = logging.getLogger(__name__)

Pixels = npt.NDArray[Any]
Verdicts = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]
"""Score and whether it is an alarm of each image [N]."""
Steadiness = dict[str, dict[str, float]]
"""Change, first `unchanged` -> `alarms`, `recall` and, unless a score is not finite, `auroc`."""


def images_to_change(image: Mapping[str, Any], test: str, held_out: str | None) -> tuple[str, list[bytes]]:
    """(split, records) of normal test images, or of held-out ones if there are more of these and too few to test.

    `image` is the section of the model's record; `test` and `held_out` are the splits' folders. `held_out` is None if
    the model was trained on these images, too.
    """
    at_most = most_images(image["height_px"], image["width_px"], at_most=AT_MOST)
    found = _normal_records(test, at_most)
    if len(found) < ENOUGH and held_out is not None and len(others := _normal_records(held_out, at_most)) > len(found):
        return EVAL, others
    return TEST, found


def measure_steadiness(
    signature: Any,
    images: Pixels,
    pictures: Sequence[Placement],
    levels: Levels = EIGHT_BIT_LEVELS,
    inside: Inside | None = None,
) -> Steadiness:
    """A model's verdicts, by its signature for encoded images, on images [N, H, W, C] whose pictures are changed.

    Every change is measured without and with a defect, which is painted before the change. `alarms` is the share of the
    images that raise an alarm, `recall` the share of those with a defect that do, and `auroc` how well the score
    separates the two, all after the same change.
    """
    if not len(images):
        return {}
    judge = _judge_of(signature, levels, as_many_as_fit(images.shape[1:], at_most=_BATCH))
    some = None if inside is None else inside[::2]
    defective = _one_defect_each(images[::2], some)
    found = {}
    for number, name in enumerate((UNCHANGED, *STEADINESS)):
        moved, some_moved = (_moved(regions, name) for regions in (inside, some))
        normal = judge(_changed(images, pictures, name, number), moved)
        anomalous = judge(_changed(defective, pictures[::2], name, number), some_moved)
        found[name] = {"alarms": float(normal[1].mean()), "recall": float(anomalous[1].mean())}
        scores = np.concatenate([normal[0], anomalous[0]])
        if np.isfinite(scores).all():
            is_defective = np.repeat([0, 1], [len(images), len(defective)])
            found[name]["auroc"] = float(roc_auc_score(is_defective, scores))
        _LOG.info("steadiness", extra={"done": number, "total": len(STEADINESS), "unit": "harmless changes"})
    return found


def pictures_of(records: Sequence[bytes], *, height_px: int, width_px: int, fit: str) -> list[Placement]:
    """Where each record's picture lies in the model's frame: with `pad` between bars, which no camera changes."""
    sizes = [
        (feature[HEIGHT_PX].int64_list.value[0], feature[WIDTH_PX].int64_list.value[0])
        for feature in map(features_of, records)
    ]
    return [Placement.on_map(size, (height_px, width_px), is_padded=fit == "pad") for size in sizes]


def _normal_records(folder: str, at_most: int) -> list[bytes]:
    known = count_known(folder)
    return normal_records(folder, known[0] + known[UNKNOWN], at_most=at_most)


def _one_defect_each(images: Pixels, inside: Inside | None) -> Pixels:
    """The kinds of defect in turn, in the region `inside` [N, H, W]."""
    defective = np.empty_like(images)
    for number, kind in enumerate(KINDS):
        own = slice(number, None, len(KINDS))
        defective[own] = paint(images[own], kind, seed=_SEED, inside=None if inside is None else inside[own])
    return defective


def _moved(inside: Inside | None, name: str) -> Inside | None:
    """Each image's own region [N, H, W] after the change, which may move its part."""
    if inside is None or name not in _MOVING:
        return inside
    random = np.random.default_rng(_SEED)
    return np.stack([STEADINESS[name](own * np.uint8(255), random) > 127 for own in inside])


def _changed(images: Pixels, pictures: Sequence[Placement], name: str, number: int) -> Iterator[Pixels]:
    """Each image [H, W, C] with its picture changed."""
    for row, (image, picture) in enumerate(zip(images, pictures, strict=True)):
        random = np.random.default_rng([_SEED, number, row])
        yield image if name == UNCHANGED else change_picture(name, image, random, picture=picture)


def _judge_of(signature: Any, levels: Levels, at_a_time: int) -> Callable[[Iterator[Pixels], Inside | None], Verdicts]:
    """The signature's verdicts on images of one size and their regions [N, H, W], as files of these levels."""

    # A function of its own, of which TensorFlow leaves out what is not needed.
    @traced_once
    def outputs_of(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = signature(**{IMAGE_BYTES: batch})
        return outputs[SCORE], outputs[IS_ANOMALY]

    def judge(images: Iterator[Pixels], inside: Inside | None) -> Verdicts:
        parts, first = [], 0
        while some := list(itertools.islice(images, at_a_time)):
            own = None if inside is None else inside[first : first + len(some)]
            parts.append(outputs_of(tf.constant(levels.files(np.stack(some), own))))
            first += len(some)
        scores, alarms = (np.concatenate([values.numpy() for values in column]) for column in zip(*parts, strict=True))
        return scores.astype(np.float64), alarms.astype(bool) | ~np.isfinite(scores)

    return judge
