"""Scores images on Beam workers and writes the results as sharded JSON Lines."""

import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions

from runtime.beam_runner import with_local_runner
from serving.image_files import image_files
from serving.model.image_inputs import reading_of_model
from serving.scoring import BATCH_SIZE, FileScore, Scorer, local_scorer, row_of, score_files, with_maps_if_possible

_NAMESPACE, _SCORED, _FAILED = "score", "scored", "failed"


class SavedModelScorer(ModelHandler[str, FileScore, Scorer]):
    """RunInference with a pushed model: paths of image files -> their scores or problems."""

    def __init__(self, model: Path) -> None:
        """`model` is the folder of a SavedModel that every worker can read."""
        self._model = model

    def load_model(self) -> Scorer:
        return with_maps_if_possible(partial(local_scorer, self._model))

    def run_inference(self, batch: Sequence[str], model: Scorer, inference_args: Any = None) -> Iterable[FileScore]:
        return list(score_files(map(Path, batch), model, reading=reading_of_model(self._model)))

    def batch_elements_kwargs(self) -> dict[str, int]:
        return {"max_batch_size": BATCH_SIZE}


def score_on_beam(images: Sequence[str], model: Path, output: str, arguments: Sequence[str]) -> tuple[int, int]:
    """Write one line per file to `<output>-00000-of-00001.jsonl` etc. -> (number of images scored, number failed).

    `images` are files, folders or patterns that every worker can read; `arguments` are Beam's options.
    """
    pipeline = beam.Pipeline(options=PipelineOptions(with_local_runner(arguments)))
    (
        pipeline
        | "Take arguments" >> beam.Create(list(images))
        | "Find images" >> beam.FlatMap(lambda argument: map(str, image_files([argument])))
        | "Spread over workers" >> beam.Reshuffle()
        | "Score" >> RunInference(SavedModelScorer(model))
        | "Write as JSON" >> beam.Map(_counted_line)
        | "Write shards" >> beam.io.WriteToText(output, file_name_suffix=".jsonl")
    )
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query(MetricsFilter().with_namespace(_NAMESPACE))["counters"]
    counts = {counter.key.metric.name: counter.result for counter in counters}
    return counts.get(_SCORED, 0), counts.get(_FAILED, 0)


def _counted_line(result: FileScore) -> str:
    Metrics.counter(_NAMESPACE, _FAILED if result.score is None else _SCORED).inc()
    return json.dumps(row_of(result))
