"""A configuration -> the package (one YAML file) that open-source Kubeflow Pipelines 2 runs."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from pipeline.configuration.configuration import Configuration, ConfigurationError, holds_secret
from pipeline.configuration.kubeflow import DEFAULT_POD, WORKER_POD
from pipeline.kubeflow.names import ENTRYPOINT
from runtime.imports import imported_for_good
from serving.model.versions import RUN_SUBFOLDER

ROOT_SCHEMES = ("s3://", "minio://", "gs://")
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
            f"--image {image}: is a tag, and Kubeflow's cache key holds that text, not the image: once the "
            "tag moves, results of the old code would be reused. Pass NAME@sha256:... "
            "(docker inspect --format '{{index .RepoDigests 0}}'), or --allow-tag to accept this"
        )


def check_root(root: str) -> None:
    """Raises ConfigurationError unless Kubeflow's launcher can stage artifacts from there."""
    if holds_secret(root):
        raise ConfigurationError("--root: holds a password or key; pods find theirs in secrets: docs/kubeflow.md")
    if not root.startswith(ROOT_SCHEMES) or len(root.partition("://")[2].strip("/")) == 0:
        raise ConfigurationError(
            f"--root {root}: must be an object store, e.g. s3://bucket/prefix, minio://... or gs://...: pods "
            "share no disk, and Kubeflow's launcher moves artifacts through these alone"
        )


def check_output(path: Path) -> None:
    """Raises ConfigurationError unless a package can be written there under a name that Kubeflow's client accepts."""
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigurationError(f"-o {path}: must end in .yaml, or Kubeflow's client will not read it")
    if not path.parent.is_dir():
        raise ConfigurationError(f"-o {path}: there is no folder {path.parent}")


def check_for_cluster(configuration: Configuration) -> None:
    """Raises ConfigurationError for what works on one machine but cannot in pods."""
    if "_" in configuration.name:
        raise ConfigurationError(
            f"name: {configuration.name!r} has an underscore, which Kubernetes allows in no name; use hyphens"
        )
    if configuration.trainer.warm_start:
        raise ConfigurationError(
            "trainer.warm_start: Kubeflow's backend cannot query past models; train on from one by `autoencoder run`"
        )
    _check_training(configuration)
    for field, path in (
        ("data.path", configuration.data.path),
        ("push.destination", configuration.push.destination),
    ):
        if path is None or path.startswith(ROOT_SCHEMES):
            continue
        if not any(Path(path).is_relative_to(volume.mount_path) for volume in configuration.kubeflow.volumes):
            raise ConfigurationError(
                f"{field}: {path} lies on this machine, which no pod sees; name a folder below the "
                f"mount_path of a kubeflow.volumes entry, or an object store"
            )


def _check_training(configuration: Configuration) -> None:
    trainer, kubeflow = configuration.trainer, configuration.kubeflow
    if kubeflow.tfjob is None:
        if trainer.distribution == "multi_worker":
            raise ConfigurationError("trainer.distribution: 'multi_worker' needs kubeflow.tfjob; add it, or use 'auto'")
        return
    if trainer.distribution == "mirrored":
        raise ConfigurationError("trainer.distribution: 'mirrored' is one machine, kubeflow.tfjob several; use 'auto'")
    if trainer.checkpoint_folder:
        raise ConfigurationError(
            "trainer.checkpoint_folder: with kubeflow.tfjob, checkpoints lie on its claim; drop it"
        )
    if trainer.batch_size % kubeflow.tfjob.devices:
        raise ConfigurationError(
            f"trainer.batch_size: {trainer.batch_size} cannot be divided evenly among the {kubeflow.tfjob.devices} "
            "devices of kubeflow.tfjob"
        )


def check_components(nodes: Iterable[Any]) -> None:
    """Raises ConfigurationError that names each node open-source Kubeflow Pipelines cannot run, and why."""
    from tfx.components import FileBasedExampleGen, InfraValidator
    from tfx.dsl.components.common.resolver import Resolver

    reasons = {
        Resolver: "its backend cannot query past artifacts; use components.pushed_baseline.LatestPushedModel",
        InfraValidator: "TFX has not implemented it there",
        FileBasedExampleGen: "its driver, which notices changed files, is never called; use ImageExampleGen",
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
    """Raises ConfigurationError for settings of a pod that the pipeline does not have."""
    known = [DEFAULT_POD, *components, *([WORKER_POD] if configuration.kubeflow.tfjob else [])]
    for name in configuration.kubeflow.pods:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
            raise ConfigurationError(f"kubeflow.pods: no component is called '{name}'; {hint}")


def compile_package(
    configuration: Configuration, *, image: str, trainer_image: str | None, root: str, gpus: int
) -> list[dict[str, Any]]:
    """The package's documents: the specification, and the platform's where the configuration has any.

    Raises ConfigurationError for what open-source Kubeflow Pipelines cannot run.
    """
    from pipeline.kubeflow.compile.finish import TRAINER, TUNER, finish, mark_optional
    from pipeline.kubeflow.compile.platform import platform_spec

    root = root.rstrip("/")
    check_for_cluster(configuration)
    if gpus and configuration.kubeflow.tfjob:
        raise ConfigurationError(
            f"kubeflow.gpus, --gpu: {gpus} would be the Trainer's own, but kubeflow.tfjob trains in other pods; "
            "use kubeflow.tfjob.gpus_per_worker"
        )
    pipeline = _pipeline(configuration, root)
    check_components(pipeline.components)
    images = {TRAINER: trainer_image or image, TUNER: trainer_image or image, "default_image_path": image}
    spec = _stock_specification(pipeline, images)
    mark_optional(spec, {node.id: _optional_inputs(node) for node in pipeline.components})
    spec = finish(spec, configuration, root=root, gpus=gpus)
    check_pods(configuration, spec["components"])
    platform = platform_spec(spec, configuration)
    return [spec, platform] if platform else [spec]


def write_package(documents: list[dict[str, Any]], path: Path) -> None:
    """One YAML file; the same documents always give the same bytes."""
    path.write_text(yaml.safe_dump_all(documents, sort_keys=True), encoding="utf-8")


def _pipeline(configuration: Configuration, root: str) -> Any:
    with imported_for_good():
        from components.resolvers.latest_pushed_model import LatestPushedModel
        from pipeline.graph import create_pipeline

    push_destination = configuration.push.destination or f"{root}/{configuration.name}/{RUN_SUBFOLDER}"
    return create_pipeline(
        configuration,
        data_fingerprint="",  # the data-version task finds it in every run
        pipeline_root=root,
        push_destination=push_destination,
        find_baseline=lambda model: LatestPushedModel(candidate=model, push_destination=push_destination),
    )


def _stock_specification(pipeline: Any, images: dict[str, str]) -> dict[str, Any]:
    from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner as stock

    runner = stock.KubeflowV2DagRunner(
        stock.KubeflowV2DagRunnerConfig(
            default_image=images, default_commands=["python", "-m", ENTRYPOINT], use_pipeline_spec_2_1=True
        )
    )
    spec: dict[str, Any] = runner.run(pipeline, write_out=False)["pipelineSpec"]
    return spec


def _optional_inputs(node: Any) -> list[str]:
    return [key for key, parameter in node.spec.INPUTS.items() if parameter.optional]
