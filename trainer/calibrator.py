"""Calibrator: a TFX component that adds the anomaly score, its threshold and the signatures to a trained model.

It is separate from the Trainer so that changing the score or the false-alarm rate does not retrain the model.
"""

import itertools
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import path_utils

from images.region_of_interest import Inside, region_of_interest
from images.regions import Placement, find_regions
from images.synthetic_defects import mean_over_kinds
from runtime.tfrecords import as_many_as_fit, count_records, files_of, read_counts, require_count, spread_records
from runtime.traced_once import traced_once
from schema import features
from schema.artifact_types import Artifacts, Calibration
from schema.artifacts import CALIBRATION_FILE
from schema.calibration_record import CalibrationRecord, GroupRecord
from schema.component_specs import Spec, channels, texts
from schema.signatures import FEATURE_ERROR, LATENT
from schema.usual_sizes import UsualSizes
from trainer.data.dataset import parse_encoded
from trainer.export.map_summaries import MOST, write_map_summaries
from trainer.export.signatures import ServedModel, export_served
from trainer.export.trained_model import read_record, unseen_maps_of, write_record
from trainer.scoring.calibration import images_needed, limits_of, rests_on_few_images, thinned
from trainer.scoring.choice import CHOSEN_ON, PREFERENCE, choose
from trainer.scoring.cross_fitting import OF_MAPS, cross_fitted_scores, inputs_of_maps
from trainer.scoring.error_maps import Tensors
from trainer.scoring.groups import GroupedScore, Groups, limits_in_units, map_units, records_of
from trainer.scoring.learners import require_finite
from trainer.scoring.scores import FittedScore, computable, fit_score, fit_scores
from trainer.settings.calibration import FEW_IMAGES, CalibrationSettings, GroupColumn, ScoreName
from trainer.settings.image import ImageSettings
from trainer.suspect_files import calibrating_image, examine, write_suspects

_FIT_IMAGES = 4096
_FIT_TO_COMPARE = 256
"""Training images that scores are fitted to for the comparison; the one that is chosen is fitted to `_FIT_IMAGES`."""
_FEW_TO_COMPARE_ON = 20
"""Held-out images on which differences between scores are mostly chance."""
_LARGEST_IGNORED_PERCENT = 0.1
_SMALLEST = 1e-12
_RECORDED_SCORES = 10_000
_NAMED = 5
_MEASURED = 4096
"""Images whose sizes are recorded, at most."""
_LOG = logging.getLogger(__name__)

Size = tuple[int, int]
"""Height and width of an image in pixels."""


class CalibratorSpec(Spec):
    PARAMETERS = texts("settings", "source_fingerprint")
    INPUTS = channels(examples=standard_artifacts.Examples, trained_model=standard_artifacts.Model)
    OUTPUTS = channels(model=standard_artifacts.Model, calibration=Calibration)


class CalibratorExecutor(base_executor.BaseExecutor):
    """Fits the score to training images, computes the threshold from images left out, and exports the model."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:  # noqa: N802
        """Raises ScoreError if the model does not support the score or it is not finite."""
        settings = CalibrationSettings.model_validate_json(exec_properties["settings"])
        trained_folder = path_utils.serving_model_dir(artifact_utils.get_single_uri(input_dict["trained_model"]))
        train, held_out = (_files(input_dict["examples"], split) for split in (features.TRAIN, features.EVAL))
        trained, record = tf.saved_model.load(trained_folder), read_record(trained_folder)
        cross_fitted = bool(record.get("cross_fitted"))
        unseen_maps = unseen_maps_of(trained)
        compared_on = 0 if cross_fitted else count_records([held_out])
        if settings.score == "auto" and unseen_maps is not None and compared_on < _FEW_TO_COMPARE_ON:
            settings = settings.model_copy(update={"score": OF_MAPS[0]})
            _LOG.info(
                "evaluation.score auto: it compares scores on images that do not train; %d are too few, so it means %s",
                *(compared_on, settings.score),
                extra={"notice": True},
            )
        groups = _fit_groups(trained, train, settings.groups) if settings.groups else None
        name, auroc_by_score, compared = _chosen(
            trained, settings, train, held_out, partial(region_of_interest, record["image"]), groups
        )
        patterns = {features.TRAIN: train, features.EVAL: held_out}
        score: FittedScore | GroupedScore
        score = ungrouped = fit_score(
            name, settings, lambda: _autoencoded(trained, spread_records([train], _FIT_IMAGES)), unseen_maps
        )
        method = _method(name, unseen_maps, train, cross_fitted=cross_fitted)
        found, of_unseen = [], 0
        if method != "split":
            of_unseen = int(unseen_maps.shape[0])
            found.append(cross_fitted_scores(name, settings, unseen_maps, tuple(trained.mean_image.shape)))
        if method != "cross":
            found.append(_scores_of(trained, ungrouped, held_out, count_records([held_out])))
        scores, peaks = np.concatenate(found, axis=1)
        require_finite(scores, name)
        require_finite(peaks, name)

        calibrating = [held_out] if method == "split" else [train, held_out]
        limits, records = limits_of(settings, scores, peaks), tuple[GroupRecord, ...]()
        group, units = np.zeros(len(scores), np.int64), np.ones(len(scores), np.float32)
        of_images = scores
        if groups is not None:
            group = _groups_of(trained, groups, calibrating)
            records = records_of(groups.names, group, scores, peaks, settings)
            score, limits = GroupedScore(ungrouped, groups, records), limits_in_units(records)
            scores = score.in_units(scores, group).numpy()
            units = np.array(map_units(records), np.float32)[group]

        def maps_of(rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.float32]]:
            unseen = (
                inputs_of_maps(unseen_maps[row : row + 1], trained.mean_image.shape) for row in rows[rows < of_unseen]
            )
            seen = _autoencoded(trained, _records_of(held_out, rows[rows >= of_unseen] - of_unseen))
            divisors = iter(units[rows])
            for batch in itertools.chain(unseen, seen):
                maps = ungrouped.anomaly_map(*batch).numpy()
                yield np.stack([one / next(divisors) for one in maps])

        is_padded = record["image"].get("fit") == "pad"
        calibration = CalibrationRecord(
            score=name,
            **asdict(limits),
            images=len(scores),
            method=method,
            scores=thinned(np.sort(scores), _RECORDED_SCORES),
            auroc_by_score=auroc_by_score,
            map_of=score.map_of,
            smallest_region_percent=_smallest_region_percent(
                *(settings, peaks / units, limits.pixel_threshold, maps_of),
                padded_sizes=partial(_sizes_of, calibrating) if is_padded else None,
            ),
            groups=records,
            source_fingerprint=exec_properties["source_fingerprint"],
        )
        _explain(calibration, settings.false_alarm_rate)
        _name_images_that_decide(calibration, of_images, group, patterns)

        folder = path_utils.serving_model_dir(artifact_utils.get_single_uri(output_dict["model"]))
        counts = read_counts(artifact_utils.get_single_uri(input_dict["examples"]))
        model = ServedModel(
            trained,
            latent_dim=record["latent_dim"],
            image=ImageSettings.model_validate(record["image"]),
            score=score,
            calibration=calibration,
            held_out_scores=[np.sort(scores[group == number]) for number in range(group.max() + 1)],
            test_images=counts.get(features.TEST, 0),
            compared_scores=compared,
        )
        some = parse_encoded(list(tf.data.TFRecordDataset(files_of([held_out])).take(MOST)))
        export_served(model, folder, warmup_image=some[0].numpy())
        if cross_fitted:
            counts |= {features.TRAIN: counts[features.TRAIN] + counts[features.EVAL], features.EVAL: 0}
        record |= {"images": counts, "calibration": calibration.to_json()}
        if sizes := _sizes_in([train, held_out]):
            record["sizes"] = asdict(UsualSizes.of(sizes))
        write_record(folder, record)
        artifact = artifact_utils.get_single_instance(output_dict["calibration"])
        _write_calibration(artifact, calibration)
        write_map_summaries(f"{artifact.uri}/tensorboard", model, some)
        examined = examine(trained, name, score, settings, patterns, unseen_maps=unseen_maps, cross_fitted=cross_fitted)
        write_suspects(artifact.uri, examined, trained, patterns, name=name, anomaly_map=model.anomaly_map)


class Calibrator(base_component.BaseComponent):
    """Outputs `model`, the SavedModel to serve, and `calibration`: the calibration record, and the suspects."""

    SPEC_CLASS = CalibratorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(CalibratorExecutor)

    def __init__(
        self,
        *,
        examples: types.BaseChannel,
        model: types.BaseChannel,
        settings: CalibrationSettings,
        source_fingerprint: str,
    ) -> None:
        super().__init__(
            spec=CalibratorSpec(
                examples=examples,
                trained_model=model,
                settings=settings.model_dump_json(include=set(CalibrationSettings.model_fields)),
                source_fingerprint=source_fingerprint,
            )
        )


def _files(examples: list[types.Artifact], split: str) -> str:
    return f"{artifact_utils.get_split_uri(examples, split)}/*"


def _sizes_in(patterns: list[str]) -> list[Size]:
    """Each image's size in these splits, or of a sample; records without a size are left out."""
    return [size for size in _sizes_of_records(spread_records(patterns, _MEASURED)) if all(size)]


def _sizes_of(patterns: list[str]) -> list[Size]:
    """The size of every image of these splits, in file order; (0, 0) where it is unknown."""
    return [size for pattern in patterns for size in _sizes_of_records(tf.data.TFRecordDataset(files_of([pattern])))]


def _sizes_of_records(records: tf.data.Dataset) -> Iterator[Size]:
    spec = {name: tf.io.FixedLenFeature([], tf.int64, 0) for name in (features.HEIGHT_PX, features.WIDTH_PX)}
    for batch in records.batch(64):
        known = tf.io.parse_example(batch, spec)
        yield from zip(*(known[name].numpy().tolist() for name in spec), strict=True)


def _autoencoded(trained: Any, records: tf.data.Dataset) -> Iterator[tuple[tf.Tensor, Tensors]]:
    """Batches of pixels [B, H, W, C] and the model's outputs for them."""
    at_a_time = as_many_as_fit(trained.mean_image.shape)
    for encoded in records.batch(at_a_time).map(parse_encoded).prefetch(2):
        pixels = trained.decode_pixels(encoded)
        yield pixels, trained.autoencode(pixels)


def _fit_groups(trained: Any, train: str, by: GroupColumn) -> Groups:
    """The groups of `evaluation.groups`, by the latents of training images and what this feature of them says."""
    records = spread_records([train], _FIT_IMAGES)
    latents = [outputs[LATENT].numpy() for _, outputs in _autoencoded(trained, records)]
    text = {by: tf.io.FixedLenFeature([], tf.string, "")}
    found = [tf.io.parse_example(record, text)[by].numpy() for record in records]
    return Groups(np.concatenate(latents), [name.decode("utf-8", "replace") for name in found], by=by)


def _groups_of(trained: Any, groups: Groups, patterns: Sequence[str]) -> npt.NDArray[np.int64]:
    """The number [n] of each image's group, for all images of the splits in file order."""
    records = tf.data.TFRecordDataset(files_of(patterns[:1]))
    for pattern in patterns[1:]:
        records = records.concatenate(tf.data.TFRecordDataset(files_of([pattern])))
    numbers = [groups(outputs[LATENT]).numpy() for _, outputs in _autoencoded(trained, records)]
    return np.concatenate(numbers).astype(np.int64)


def _chosen(
    trained: Any,
    settings: CalibrationSettings,
    train: str,
    held_out: str,
    inside_of: Callable[[npt.NDArray[np.float32]], Inside | None],
    groups: Groups | None,
) -> tuple[ScoreName, dict[str, dict[str, float]], dict[ScoreName, FittedScore]]:
    """(the score's name, the AUROC of each score by kind of defect, all scores); the last two are empty without `auto`.

    `train` and `held_out` are patterns of files.
    """
    if settings.score != "auto":
        return settings.score, {}, {}

    def held_out_sample() -> Iterator[tuple[tf.Tensor, Tensors]]:
        return _autoencoded(trained, spread_records([held_out], CHOSEN_ON))

    pixels, outputs = next(held_out_sample())
    # A family with an error map of its own reconstructs pixels only to be looked at.
    eligible = [name for name in PREFERENCE if FEATURE_ERROR not in outputs or name in OF_MAPS]
    names = computable(eligible, pixels, outputs)
    fitted = fit_scores(
        names,
        settings,
        lambda: _autoencoded(trained, spread_records([train], _FIT_TO_COMPARE)),
        unseen_maps_of(trained),
    )
    compared = {name: FittedScore(name, settings, fitted[name]) for name in names}
    choice = choose(
        compared,
        held_out_sample,
        trained.autoencode,
        inside_of,
        None if groups is None else lambda outputs: groups(outputs[LATENT]),
    )
    means = {name: mean_over_kinds(of_kind) for name, of_kind in choice.auroc.items()}
    _LOG.info(
        "evaluation.score auto: chose %s (AUROC %.3f for faint synthetic defects; best: %.3f)",
        choice.score, means[choice.score], max(means.values()),
    )  # fmt: skip
    return choice.score, choice.auroc, compared


def _explain(calibration: CalibrationRecord, wanted_rate: float) -> None:
    """Log what is unusual about the calibration, on the terminal too."""
    if calibration.method == "cross":
        _LOG.info(
            "with fewer than %d images, all %d train, and each calibrates through a fit without it (cross-conformal)",
            *(FEW_IMAGES, calibration.images),
            extra={"notice": True},
        )
    for group in calibration.groups:
        _LOG.info(
            "group %r: %d images to calibrate with, threshold %.4g, false-alarm rate %.3g",
            *(group.name, group.images, group.threshold, group.false_alarm_rate),
            extra={"notice": True},
        )
    smallest = min(calibration.groups, key=lambda group: group.images, default=None)
    images, of_what = (smallest.images, f" of group {smallest.name!r}") if smallest else (calibration.images, "")
    if calibration.false_alarm_rate > wanted_rate:
        _LOG.warning(
            "evaluation.false_alarm_rate %g needs %d normal images to calibrate with, but there are %d%s, so the "
            "rate is %.3g; add images, raise data.eval_fraction, or accept a higher rate",
            *(wanted_rate, images_needed(wanted_rate), images, of_what, calibration.false_alarm_rate),
            extra={"notice": True},
        )
    if calibration.map_of != calibration.score:
        _LOG.info(
            "evaluation.score %s looks at the whole image and has no map, so the anomaly map is the error map",
            calibration.score,
            extra={"notice": True},
        )


def _name_images_that_decide(
    calibration: CalibrationRecord,
    scores: npt.NDArray[np.float32],
    group: npt.NDArray[np.int64],
    patterns: Mapping[str, str],
) -> None:
    """Log which images determine a threshold, if they are few; `scores` and groups [n] in file order."""
    each: Sequence[GroupRecord | CalibrationRecord] = calibration.groups or (calibration,)
    for number, limits in enumerate(each):
        rows = np.flatnonzero(group == number)
        few = rests_on_few_images(scores[rows], limits.false_alarm_rate)
        if few is None:
            continue
        strangest, without = few
        and_train = calibration.method != "split"
        named = [calibrating_image(patterns, int(row), and_train=and_train) for row in rows[strangest[:_NAMED]]]
        more = f" and {len(strangest) - _NAMED} more" if len(strangest) > _NAMED else ""
        of_group = f" of group {limits.name!r}" if isinstance(limits, GroupRecord) else ""
        rests_on, them = ("the score of a single image", "it")
        if len(strangest) > 1:
            rests_on, them = f"the scores of {len(strangest)} images far above all others", "them"
        _LOG.warning(
            "the threshold%s, %.4g, rests on %s: %s%s; without %s, it would be about %.4g. If defective or out of "
            "place, name %s in data.exclude; if not, add more images like %s",
            *(of_group, limits.threshold, rests_on, ", ".join(named), more, them, without, them, them),
            extra={"notice": True},
        )


def _method(name: ScoreName, unseen_maps: tf.Tensor | None, train: str, *, cross_fitted: bool) -> str:
    """Which images the threshold is computed from; see `CalibrationRecord.method`.

    Those that train can only be used if there is an error map of each by a fit without it.
    """
    if cross_fitted:
        return "cross"
    has_all = unseen_maps is not None and unseen_maps.shape[0] == count_records([train])
    return "pooled" if has_all and name in OF_MAPS else "split"


def _scores_of(
    trained: Any, score: FittedScore, pattern: str, count: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(score [n], largest value of its map [n]) of every image of a split."""
    compute = traced_once(lambda *image: (score(*image), tf.reduce_max(score.anomaly_map(*image), axis=[1, 2])))
    scores, peaks = np.empty((2, count), np.float32)
    done = 0
    for pixels, outputs in _autoencoded(trained, tf.data.TFRecordDataset(files_of([pattern]))):
        rows = slice(done, done + len(pixels))
        scores[rows], peaks[rows] = (values.numpy() for values in compute(pixels, outputs))
        done += len(pixels)
        _LOG.info("images scored", extra={"done": done, "total": count, "unit": "images"})
    require_count(done, count, [pattern])
    return scores, peaks


def _records_of(pattern: str, rows: npt.NDArray[np.int64]) -> tf.data.Dataset:
    """The records of these rows of a split, in file order."""
    chosen = tf.constant(rows, tf.int64)
    records = tf.data.TFRecordDataset(files_of([pattern])).enumerate()
    return records.filter(lambda row, _: tf.reduce_any(row == chosen)).map(lambda _, record: record)


def _smallest_region_percent(
    settings: CalibrationSettings,
    peaks: npt.NDArray[np.float32],
    threshold: float,
    maps_of: Callable[[npt.NDArray[np.int64]], Iterable[npt.NDArray[np.float32]]],
    *,
    padded_sizes: Callable[[], Sequence[Size]] | None = None,
) -> float:
    """What is set, or the median of the regions that normal images show, from the largest value [n] of each map.

    `maps_of`: rows of images -> batches of their maps [B, H, W]. `padded_sizes`: the sizes [n] of images that lie
    between bars, which are no part of them; None if images fill their maps.
    """
    if settings.smallest_region_percent is not None:
        return settings.smallest_region_percent
    rows = np.flatnonzero(peaks > threshold)
    sizes = padded_sizes() if padded_sizes and len(rows) else None
    maps = (one / max(threshold, _SMALLEST) for batch in maps_of(rows) for one in batch)
    areas = [
        region.area_percent
        for row, one in zip(rows, maps, strict=True)
        for region in find_regions(one, _placement(sizes[int(row)] if sizes else (0, 0), one.shape))[0]
    ]
    return min(float(np.median(areas)), _LARGEST_IGNORED_PERCENT) if areas else 0.0


def _placement(padded: Size, shape: Sequence[int]) -> Placement:
    """Where a `padded` image lies on its map; without a size, it fills the map."""
    is_padded = all(padded)
    return Placement.on_map(padded if is_padded else (shape[0], shape[1]), shape, is_padded=is_padded)


def _write_calibration(artifact: types.Artifact, calibration: CalibrationRecord) -> None:
    artifact.set_float_custom_property("threshold", calibration.threshold)
    artifact.set_float_custom_property("false_alarm_rate", calibration.false_alarm_rate)
    artifact.set_int_custom_property("images", calibration.images)
    with tf.io.gfile.GFile(f"{artifact.uri}/{CALIBRATION_FILE}", "w") as file:
        file.write(json.dumps(calibration.to_json(), indent=2))
