"""`autoencoder compile`: a configuration -> a package for Kubeflow Pipelines."""

import logging
import os
import warnings
from pathlib import Path

import click

from pipeline.commands.options import PATH, config_argument_or_option, set_option
from pipeline.errors import Command
from runtime.keras_flavour import use_keras_2


@click.command("compile", cls=Command)
@config_argument_or_option(required=True)
@set_option
@click.option("--image", required=True, help="Image of every pod: REGISTRY/NAME@sha256:DIGEST.")
@click.option("--trainer-image", help="Another image for the Trainer, e.g. with CUDA.")
@click.option("--root", required=True, help="Object store for all artifacts: s3://, minio:// or gs://.")
@click.option("--gpu", "gpus", type=click.IntRange(0), help="GPUs for the Trainer (default: kubeflow.gpus).")
@click.option("--allow-tag", is_flag=True, help="Accept an image by tag, although the cache cannot detect a moved tag.")
@click.option("-o", "--output", type=PATH, default=Path("pipeline.yaml"), help="The package to write.")
def compile_(
    config: Path,
    overrides: tuple[str, ...],
    image: str,
    trainer_image: str | None,
    root: str,
    gpus: int | None,
    allow_tag: bool,
    output: Path,
) -> None:
    """Compile CONFIG into a package for Kubeflow Pipelines 2.

    \b
    Example:
      autoencoder compile configs/kubeflow.yaml --gpu 1 \\
        --image registry.example.com/autoencoder@sha256:4f1c...9b \\
        --root s3://my-bucket/autoencoder -o pipeline.yaml
    """
    # Before TensorFlow is imported: choose the Trainer's Keras, and silence warnings about missing GPUs.
    use_keras_2()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    logging.getLogger("absl").setLevel(logging.ERROR)
    from pipeline.configuration.loading import load_configuration
    from pipeline.kubeflow.compile.package import check_image, check_output, check_root, compile_package, write_package

    configuration = load_configuration(config, overrides)
    check_output(output)
    for name in filter(None, (image, trainer_image)):
        check_image(name, allow_tag=allow_tag)
    check_root(root)
    documents = compile_package(
        configuration,
        image=image,
        trainer_image=trainer_image,
        root=root,
        gpus=configuration.kubeflow.gpus if gpus is None else gpus,
    )
    write_package(documents, output)
    task_count = len(documents[0]["root"]["dag"]["tasks"])
    click.echo(f"{output}: {task_count} tasks; try it with: autoencoder rehearse {output}")
