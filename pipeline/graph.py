"""The pipeline's components, in data order."""

from collections.abc import Callable
from importlib import resources
from typing import Any

from tfx.components import Trainer, Transform, Tuner
from tfx.dsl.components.base.base_node import BaseNode
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.proto import pusher_pb2, trainer_pb2, transform_pb2
from tfx.types import Channel

from components.evaluation.evaluator import ReconstructionEvaluator
from components.evaluation.model_analysis import ModelAnalysis
from components.example_gen.component import ImageExampleGen
from components.example_validator.component import StrictExampleValidator
from components.pusher.component import AtomicPusher
from components.report.component import Report
from components.resolvers.latest_blessed_model import latest_blessed_model, model_to_start_from
from components.schema_gen import CuratedSchemaGen
from components.statistics_gen import SmallFeaturesStatisticsGen
from pipeline.configuration.beam_options import set_beam_options
from pipeline.configuration.configuration import Configuration
from runtime.fingerprint import source_fingerprint
from schema import features
from serving.model import smoke_check
from trainer.calibrator import Calibrator
from trainer.module import run_fn
from trainer.preprocessing import preprocessing_fn
from trainer.tuning import tuner_fn


def create_pipeline(
    configuration: Configuration,
    *,
    data_fingerprint: str,
    pipeline_root: str,
    push_destination: str,
    find_baseline: Callable[[Channel], BaseNode] = latest_blessed_model,
) -> tfx_pipeline.Pipeline:
    """ImageExampleGen -> StatisticsGen -> schema -> ExampleValidator -> Transform -> Trainer -> Calibrator ->
    ModelAnalysis -> Evaluator, then Report and Pusher.

    The Pusher pushes only blessed models; the Report covers every run, blessed or refused.

    `find_baseline` creates, from the candidate's channel, the node whose output `model` is the baseline for comparison.
    """
    image = configuration.image.model_dump(mode="json")

    example_gen = ImageExampleGen(
        settings=configuration.data,
        reading=configuration.image,
        data_fingerprint=data_fingerprint,
        source_fingerprint=source_fingerprint("components.example_gen.component"),
    )
    schema_text = resources.files("schema").joinpath("schema.pbtxt").read_text()
    statistics_gen = SmallFeaturesStatisticsGen(
        examples=example_gen.outputs["examples"],
        schema_text=schema_text,
        source_fingerprint=source_fingerprint("components.statistics_gen"),
    ).with_id("StatisticsGen")
    schema_gen = CuratedSchemaGen(schema_text=schema_text)
    example_validator = StrictExampleValidator(
        statistics=statistics_gen.outputs["statistics"],
        schema=schema_gen.outputs["schema"],
        drift=configuration.data.drift,
        push_destination=push_destination,
        source_fingerprint=source_fingerprint("components.example_validator.component"),
    ).with_id("ExampleValidator")
    transform = Transform(
        examples=example_gen.outputs["examples"],
        schema=schema_gen.outputs["schema"],
        preprocessing_fn=_dotted_path(preprocessing_fn),
        custom_config={"image": image, "source": source_fingerprint("trainer.preprocessing")},
        # Analyse only the training split, and write no decoded images: the Trainer applies the graph itself.
        splits_config=transform_pb2.SplitsConfig(analyze=[features.TRAIN]),
        materialize=False,
        disable_statistics=True,
        disable_analyzer_cache=True,  # no later run reads it
    )
    transform.add_upstream_node(example_validator)
    splits = {
        "train_args": trainer_pb2.TrainArgs(splits=[features.TRAIN]),
        "eval_args": trainer_pb2.EvalArgs(splits=[features.EVAL]),
    }
    training = {"image": image, "trainer": configuration.trainer.model_dump(mode="json"), "seed": configuration.seed}
    tuner = Tuner(
        tuner_fn=_dotted_path(tuner_fn),
        examples=example_gen.outputs["examples"],
        transform_graph=transform.outputs["transform_graph"],
        custom_config={
            **training,
            "tuner": configuration.tuner.model_dump(mode="json"),
            "source_fingerprint": source_fingerprint("trainer.tuning"),
        },
        **splits,
    )
    start = model_to_start_from()
    trainer = Trainer(
        run_fn=_dotted_path(run_fn),
        examples=example_gen.outputs["examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema_gen.outputs["schema"],
        hyperparameters=tuner.outputs["best_hyperparameters"] if configuration.tuner.enabled else None,
        base_model=start.outputs["model"] if configuration.trainer.warm_start else None,
        custom_config={
            **training,
            "name": configuration.name,
            "data_fingerprint": data_fingerprint,
            "source_fingerprint": source_fingerprint("trainer.module"),
        },
        **splits,
    )
    calibrator = Calibrator(
        examples=example_gen.outputs["examples"],
        model=trainer.outputs["model"],
        settings=configuration.evaluation,
        source_fingerprint=source_fingerprint("trainer.calibrator"),
    )
    baseline = find_baseline(calibrator.outputs["model"]).with_id("latest_blessed_model")
    analysis = ModelAnalysis(
        examples=example_gen.outputs["examples"],
        transform_graph=transform.outputs["transform_graph"],
        model=calibrator.outputs["model"],
        model_run=trainer.outputs["model_run"],
        baseline_model=baseline.outputs["model"],
        schema=schema_gen.outputs["schema"],
        source_fingerprint=source_fingerprint("components.evaluation.model_analysis"),
    )
    evaluator = ReconstructionEvaluator(
        analysis=analysis.outputs["analysis"],
        model=calibrator.outputs["model"],
        baseline_model=baseline.outputs["model"],
        settings=configuration.evaluation.with_purpose(
            preset=configuration.trainer.preset, source=configuration.data.source
        ),
        source_fingerprint=source_fingerprint("components.evaluation.evaluator"),
    ).with_id("Evaluator")
    report = Report(
        examples=example_gen.outputs["examples"],
        statistics=statistics_gen.outputs["statistics"],
        anomalies=example_validator.outputs["anomalies"],
        transform_graph=transform.outputs["transform_graph"],
        model_run=trainer.outputs["model_run"],
        model=calibrator.outputs["model"],
        calibration=calibrator.outputs["calibration"],
        baseline_model=baseline.outputs["model"],
        analysis=analysis.outputs["analysis"],
        evaluation=evaluator.outputs["evaluation"],
        settings=configuration.model_dump(mode="json", include={"data", "evaluation"}),
        source_fingerprint=source_fingerprint("components.report.component"),
    )
    pusher = AtomicPusher(
        model=calibrator.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        analysis=analysis.outputs["analysis"],
        statistics=statistics_gen.outputs["statistics"],
        push_destination=pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=push_destination)
        ),
        check=smoke_check,
        keep=configuration.push.keep,
    ).with_id("Pusher")
    components = [
        example_gen,
        statistics_gen,
        schema_gen,
        example_validator,
        transform,
        *([tuner] if configuration.tuner.enabled else []),
        *([start] if configuration.trainer.warm_start else []),
        trainer,
        calibrator,
        baseline,
        analysis,
        evaluator,
        report,
        pusher,
    ]
    set_beam_options(components, configuration.beam)
    return tfx_pipeline.Pipeline(
        pipeline_name=configuration.name, pipeline_root=pipeline_root, components=components, enable_cache=True
    )


def _dotted_path(function: Callable[..., Any]) -> str:
    """`package.module.name`, which TFX imports in the process that runs the component."""
    return f"{function.__module__}.{function.__qualname__}"
