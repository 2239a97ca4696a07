"""SmallFeaturesStatisticsGen: a StatisticsGen for examples that consist almost entirely of image bytes.

A Beam element is a group of files: one worker reads them and feeds TensorFlow Data Validation's own statistics
generators. Only the features that have statistics are parsed, and TFDV's Beam graph of several hundred steps is not
built; docs/performance.md compares it with TFX's StatisticsGen.
"""

import math
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

import apache_beam as beam
import pyarrow as pa  # type: ignore[import-untyped]
import tensorflow as tf
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import types
from tfx.components.statistics_gen.stats_artifact_utils import BINARY_PB_BASENAME
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types import standard_component_specs as keys
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder  # type: ignore[import-untyped]

from schema.artifact_types import Artifacts
from schema.component_specs import Spec, channels, texts
from schema.features import STATISTICS_FEATURES

MAX_BATCH_EXAMPLES: Final = 1 << 14
MAX_BATCH_BYTES: Final = 1 << 25
MIN_GROUPS: Final = 24
"""Groups of files in a split with more files than this; the square root of the number of files if that is larger. All
groups are merged in one place, where each takes a megabyte."""


class SmallFeaturesStatisticsGenSpec(Spec):
    PARAMETERS = texts("schema_text", "source_fingerprint")
    INPUTS = channels(examples=standard_artifacts.Examples)
    OUTPUTS = channels(statistics=standard_artifacts.ExampleStatistics)


class SmallFeaturesStatisticsGenExecutor(base_beam_executor.BaseBeamExecutor):
    """Writes `Split-<name>/FeatureStats.pb`, like TFX's executor."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:  # noqa: N802
        examples = artifact_utils.get_single_instance(input_dict[keys.EXAMPLES_KEY])
        statistics = artifact_utils.get_single_instance(output_dict[keys.STATISTICS_KEY])
        statistics.split_names = examples.split_names
        serialized_schema = _schema_of_small_features(exec_properties["schema_text"])
        groups = [
            (artifact_utils.get_split_uri([statistics], split), group)
            for split in artifact_utils.decode_split_names(examples.split_names)
            for group in _groups(_files(artifact_utils.get_split_uri([examples], split)))
        ]
        with self._make_beam_pipeline() as pipeline:
            (
                pipeline
                | "ListFiles" >> beam.Create(groups)  # which also spreads them over the workers
                | "AccumulateFiles" >> beam.ParDo(_AccumulateFiles(serialized_schema))
                | "GatherAccumulators" >> beam.GroupByKey()
                | "WriteStatistics" >> beam.Map(_write_statistics)
            )


class SmallFeaturesStatisticsGen(base_beam_component.BaseBeamComponent):
    """Statistics of the features in `schema.features.STATISTICS_FEATURES`, for every split of `examples`.

    Output `statistics`: the same as that of TFX's StatisticsGen.
    """

    SPEC_CLASS = SmallFeaturesStatisticsGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(SmallFeaturesStatisticsGenExecutor)

    def __init__(self, *, examples: types.BaseChannel, schema_text: str, source_fingerprint: str) -> None:
        super().__init__(
            spec=SmallFeaturesStatisticsGenSpec(
                examples=examples, schema_text=schema_text, source_fingerprint=source_fingerprint
            )
        )


class _AccumulateFiles(beam.DoFn):
    """(output folder, files of tf.Examples) -> (output folder, (first file, one accumulator per generator))."""

    def __init__(self, serialized_schema: bytes) -> None:
        self._serialized_schema = serialized_schema

    def setup(self) -> None:
        self._decoder = ExamplesToRecordBatchDecoder(self._serialized_schema)
        self._generators = _generators()

    def process(self, element: tuple[str, list[str]]) -> Iterator[tuple[str, tuple[str, list[Any]]]]:
        uri, paths = element
        accumulators = [generator.create_accumulator() for generator in self._generators]
        for records in chain.from_iterable(map(_batches, paths)):
            batch = _without_absent_features(self._decoder.DecodeBatch(records))
            pairs = zip(self._generators, accumulators, strict=True)
            accumulators = [generator.add_input(accumulator, batch) for generator, accumulator in pairs]
        pairs = zip(self._generators, accumulators, strict=True)
        yield uri, (paths[0], [generator.compact(accumulator) for generator, accumulator in pairs])


def _generators() -> list[Any]:
    generators: list[Any] = stats_impl.get_generators(tfdv.StatsOptions(), in_memory=True)
    return generators


def _without_absent_features(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Drop features that no example has; otherwise they would get empty statistics."""
    present = [index for index, column in enumerate(batch.columns) if column.null_count < len(column)]
    names = [batch.schema.names[index] for index in present]
    return pa.RecordBatch.from_arrays([batch.column(index) for index in present], names)


def _write_statistics(element: tuple[str, Iterable[tuple[str, list[Any]]]]) -> None:
    """Merges in the order of the files, because the order of float sums changes their last digits."""
    uri, by_first_file = element
    by_group = [accumulators for _, accumulators in sorted(by_first_file, key=lambda group: group[0])]
    generators = _generators()
    merged = [
        generator.merge_accumulators(accumulators)
        for generator, accumulators in zip(generators, zip(*by_group, strict=True), strict=True)
    ]
    fileio.makedirs(uri)
    with fileio.open(os.path.join(uri, BINARY_PB_BASENAME), "wb") as file:  # noqa: PTH118 - may be remote
        file.write(stats_impl.extract_statistics_output(merged, generators).SerializeToString())


def _batches(path: str) -> Iterator[list[bytes]]:
    """The file's records in batches limited by number and size, so that large images do not fill the memory."""
    records: list[bytes] = []
    total_bytes = 0
    for record in tf.compat.v1.io.tf_record_iterator(path):
        records.append(record)
        total_bytes += len(record)
        if len(records) == MAX_BATCH_EXAMPLES or total_bytes >= MAX_BATCH_BYTES:
            yield records
            records, total_bytes = [], 0
    if records:
        yield records


def _files(split_uri: str) -> list[str]:
    return sorted(os.path.join(split_uri, str(name)) for name in fileio.listdir(split_uri))  # noqa: PTH118


def _groups(files: list[str]) -> list[list[str]]:
    count = max(MIN_GROUPS, math.isqrt(len(files)))
    return [files[first::count] for first in range(min(count, len(files)))]


def _schema_of_small_features(schema_text: str) -> bytes:
    schema = text_format.Parse(schema_text, schema_pb2.Schema())
    small = schema_pb2.Schema()
    for feature in schema.feature:
        if feature.name in STATISTICS_FEATURES:
            small.feature.add(name=feature.name, type=feature.type)
    return bytes(small.SerializeToString())
