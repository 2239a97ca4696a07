"""The command line's Kubeflow part: compile, rehearse, submit, schedule; nothing heavy until one runs."""

import contextlib
import dataclasses
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from pipeline.commands.options import set_option
from runtime.errors import BAD_USAGE, DONE, FAILED
from runtime.keras_flavour import use_keras_2


@click.command("compile")
@click.option("--config", type=click.Path(path_type=Path), required=True, help="The experiment's YAML file.")
@set_option
@click.option("--image", required=True, help="Image of every pod: REGISTRY/NAME@sha256:DIGEST.")
@click.option("--trainer-image", help="Another image for the Trainer, e.g. with CUDA.")
@click.option("--root", required=True, help="Object store for all artifacts: s3://, minio:// or gs://.")
@click.option("--gpu", "gpus", type=click.IntRange(0), help="GPUs for the Trainer (default: kubeflow.gpus).")
@click.option("--allow-tag", is_flag=True, help="Accept an image by tag although the cache cannot tell when it moves.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("pipeline.yaml"), show_default=True)
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
    from pipeline.configuration.configuration import ConfigurationError
    from pipeline.configuration.loading import load_configuration
    from pipeline.kubeflow.compile.package import check_image, check_output, check_root, compile_package, write_package

    _settle_tensorflow()
    try:
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
    except ConfigurationError as error:
        click.echo(str(error), err=True)
        sys.exit(BAD_USAGE)
    write_package(documents, output)
    task_count = len(documents[0]["root"]["dag"]["tasks"])
    click.echo(f"{output}: {task_count} tasks; try it with: autoencoder rehearse {output}")


def _settle_tensorflow() -> None:
    """Before TensorFlow is imported: the Keras that the Trainer needs, and no word of missing GPUs here."""
    use_keras_2()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    logging.getLogger("absl").setLevel(logging.ERROR)


@click.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--param", "parameters", multiple=True, metavar="NAME=VALUE", help="Set a parameter (repeatable).")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/rehearsal"), show_default=True)
@click.option("--s3", is_flag=True, help="Use the S3 server of AWS_ENDPOINT_URL instead of a folder as object store.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of lines.")
def rehearse(package: Path, parameters: tuple[str, ...], folder: Path, s3: bool, as_json: bool) -> None:
    """Play a compiled package on this machine, as Kubeflow's driver and launcher would.

    It is a rehearsal, not a run on Kubeflow. Played: the check of the specification, the order of tasks,
    parameters and their types, output locations, download and upload of artifacts, an empty folder for each
    pod, what gets lost between tasks, cache keys, retries (without the wait), and the package's real commands
    as processes.

    Not played: Argo, what is in the image, other users and volumes, credentials (unless --s3), quotas,
    resource limits, GPU scheduling, the second document of the package, and TFJobs: the Trainer trains by itself.

    \b
    Example:
      autoencoder rehearse pipeline.yaml --param epochs=3
    """
    from pipeline.kubeflow.simulator import rehearsal
    from runtime.errors import UserError

    try:
        prepared = rehearsal.open_rehearsal(
            package, folder.absolute(), _pairs(parameters), _pod_variables(folder.absolute(), s3=s3)
        )
        outcomes = prepared.run(lambda outcome: None if as_json else click.echo(_line(outcome)))
    except UserError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=2))
    else:
        click.echo(f"logs in {folder / 'logs'}" + ("" if s3 else f", artifacts in {folder / 'store'}"))
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        click.echo(f"{outcome.name} failed: {outcome.error}", err=True)
    sys.exit(FAILED if failed else DONE)


def _server_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say where Kubeflow is, and as whom to connect."""
    for option in (
        click.option("--cookies-file", type=click.Path(path_type=Path), help="File with the Cookie header, for Dex."),
        click.option("--token-file", type=click.Path(path_type=Path), help="File with a bearer token."),
        click.option("--namespace", help="Your namespace, where Kubeflow has several users."),
        click.option("--host", required=True, envvar="KUBEFLOW_HOST", help="Kubeflow Pipelines' address."),
    ):
        command = option(command)
    return command


_PARAM_OPTION = click.option(
    "--param", "parameters", multiple=True, metavar="NAME=VALUE", help="Set a parameter (repeatable)."
)
_ACCOUNT_OPTION = click.option("--service-account", help="Kubernetes service account of the pods.")


@click.command()
@click.argument("package", type=click.Path(path_type=Path))
@_server_options
@click.option("--experiment", required=True, help="Groups runs; made if there is none of that name.")
@click.option("--name", help="The run's name (default: the experiment and the time).")
@_PARAM_OPTION
@_ACCOUNT_OPTION
def submit(
    package: Path,
    experiment: str,
    name: str | None,
    parameters: tuple[str, ...],
    service_account: str | None,
    **where: Any,
) -> None:
    """Start one run of a compiled package on Kubeflow.

    The token or the cookies come from KUBEFLOW_TOKEN, KUBEFLOW_COOKIES or a file, never from an option:
    everybody on a machine sees the options of its processes.

    \b
    Example:
      export KUBEFLOW_TOKEN=$(kubectl create token default-editor -n alice --audience pipelines.kubeflow.org)
      autoencoder submit pipeline.yaml --host https://kubeflow.example.com/pipeline --namespace alice \\
        --experiment digits --param epochs=20
    """
    from pipeline.kubeflow.client import runs

    with _usage_errors():
        server = _server(**where)
        values = _checked_parameters(package, parameters)
        run_name = name or f"{experiment} {time.strftime('%Y-%m-%d %H:%M:%S')}"
        run_id = runs.submit(
            server,
            package,
            experiment=experiment,
            run_name=run_name,
            parameters=values,
            service_account=service_account,
        )
    click.echo(f"{run_name}: {server.host.rstrip('/')}/#/runs/details/{run_id}")


@click.command()
@click.argument("package", type=click.Path(path_type=Path), required=False)
@_server_options
@click.option("--name", help="The new schedule's name.")
@click.option("--cron", help="Six fields, seconds first, in the server's time zone: '0 0 2 * * *'.")
@click.option("--experiment", help="Groups its runs (default: the schedule's name).")
@click.option("--max-concurrency", type=click.IntRange(1, 10), default=1, show_default=True, help="Runs at a time.")
@click.option("--no-catchup", is_flag=True, help="After a pause, start the latest missed run only.")
@_PARAM_OPTION
@_ACCOUNT_OPTION
@click.option("--list", "list_all", is_flag=True, help="List all schedules.")
@click.option("--pause", metavar="NAME", help="Start no further runs.")
@click.option("--resume", metavar="NAME", help="Start runs again.")
@click.option("--delete", metavar="NAME", help="Remove the schedule; its past runs stay.")
@click.option("--json", "as_json", is_flag=True, help="With --list: print one JSON document.")
def schedule(
    package: Path | None,
    name: str | None,
    cron: str | None,
    experiment: str | None,
    max_concurrency: int,
    no_catchup: bool,
    parameters: tuple[str, ...],
    service_account: str | None,
    list_all: bool,
    pause: str | None,
    resume: str | None,
    delete: str | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Run a compiled package on Kubeflow again and again, or list and change such schedules.

    \b
    Example:
      autoencoder schedule pipeline.yaml --host https://kubeflow.example.com/pipeline --namespace alice \\
        --name nightly --cron "0 0 2 * * *" --max-concurrency 1 --no-catchup
      autoencoder schedule --host https://kubeflow.example.com/pipeline --namespace alice --pause nightly
    """
    from pipeline.kubeflow.client import schedules

    changes = {"paused": pause, "resumed": resume, "deleted": delete}
    if [package is not None, list_all, *(target is not None for target in changes.values())].count(True) != 1:
        raise click.UsageError("give one of: a package, --list, --pause, --resume, --delete")
    with _usage_errors():
        server = _server(**where)
        if list_all:
            _print_schedules(schedules.list_schedules(server), as_json=as_json)
        elif package is None:
            act = {
                "paused": schedules.pause_schedule,
                "resumed": schedules.resume_schedule,
                "deleted": schedules.delete_schedule,
            }
            [(done, target)] = [(word, target) for word, target in changes.items() if target is not None]
            click.echo(f"{target}: {done} ({act[done](server, target)})")
        else:
            checked_name, checked_cron = _name_and_cron(name, cron)
            schedule_id = schedules.create_schedule(
                server,
                package,
                name=checked_name,
                experiment=experiment or checked_name,
                cron=checked_cron,
                max_concurrency=max_concurrency,
                no_catchup=no_catchup,
                parameters=_checked_parameters(package, parameters),
                service_account=service_account,
            )
            click.echo(f"{checked_name}: created ({schedule_id}), {checked_cron}")


def _name_and_cron(name: str | None, cron: str | None) -> tuple[str, str]:
    from pipeline.kubeflow.client.cron import check_cron

    if not name or not cron:
        raise click.UsageError("a new schedule needs --name and --cron")
    try:
        check_cron(cron)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--cron") from None
    return name, cron


def _print_schedules(schedules: list[Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(each) for each in schedules], indent=2))
        return
    for each in schedules:
        click.echo(f"{each.name:<24} {each.cron:<20} {'on' if each.enabled else 'paused':<7} {each.id}")


def _server(host: str, namespace: str | None, token_file: Path | None, cookies_file: Path | None) -> Any:
    from pipeline.kubeflow.client.server import COOKIES_VARIABLE, TOKEN_VARIABLE, Server, read_secret

    return Server(
        host,
        namespace,
        token=read_secret(os.environ, TOKEN_VARIABLE, token_file),
        cookies=read_secret(os.environ, COOKIES_VARIABLE, cookies_file),
    )


def _checked_parameters(package: Path, parameters: tuple[str, ...]) -> dict[str, Any]:
    from pipeline.kubeflow.specification import convert_parameters, load_package

    return convert_parameters(load_package(package), _pairs(parameters))


@contextlib.contextmanager
def _usage_errors() -> Iterator[None]:
    """Print an error's message and exit with its code: 2 before anything was sent, 1 for what the server refuses."""
    from runtime.errors import UserError

    try:
        yield
    except UserError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)


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
    from runtime.object_store import REHEARSAL_STORE_VARIABLE

    if s3:
        return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    store = folder / "store"
    store.mkdir(parents=True, exist_ok=True)
    return {REHEARSAL_STORE_VARIABLE: str(store)}
