"""The command line's Kubeflow part: compile, rehearse, submit, schedule. Imports nothing heavy until one runs."""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import click

DONE, FAILED, BAD_USAGE = 0, 1, 2
_SET_HELP = "Override a field of the configuration, e.g. --set trainer.epochs=20 (repeatable)."


@click.command("compile")
@click.option("--config", type=click.Path(path_type=Path), required=True, help="The experiment's YAML file.")
@click.option("--set", "overrides", multiple=True, metavar="FIELD=VALUE", help=_SET_HELP)
@click.option("--image", required=True, help="Image of every pod: REGISTRY/NAME@sha256:DIGEST.")
@click.option("--trainer-image", help="Another image for the Trainer, e.g. with CUDA.")
@click.option("--root", required=True, help="Object store for all artifacts: s3://, minio:// or gs://.")
@click.option("--gpu", "gpus", type=click.IntRange(0), help="GPUs for the Trainer (default: kubeflow.gpus).")
@click.option(
    "--allow-tag", is_flag=True, help="Accept an image by tag although the cache cannot tell when it moves."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("pipeline.yaml"), show_default=True
)
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
    """Compile a configuration into a package for open-source Kubeflow Pipelines 2.

    \b
    Example:
      autoencoder compile --config configs/kubeflow.yaml --gpu 1 \\
        --image registry.example.com/autoencoder@sha256:4f1c...9b \\
        --root s3://my-bucket/autoencoder -o pipeline.yaml
    """
    from pipeline.configuration import ConfigurationError, load_configuration
    from pipeline.kubeflow_compile import check_image, check_root, compile_package, write_package

    try:
        configuration = load_configuration(config, overrides)
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
    except ConfigurationError as error:
        click.echo(str(error), err=True)
        sys.exit(BAD_USAGE)
    write_package(documents, output)
    click.echo(
        f"{output}: {len(documents[0]['root']['dag']['tasks'])} tasks; try it with: autoencoder rehearse {output}"
    )


@click.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.option(
    "--param", "parameters", multiple=True, metavar="NAME=VALUE", help="Set a parameter (repeatable)."
)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/rehearsal"), show_default=True)
@click.option(
    "--s3", is_flag=True, help="Use the S3 server of AWS_ENDPOINT_URL instead of a folder as object store."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of lines.")
def rehearse(package: Path, parameters: tuple[str, ...], folder: Path, s3: bool, as_json: bool) -> None:
    """Play a compiled package on this machine, as Kubeflow's driver and launcher would.

    It is a rehearsal, not a run on Kubeflow. Played: the check of the specification, the order of tasks, parameters
    and their types, output locations, download and upload of artifacts, an empty folder for each pod, what gets lost
    between tasks, cache keys, retries (without the wait), and the package's real commands as processes.

    Not played: Argo, what is in the image, other users and volumes, credentials (unless --s3), quotas, resource
    limits, GPU scheduling, and the second document of the package.

    \b
    Example:
      autoencoder rehearse pipeline.yaml --param epochs=3
    """
    from pipeline import kubeflow_rehearsal as rehearsal
    from pipeline.kubeflow_driver import NotPlayedError, RefusedError

    try:
        prepared = rehearsal.open_rehearsal(
            package, folder.absolute(), _pairs(parameters), _pod_variables(folder.absolute(), s3=s3)
        )
        outcomes = prepared.play(lambda outcome: None if as_json else click.echo(_line(outcome)))
    except (RefusedError, NotPlayedError) as error:
        click.echo(str(error), err=True)
        sys.exit(BAD_USAGE)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=2))
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        click.echo(f"{outcome.name} failed: {outcome.error}", err=True)
    sys.exit(FAILED if failed else DONE)


def _line(outcome: Any) -> str:
    again = f", attempt {outcome.attempts}" if outcome.attempts > 1 else ""
    return f"{outcome.name:<24} {outcome.state:<8} {outcome.seconds:6.1f} s{again}"


def _pairs(parameters: tuple[str, ...]) -> dict[str, str]:
    """`("a=1",)` -> {"a": "1"}; exits with 2 for one without an equals sign."""
    for parameter in parameters:
        if "=" not in parameter:
            raise click.BadParameter(f"{parameter}: must look like epochs=20", param_hint="--param")
    return dict(parameter.split("=", 1) for parameter in parameters)


def _pod_variables(folder: Path, *, s3: bool) -> dict[str, str]:
    from pipeline.kubeflow_names import REHEARSAL_STORE_VARIABLE

    if s3:
        return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    store = folder / "store"
    store.mkdir(parents=True, exist_ok=True)
    return {REHEARSAL_STORE_VARIABLE: str(store)}
