"""Writes an evaluation's results for given metrics, with TFMA's own writers."""

import tensorflow as tf
import tensorflow_model_analysis as tfma
from google.protobuf import json_format
from tensorflow_model_analysis.evaluators import metrics_validator
from tensorflow_model_analysis.metrics.metric_types import MetricKey
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.writers import metrics_plots_and_validations_writer as writer

from components.evaluation.bounds import BASELINE, CANDIDATE, eval_config


def evaluated(folder, bounds, candidate, baseline=None):
    """Write TFMA's files for one or two models' metrics (label -> name -> value), with its verdict on `bounds`.

    Returns the folder's path.
    """
    config = tfma.utils.update_eval_config_with_defaults(
        eval_config(bounds), has_baseline=baseline is not None, rubber_stamp=True
    )
    folder.mkdir()
    run = config_pb2.EvalRun(eval_config=config, version=tfma.version.VERSION)
    for name in (CANDIDATE, BASELINE):
        run.model_locations[name] = "nowhere"
    (folder / "eval_config.json").write_text(json_format.MessageToJson(run))
    combine = writer.CombineValidations(config, rubber_stamp=True)
    verdict = combine.create_accumulator()
    with tf.io.TFRecordWriter(str(folder / "metrics-00000-of-00001.tfrecord")) as metrics:
        for label, values in candidate.items():
            keyed = {MetricKey(name, model_name=CANDIDATE if baseline else ""): v for name, v in values.items()}
            for name, value in (baseline or {}).get(label, {}).items():
                keyed[MetricKey(name, model_name=BASELINE)] = value
                if name in values:
                    keyed[MetricKey(name, model_name=CANDIDATE, is_diff=True)] = values[name] - value
            sliced = ((() if label is None else (("label", label),)), keyed)
            metrics.write(writer.convert_slice_metrics_to_proto(sliced, None).SerializeToString())
            verdict = combine.add_input(verdict, metrics_validator.validate_metrics(sliced, config))
    with tf.io.TFRecordWriter(str(folder / "validations.tfrecord")) as validations:
        validations.write(combine.extract_output(verdict).SerializeToString())
    return str(folder)
