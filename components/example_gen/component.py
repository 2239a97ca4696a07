"""ImageExampleGen: converts the images of any source to TFRecords of tf.Examples, split, counted and checked.

A Beam element is a shard, not an image: one worker reads a range of files and writes its records directly. The digests
of all images are then compared, one bucket at a time, and test files with duplicates of other splits are rewritten.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import apache_beam as beam
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts

from components.example_gen.duplicates import Duplicate, WrittenImage, find_duplicates, write_segments
from components.example_gen.example_bytes import serialize
from components.example_gen.splits import split_of, split_of_reviewed
from components.settings import CHANGE_NO_EXAMPLE, DataSettings
from components.sources.exclusion import require_all_found
from components.sources.files import DataError
from components.sources.plan import Reject, Shard, SourceImage, SourcePlan
from components.sources.registry import planned_source, require_unchanged
from images.formats import file_id
from images.levels import few_levels
from images.reading import EIGHT_BITS, Reading, reading_of
from images.values import VALUES_START
from runtime.tfrecords import features_of, read_counts, text_of
from schema import features
from schema.artifact_types import Artifacts
from schema.artifacts import COUNTS_FILE, REJECTS_FILE, USED_BITS
from schema.component_specs import Spec, channels, texts
from schema.reviewed import REPLACED, REVIEWED, REVIEWED_PREFIX

EXAMPLES_KEY = "examples"
_LOG = logging.getLogger(__name__)
_REJECTS_NAMED_IN_ERROR = 10
_DUPLICATE_OF = "duplicate of "
_DIGESTS = "digests"
_LEFT_OUT = "left_out"
_EXCLUDED = "excluded"
_EXCLUDED_BY = "excluded by data.exclude"
_PAGES_DROPPED = "pages_dropped"
_BLURRED_MASKS = "blurred_masks"
_WITH_REGION = "with_region"
_WITH_VALUES = "with_values"


@dataclass
class ShardResult:
    """Counts, rejects, duplicates and excluded images of one or more shards."""

    counts: Counter[str] = field(default_factory=Counter)
    rejects: list[Reject] = field(default_factory=list)
    duplicates: list[Reject] = field(default_factory=list)
    excluded: list[Reject] = field(default_factory=list)
    used_bits: int = 0
    """Bits of the largest value in files of 16 bits, or 0."""


class _ReadingOptions(PipelineOptions):
    """Beam's options with `data.workers`, which must not be part of the cache key: the examples do not depend on it."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument("--image_workers", type=int)


class ImageExampleGenSpec(Spec):
    PARAMETERS = texts("settings", "reading", "data_fingerprint", "source_fingerprint")
    OUTPUTS = channels(examples=standard_artifacts.Examples)


class ImageExampleGenExecutor(base_beam_executor.BaseBeamExecutor):
    """Writes `Split-<name>/data_tfrecord-*`, the counts, and the list of rejects."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:  # noqa: N802
        workers = PipelineOptions(self._beam_pipeline_args).view_as(_ReadingOptions).image_workers
        settings = DataSettings.model_validate_json(exec_properties["settings"]).model_copy(update={"workers": workers})
        reading = Reading.model_validate_json(exec_properties["reading"])
        plan = planned_source(settings, exec_properties["data_fingerprint"], reading)
        examples = artifact_utils.get_single_instance(output_dict[EXAMPLES_KEY])
        for folder in (*(_split_uri(examples.uri, split) for split in features.SPLITS), _digests_uri(examples.uri)):
            fileio.makedirs(folder)
        shards = [*plan.shards, *(plan.reviewed.shards if plan.reviewed else ())]
        with self._make_beam_pipeline() as pipeline:
            written = (
                pipeline
                | "ListShards" >> beam.Create(list(enumerate(shards)))  # which also spreads them over the workers
                | "WriteShards"
                >> beam.ParDo(_WriteShard(examples.uri, plan, settings, shard_count=len(shards))).with_outputs(
                    _DIGESTS, main="results"
                )
            )
            removed = _remove_duplicates(written[_DIGESTS], examples.uri, len(shards))
            (
                (written["results"], removed)
                | "JoinResults" >> beam.Flatten()
                | "CombineResults" >> beam.CombineGlobally(_merge_results).without_defaults()
                | "WriteCounts" >> beam.Map(_write_result, uri=examples.uri)
            )
        fileio.rmtree(_digests_uri(examples.uri))
        require_unchanged(plan)
        excluded = [reject["image_id"] for reject in _read_rejects(examples.uri) if reject["reason"] == _EXCLUDED_BY]
        found = {*excluded, *map(file_id, excluded)}
        require_all_found(plan.excluded - found, settings.exclude)
        _check_result(examples.uri, settings, reading)
        examples.split_names = artifact_utils.encode_split_names(list(features.SPLITS))


class ImageExampleGen(base_beam_component.BaseBeamComponent):
    """Reads the images that `settings` name; see `components.sources.registry` for the sources.

    `data_fingerprint` identifies the files, as `plan_source` found them; the component fails if they differ when read.
    Output `examples`: splits `train`, `eval` and `test` of tf.Examples with the features of `schema.features`.
    """

    SPEC_CLASS = ImageExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(ImageExampleGenExecutor)

    def __init__(
        self,
        *,
        settings: DataSettings,
        data_fingerprint: str,
        source_fingerprint: str,
        reading: Reading = EIGHT_BITS,
    ) -> None:
        super().__init__(
            spec=ImageExampleGenSpec(
                settings=settings.model_dump_json(exclude=set(CHANGE_NO_EXAMPLE)),
                reading=reading_of(reading).model_dump_json(),
                data_fingerprint=data_fingerprint,
                source_fingerprint=source_fingerprint,
            )
        )
        if settings.workers is not None:
            self.with_beam_pipeline_args([f"--image_workers={settings.workers}"])


def _pixel_digests(reviewed: SourcePlan) -> frozenset[bytes]:
    """Identify the reviewed images among the others, whatever their names, formats and places."""
    images = (image for shard in reviewed.shards for image in shard.read() if isinstance(image, SourceImage))
    return frozenset(image.stored.pixel_digest for image in images)


def _split_uri(uri: str, split: str) -> str:
    return os.path.join(uri, f"Split-{split}")  # noqa: PTH118 - may be remote


def _digests_uri(uri: str) -> str:
    return os.path.join(uri, _DIGESTS)  # noqa: PTH118 - may be remote


def _shard_path(uri: str, split: str, index: int, shard_count: int) -> str:
    return os.path.join(_split_uri(uri, split), f"data_tfrecord-{index:05d}-of-{shard_count:05d}")  # noqa: PTH118


class _WriteShard(beam.DoFn):
    """Writes the images of one shard, a file per split; a file gets its final name when it is complete."""

    def __init__(self, examples_uri: str, plan: SourcePlan, settings: DataSettings, *, shard_count: int) -> None:
        self._examples_uri = examples_uri
        self._shard_count = shard_count
        self._image_count = plan.image_count + (plan.reviewed.image_count if plan.reviewed else 0)
        self._has_named_eval = plan.has_named_eval
        self._excluded = plan.excluded
        self._reviewed = _pixel_digests(plan.reviewed) if plan.reviewed else frozenset()
        self._settings = settings
        self._done = 0

    def process(self, element: tuple[int, Shard]) -> Iterator[Any]:
        """Yields a ShardResult, and to the output `digests` a (bucket, Segment) for each bucket of digests."""
        index, shard = element
        result = ShardResult()
        images: list[WrittenImage] = []
        writers: dict[str, tuple[str, Any]] = {}
        for image in shard.read():
            if self._excluded and {image.image_id, file_id(image.image_id)} & self._excluded:
                result.excluded.append(Reject(image.image_id, _EXCLUDED_BY))
                continue
            if isinstance(image, Reject):
                _LOG.warning("rejected %s: %s", image.image_id, image.reason)
                result.rejects.append(image)
                continue
            stored = image.stored
            is_reviewed = image.image_id.startswith(REVIEWED_PREFIX)
            if self._reviewed and not is_reviewed and stored.pixel_digest in self._reviewed:
                result.counts[REPLACED] += 1
                continue
            image, split = self._reviewed_split(image) if is_reviewed else self._split(image)
            if split is None:
                result.counts[_LEFT_OUT] += 1
                continue
            if split not in writers:
                writers[split] = self._open(split, index)
            writers[split][1].write(serialize(image))
            result.counts[split] += 1
            if is_reviewed:
                result.counts[REVIEWED] += 1
            if stored.page_count > 1:
                result.counts[_PAGES_DROPPED] += stored.page_count - 1
            if stored.has_region:
                result.counts[_WITH_REGION] += 1
            if stored.encoded.startswith(VALUES_START):
                result.counts[_WITH_VALUES] += 1
            if stored.used_bits > result.used_bits:
                result.used_bits = stored.used_bits
            if image.is_mask_blurred:
                result.counts[_BLURRED_MASKS] += 1
                _LOG.warning("%s: many pixels of its mask are neither black nor white", image.image_id)
            images.append((stored.pixel_digest.hex(), split, image.image_id))
            self._report_one()
        for path, writer in writers.values():
            writer.close()
            fileio.rename(path, path.removesuffix(".part"), overwrite=True)
        yield result
        folder = _digests_uri(self._examples_uri)
        segments = write_segments(folder, index, images, image_count=self._image_count)
        yield from (beam.pvalue.TaggedOutput(_DIGESTS, segment) for segment in segments)

    def _split(self, image: SourceImage) -> tuple[SourceImage, str | None]:
        if self._settings.normal_labels:
            image = image._replace(is_anomaly=int(image.label not in self._settings.normal_labels))
        return image, split_of(
            file_id(image.image_id),  # pages of a file, which are alike, stay together
            named_split=image.named_split,
            has_named_eval=self._has_named_eval,
            is_anomaly=image.is_anomaly,
            settings=self._settings,
        )

    def _reviewed_split(self, image: SourceImage) -> tuple[SourceImage, str | None]:
        """What a person decided counts, whatever `data.normal_labels` says."""
        return image, split_of_reviewed(
            file_id(image.image_id),
            named_split=image.named_split,
            is_anomaly=image.is_anomaly,
            settings=self._settings,
        )

    def _open(self, split: str, index: int) -> tuple[str, Any]:
        path = _shard_path(self._examples_uri, split, index, self._shard_count) + ".part"
        return path, tf.io.TFRecordWriter(path)

    def _report_one(self) -> None:
        self._done += 1
        if self._done % 1000 == 0:
            _LOG.info("images written", extra={"done": self._done, "total": self._image_count, "unit": "images"})


def _remove_duplicates(digests: beam.PCollection, examples_uri: str, shard_count: int) -> beam.PCollection:
    """(bucket, Segment) of all shards -> a ShardResult for each test file that was rewritten."""
    return (
        digests
        | "GatherDigests" >> beam.GroupByKey()
        | "FindDuplicates" >> beam.FlatMap(lambda bucket: find_duplicates(bucket[1]))
        | "KeyByShard" >> beam.Map(lambda duplicate: (duplicate.shard_index, duplicate))
        | "GatherDuplicates" >> beam.GroupByKey()
        | "RewriteTestFiles" >> beam.Map(_rewrite_test_file, uri=examples_uri, shard_count=shard_count)
    )


def _rewrite_test_file(element: tuple[int, Iterable[Duplicate]], *, uri: str, shard_count: int) -> ShardResult:
    """Rewrite one shard's test file without its duplicates; doing so twice has no further effect."""
    index, duplicates = element
    original_ids = {duplicate.image_id: duplicate.original_id for duplicate in duplicates}
    path = _shard_path(uri, features.TEST, index, shard_count)
    with tf.io.TFRecordWriter(path + ".part") as writer:
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
            if text_of(features_of(record), features.IMAGE_ID) not in original_ids:
                writer.write(record)
    fileio.rename(path + ".part", path, overwrite=True)
    removed = [Reject(image_id, _DUPLICATE_OF + original_id) for image_id, original_id in original_ids.items()]
    return ShardResult(counts=Counter({features.TEST: -len(removed)}), duplicates=removed)


def _merge_results(results: Iterable[ShardResult]) -> ShardResult:
    merged = ShardResult()
    for result in results:
        merged.counts.update(result.counts)  # unlike +=, keeps negative counts
        merged.rejects += result.rejects
        merged.duplicates += result.duplicates
        merged.excluded += result.excluded
        merged.used_bits = max(merged.used_bits, result.used_bits)
    return merged


def _write_result(result: ShardResult, uri: str) -> None:
    counts = {name: result.counts[name] for name in (*features.SPLITS, _LEFT_OUT)}
    optional = (_PAGES_DROPPED, _BLURRED_MASKS, _WITH_REGION, _WITH_VALUES, REVIEWED, REPLACED)
    counts |= {name: result.counts[name] for name in optional if result.counts[name]}
    counts |= {USED_BITS: result.used_bits} if result.used_bits else {}
    counts |= {_EXCLUDED: len(result.excluded)} if result.excluded else {}
    with fileio.open(os.path.join(uri, REJECTS_FILE), "w") as file:  # noqa: PTH118
        rejects = sorted(result.rejects + result.duplicates + result.excluded, key=lambda r: r.image_id)
        # An empty string, too, so that the file always exists.
        file.write("".join(json.dumps(asdict(reject)) + "\n" for reject in rejects))
    with fileio.open(os.path.join(uri, COUNTS_FILE), "w") as file:  # noqa: PTH118
        file.write(json.dumps({**counts, "rejected": len(result.rejects), "duplicates": len(result.duplicates)}))


def _read_rejects(uri: str) -> list[dict[str, str]]:
    with fileio.open(os.path.join(uri, REJECTS_FILE)) as file:  # noqa: PTH118
        return [json.loads(line) for line in file.read().splitlines()]


def _check_result(uri: str, settings: DataSettings, reading: Reading) -> None:
    counts = read_counts(uri)
    if few := few_levels(reading.depth, counts.pop(USED_BITS, 0)):
        _LOG.warning("%s", few, extra={"notice": True})
    if counts.pop(_WITH_REGION, 0) == 0 and reading.alpha == "roi":
        _LOG.warning(
            "image.alpha is roi, but no image has transparent pixels or a mask in the manifest's column roi, so all "
            "pixels count",
            extra={"notice": True},
        )
    rejected, duplicates = counts.pop("rejected"), counts.pop("duplicates")
    # Duplicates leave `test` after they were counted.
    _warn_of_mixed_scales(
        counts.pop(_WITH_VALUES, 0), duplicates + sum(counts[split] for split in features.SPLITS), reading
    )
    reviewed, replaced = counts.pop(REVIEWED, 0), counts.pop(REPLACED, 0)
    if reviewed:
        _LOG.info("reviewed images: %d, in place of %d in the data", reviewed, replaced, extra={"notice": True})
    if excluded := counts.pop(_EXCLUDED, 0):
        _LOG.info("images left out by data.exclude: %d", excluded, extra={"notice": True})
    if duplicates:
        _LOG.warning(
            "%d images left out of test because their pixels are also in train or eval; see %s/%s",
            *(duplicates, uri, REJECTS_FILE),
            extra={"notice": True},
        )
    _warn_of_losses(pages_dropped=counts.pop(_PAGES_DROPPED, 0), blurred_masks=counts.pop(_BLURRED_MASKS, 0))
    total = rejected + sum(counts.values())
    if left_out := counts.pop(_LEFT_OUT):
        _LOG.info("%d anomalies in the training splits left out (data.training_anomalies is leave_out)", left_out)
    if rejected > settings.max_reject_fraction * total:
        rejects = [
            reject for reject in _read_rejects(uri) if not reject["reason"].startswith((_DUPLICATE_OF, _EXCLUDED_BY))
        ]
        named = "\n".join(f"  {r['image_id']}: {r['reason']}" for r in rejects[:_REJECTS_NAMED_IN_ERROR])
        raise DataError(
            f"{rejected:,} of {total:,} images cannot be read, more than data.max_reject_fraction "
            f"{settings.max_reject_fraction:.0%}; repair or remove them, or raise the limit:\n{named}"
        )
    if rejected:
        _LOG.warning(
            "%d of %d images cannot be read; see %s/%s", *(rejected, total, uri, REJECTS_FILE), extra={"notice": True}
        )
    hint = (
        f"; {duplicates:,} duplicates of other images were left out: are there different images?" if duplicates else ""
    )
    empty = [split for split in features.SPLITS if not counts[split]]
    if empty:
        raise DataError(
            f"no images in split {', '.join(map(repr, empty))} ({counts}): add images, or raise data.eval_fraction "
            f"or data.test_fraction; if data.normal_labels is set, check that these labels exist{hint}"
        )


def _warn_of_mixed_scales(values: int, total: int, reading: Reading) -> None:
    """`values`: of `total` images, those whose values are in units of their own."""
    if reading.reads_values and 0 < values < total:
        _LOG.warning(
            "%d images hold values in units of their own, such as floats, and %d hold levels of 8 or 16 bits, but one "
            "image.range holds for all, so images of one kind may be black or white all over: convert all to the same "
            "scale, or remove one kind (autoencoder init names files of the rarer kind)",
            *(values, total - values),
            extra={"notice": True},
        )


def _warn_of_losses(*, pages_dropped: int, blurred_masks: int) -> None:
    if pages_dropped:
        _LOG.warning(
            "%d pages of TIFF files are ignored: only the first page of a file is used; image.page: all uses each",
            pages_dropped,
            extra={"notice": True},
        )
    if blurred_masks:
        _LOG.warning(
            "%d masks have many pixels that are neither black nor white; pixels brighter than half count as defective: "
            "check that these files are masks, not heat maps (the log names them)",
            blurred_masks,
            extra={"notice": True},
        )
