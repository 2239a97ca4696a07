"""Compiles a configuration into a package: one YAML file that open-source Kubeflow Pipelines 2 runs."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from components.sources.reviewed import AUTO
from pipeline.configuration.configuration import Configuration, ConfigurationError, holds_secret
from pipeline.configuration.kubeflow import DEFAULT_POD, WORKER_POD, KubeflowSettings
from pipeline.kubeflow.names import STAGING_FOLDERS
from pipeline.kubeflow.pods import entrypoint
from runtime.did_you_mean import did_you_mean
from runtime.imports import imported_for_good
from runtime.places import bucket_problem, pattern_problem
from serving.model.versions import RUN_SUBFOLDER
from trainer.settings.trainer import TrainerSettings

_ROOT_SCHEMES = tuple(STAGING_FOLDERS)
_DIGEST = re.compile(r"^[^\s@]+@sha256:[0-9a-f]{64}$")
_TAG = re.compile(r"^[^\s@]+:[A-Za-z0-9_][A-Za-z0-9_.-]*$")


def check_image(image: str, *, allow_tag: bool) -> None:
    """Raises ConfigurationError unless `image` is pinned by digest, or by a tag that the caller allows."""
    if _DIGEST.match(image):
        return
    if not _TAG.match(image):
        raise ConfigurationError(f"--image {image}: must look like REGISTRY/NAME@sha256:<64 hexadecimal digits>")
    if not allow_tag:
        raise ConfigurationError(
            f"--image {image} is a tag, and Kubeflow's cache key contains the tag instead of the image: once the "
            "tag moves, Kubeflow would reuse results of the old code. Pass NAME@sha256:... "
            "(docker inspect --format '{{index .RepoDigests 0}}'), or --allow-tag to accept this"
        )


def check_root(root: str) -> None:
    """Raises ConfigurationError unless `root` is in an object store that Kubeflow's launcher can stage."""
    if holds_secret(root):
        raise ConfigurationError("--root: holds a password or key; pass it to the pods as a secret: docs/kubeflow.md")
    if not root.startswith(_ROOT_SCHEMES) or len(root.partition("://")[2].strip("/")) == 0:
        raise ConfigurationError(
            f"--root {root}: must be an object store, e.g. s3://bucket/prefix, minio://... or gs://...: pods share no "
            "disk, and Kubeflow's launcher supports only these"
        )
    if problem := bucket_problem(root) or pattern_problem(root):
        raise ConfigurationError(f"--root {root}: {problem}")


def check_output(path: Path) -> None:
    """Raises ConfigurationError unless the folder exists and kfp's client accepts the file's suffix."""
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigurationError(f"-o {path}: must end in .yaml or .yml, the only suffixes that kfp's client reads")
    if not path.parent.is_dir():
        raise ConfigurationError(f"-o {path}: folder {path.parent} does not exist; create it first")


def check_for_cluster(configuration: Configuration) -> None:
    """Raises ConfigurationError for settings that work on one machine but not in pods."""
    if "_" in configuration.name:
        raise ConfigurationError(
            f"name: {configuration.name!r} has an underscore, which Kubernetes does not allow in names; use hyphens"
        )
    if configuration.trainer.warm_start:
        raise ConfigurationError(
            "trainer.warm_start: open-source Kubeflow cannot query past models; remove it, or use `autoencoder run`"
        )
    _check_training(configuration.trainer, configuration.kubeflow)
    data = configuration.data
    places = {
        "data.path": data.path,
        "data.exclude": data.exclude,
        "data.reviewed": data.reviewed,
        "push.destination": configuration.push.destination,
    }
    for field, path in places.items():
        if path in (None, AUTO) or path.startswith(_ROOT_SCHEMES):
            continue
        if not any(Path(path).is_relative_to(volume.mount_path) for volume in configuration.kubeflow.volumes):
            raise ConfigurationError(
                f"{field}: {path} is on this machine, where pods cannot read it; use a folder below the "
                "mount_path of a kubeflow.volumes entry, or an object store"
            )


def _check_training(trainer: TrainerSettings, kubeflow: KubeflowSettings) -> None:
    if kubeflow.tfjob is None:
        if trainer.distribution == "multi_worker":
            raise ConfigurationError("trainer.distribution: 'multi_worker' needs kubeflow.tfjob; add it, or use 'auto'")
        return
    if trainer.distribution == "mirrored":
        raise ConfigurationError(
            "trainer.distribution: 'mirrored' uses one machine, but kubeflow.tfjob several; use 'auto'"
        )
    if trainer.checkpoint_folder:
        raise ConfigurationError(
            "trainer.checkpoint_folder: kubeflow.tfjob keeps checkpoints on its claim; remove the field"
        )
    if trainer.batch_size and trainer.batch_size % kubeflow.tfjob.devices:
        raise ConfigurationError(
            f"trainer.batch_size: {trainer.batch_size} is not a multiple of the {kubeflow.tfjob.devices} devices of "
            "kubeflow.tfjob"
        )


def check_components(nodes: Iterable[Any]) -> None:
    """Raises ConfigurationError with each component that open-source Kubeflow Pipelines cannot run, and the reason."""
    from tfx.components import FileBasedExampleGen, InfraValidator
    from tfx.dsl.components.common.resolver import Resolver

    from components.example_gen.component import ImageExampleGen
    from components.resolvers.latest_pushed_model import LatestPushedModel

    reasons = {
        Resolver: f"its backend cannot query past artifacts; use {LatestPushedModel.__name__}",
        InfraValidator: "TFX does not implement it there",
        FileBasedExampleGen: "its driver, which detects changed files, never runs; use " + ImageExampleGen.__name__,
    }
    found = [
        f"{node.id}: open-source Kubeflow Pipelines cannot run a {kind.__name__}: {reason}"
        for node in nodes
        for kind, reason in reasons.items()
        if isinstance(node, kind)
    ]
    if found:
        raise ConfigurationError("\n".join(found))


def check_pods(configuration: Configuration, components: Iterable[str]) -> None:
    """Raises ConfigurationError for settings of a component that is not in the pipeline."""
    known = [DEFAULT_POD, *components, *([WORKER_POD] if configuration.kubeflow.tfjob else [])]
    for name in configuration.kubeflow.pods:
        if name not in known:
            hint = did_you_mean(name, known, f"; use one of {', '.join(known)}")
            raise ConfigurationError(f"kubeflow.pods: no component is called '{name}'{hint}")


def compile_package(
    configuration: Configuration, *, image: str, trainer_image: str | None, root: str, gpus: int
) -> list[dict[str, Any]]:
    """The package's documents: the specification and, if the configuration needs it, the Kubernetes settings.

    Raises ConfigurationError for anything that open-source Kubeflow Pipelines cannot run.
    """
    from pipeline.kubeflow.compile.finish import TRAINER, TUNER, finish, mark_optional
    from pipeline.kubeflow.compile.platform import platform_spec

    root = root.rstrip("/")
    check_for_cluster(configuration)
    if gpus and configuration.kubeflow.tfjob:
        raise ConfigurationError(
            f"kubeflow.gpus, --gpu: {gpus} would go to the Trainer's pod, but kubeflow.tfjob trains in other pods; "
            "use kubeflow.tfjob.gpus_per_worker"
        )
    pipeline = _pipeline(configuration, root)
    check_components(pipeline.components)
    images = {TRAINER: trainer_image or image, TUNER: trainer_image or image, "default_image_path": image}
    spec = _stock_specification(pipeline, images)
    mark_optional(spec, pipeline.components)
    spec = finish(spec, configuration, root=root, gpus=gpus)
    check_pods(configuration, spec["components"])
    platform = platform_spec(spec, configuration)
    return [spec, platform] if platform else [spec]


def write_package(documents: list[dict[str, Any]], path: Path) -> None:
    """Write one YAML file; the same documents always produce the same bytes."""
    path.write_text(yaml.safe_dump_all(documents, sort_keys=True), encoding="utf-8")


def _pipeline(configuration: Configuration, root: str) -> Any:
    with imported_for_good():
        from components.resolvers.latest_pushed_model import LatestPushedModel
        from pipeline.graph import create_pipeline

    push_destination = configuration.push.destination or f"{root}/{configuration.name}/{RUN_SUBFOLDER}"
    return create_pipeline(
        configuration,
        data_fingerprint="",  # the data-version task computes it in every run
        pipeline_root=root,
        push_destination=push_destination,
        find_baseline=lambda model: LatestPushedModel(candidate=model, push_destination=push_destination),
    )


def _stock_specification(pipeline: Any, images: dict[str, str]) -> dict[str, Any]:
    from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner as stock

    runner = stock.KubeflowV2DagRunner(
        stock.KubeflowV2DagRunnerConfig(
            default_image=images, default_commands=["python", "-m", entrypoint.__name__], use_pipeline_spec_2_1=True
        )
    )
    return dict(runner.run(pipeline, write_out=False)["pipelineSpec"])
