"""ImageExampleGen: images of any source -> TFRecords of tf.Examples, split, counted and checked.

A Beam element is a shard, not an image: one worker reads a file range and writes its records directly.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, component_spec, standard_artifacts

from components.image_sources import DataError, Reject, Shard, SourceImage, SourcePlan, plan_source
from components.settings import DataSettings
from components.splits import split_of
from schema import features
from schema.artifacts import COUNTS_FILE, REJECTS_FILE

EXAMPLES_KEY = "examples"
_LOG = logging.getLogger(__name__)
_REJECTS_NAMED_IN_ERROR = 10


@dataclass
class ShardResult:
    """What one shard held."""

    counts: Counter[str] = field(default_factory=Counter)
    rejects: list[Reject] = field(default_factory=list)


class ImageExampleGenSpec(component_spec.ComponentSpec):
    PARAMETERS = {
        "settings": component_spec.ExecutionParameter(type=str),
        "data_fingerprint": component_spec.ExecutionParameter(type=str),
        "source_fingerprint": component_spec.ExecutionParameter(type=str),
    }
    INPUTS: dict[str, Any] = {}
    OUTPUTS = {EXAMPLES_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples)}


class ImageExampleGenExecutor(base_beam_executor.BaseBeamExecutor):
    """Writes `Split-<name>/data_tfrecord-*`, the counts, and the list of rejected files."""

    def Do(  # noqa: N802 - TFX's name
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        settings = DataSettings.model_validate_json(exec_properties["settings"])
        plan = plan_source(settings)
        examples = artifact_utils.get_single_instance(output_dict[EXAMPLES_KEY])
        for split in features.SPLITS:
            fileio.makedirs(_split_uri(examples.uri, split))
        with self._make_beam_pipeline() as pipeline:
            (
                pipeline
                | "ListShards" >> beam.Create(list(enumerate(plan.shards)))
                | "SpreadShards" >> beam.Reshuffle()
                | "WriteShards" >> beam.ParDo(_WriteShard(examples.uri, plan, settings))
                | "CombineResults" >> beam.CombineGlobally(_merge_results)
                | "WriteCounts" >> beam.Map(_write_result, uri=examples.uri)
            )
        _check_result(examples.uri, settings)
        examples.split_names = artifact_utils.encode_split_names(list(features.SPLITS))


class ImageExampleGen(base_beam_component.BaseBeamComponent):
    """Reads the images that `settings` names; see `components.image_sources` for the sources.

    Output `examples`: splits `train`, `eval` and `test` of tf.Examples with the features of `schema.features`.
    """

    SPEC_CLASS = ImageExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(ImageExampleGenExecutor)

    def __init__(self, *, settings: DataSettings, data_fingerprint: str, source_fingerprint: str) -> None:
        super().__init__(
            spec=ImageExampleGenSpec(
                settings=settings.model_dump_json(),
                data_fingerprint=data_fingerprint,
                source_fingerprint=source_fingerprint,
                examples=types.Channel(type=standard_artifacts.Examples),
            )
        )


def _split_uri(uri: str, split: str) -> str:
    return os.path.join(uri, f"Split-{split}")  # noqa: PTH118 - may be remote


def read_counts(examples_uri: str) -> dict[str, int]:
    """Images per split, and `rejected`."""
    with fileio.open(os.path.join(examples_uri, COUNTS_FILE)) as file:  # noqa: PTH118
        counts: dict[str, int] = json.loads(file.read())
    return counts


def to_example(image: SourceImage) -> tf.train.Example:
    """One image as the tf.Example that `schema/schema.pbtxt` describes."""
    stored = image.stored
    values: dict[str, tf.train.Feature] = {
        features.IMAGE: _bytes(stored.encoded),
        features.IMAGE_ID: _bytes(image.image_id.encode()),
        features.LABEL: _bytes(os.fsencode(image.label)),
        features.HEIGHT_PX: _int(stored.height_px),
        features.WIDTH_PX: _int(stored.width_px),
        features.CHANNELS: _int(stored.channels),
        features.MEAN_INTENSITY: _float(stored.mean_intensity),
        features.CONTRAST: _float(stored.contrast),
    }
    if image.is_anomaly is not None:
        values[features.IS_ANOMALY] = _int(image.is_anomaly)
    return tf.train.Example(features=tf.train.Features(feature=values))


class _WriteShard(beam.DoFn):
    """Writes the images of one shard, a file per split; the file takes its name only when it is whole."""

    def __init__(self, examples_uri: str, plan: SourcePlan, settings: DataSettings) -> None:
        self._examples_uri = examples_uri
        self._shard_count = len(plan.shards)
        self._image_count = plan.image_count
        self._has_named_eval = plan.has_named_eval
        self._settings = settings
        self._done = 0

    def process(self, element: tuple[int, Shard]) -> Iterable[ShardResult]:
        index, shard = element
        result = ShardResult()
        writers: dict[str, tuple[str, Any]] = {}
        for image in shard.read():
            if isinstance(image, Reject):
                _LOG.warning("rejected %s: %s", image.image_id, image.reason)
                result.rejects.append(image)
                continue
            image = self._with_normality(image)
            split = split_of(
                image.image_id,
                named_split=image.named_split,
                has_named_eval=self._has_named_eval,
                is_anomaly=image.is_anomaly,
                settings=self._settings,
            )
            if split not in writers:
                writers[split] = self._open(split, index)
            writers[split][1].write(to_example(image).SerializeToString())
            result.counts[split] += 1
            self._report(image_count=1)
        for path, writer in writers.values():
            writer.close()
            fileio.rename(path, path.removesuffix(".part"), overwrite=True)
        yield result

    def _open(self, split: str, index: int) -> tuple[str, Any]:
        name = f"data_tfrecord-{index:05d}-of-{self._shard_count:05d}.part"
        path = os.path.join(_split_uri(self._examples_uri, split), name)  # noqa: PTH118
        return path, tf.io.TFRecordWriter(path)

    def _with_normality(self, image: SourceImage) -> SourceImage:
        normal = self._settings.normal_labels
        if not normal:
            return image
        return SourceImage(**{**image.__dict__, "is_anomaly": int(image.label not in normal)})

    def _report(self, image_count: int) -> None:
        self._done += image_count
        if self._done % 1000 == 0:
            _LOG.info("images written", extra={"done": self._done, "total": self._image_count, "unit": "images"})


def _merge_results(results: Iterable[ShardResult]) -> ShardResult:
    merged = ShardResult()
    for result in results:
        merged.counts += result.counts
        merged.rejects += result.rejects
    return merged


def _write_result(result: ShardResult, uri: str) -> None:
    counts = {split: result.counts[split] for split in features.SPLITS}
    with fileio.open(os.path.join(uri, REJECTS_FILE), "w") as file:  # noqa: PTH118
        for reject in sorted(result.rejects, key=lambda r: r.image_id):
            file.write(json.dumps(asdict(reject)) + "\n")
    with fileio.open(os.path.join(uri, COUNTS_FILE), "w") as file:  # noqa: PTH118
        file.write(json.dumps({**counts, "rejected": len(result.rejects)}))


def _check_result(uri: str, settings: DataSettings) -> None:
    counts = read_counts(uri)
    rejected = counts.pop("rejected")
    total = rejected + sum(counts.values())
    if rejected > settings.max_reject_fraction * total:
        with fileio.open(os.path.join(uri, REJECTS_FILE)) as file:  # noqa: PTH118
            rejects = [json.loads(line) for line in file.read().splitlines()]
        named = "\n".join(f"  {r['image_id']}: {r['reason']}" for r in rejects[:_REJECTS_NAMED_IN_ERROR])
        raise DataError(
            f"{rejected:,} of {total:,} images cannot be read, more than data.max_reject_fraction "
            f"{settings.max_reject_fraction:.0%}; mend or remove them, or raise the limit:\n{named}"
        )
    empty = [split for split in features.SPLITS if not counts[split]]
    if empty:
        raise DataError(
            f"no images in split {', '.join(map(repr, empty))} ({counts}): add images, or raise data.eval_fraction "
            "or data.test_fraction; with data.normal_labels, check that these labels exist"
        )


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _int(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def _float(value: float) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
