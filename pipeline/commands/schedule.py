"""`autoencoder schedule`: repeated runs of a compiled package on Kubeflow."""

import json
from pathlib import Path
from typing import Any

import click

from pipeline.commands.options import PATH, account_option, param_option, server_of, server_options
from pipeline.errors import Command
from runtime.errors import UsageError


def _check_cron(_: click.Context, __: click.Parameter, cron: str | None) -> str | None:
    from pipeline.kubeflow.client.cron import check_cron

    try:
        if cron:
            check_cron(cron)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return cron


@click.command(cls=Command)
@click.argument("package", type=PATH, required=False)
@server_options
@click.option("--name", help="The new schedule's name.")
@click.option(
    "--cron", callback=_check_cron, help="Six fields, seconds first, in the server's time zone: '0 0 2 * * *'."
)
@click.option("--experiment", help="Groups its runs (default: the schedule's name).")
@click.option("--max-concurrency", type=click.IntRange(1, 10), default=1, help="Runs at a time.")
@click.option("--no-catchup", is_flag=True, help="After a pause, start only the latest missed run.")
@param_option
@account_option
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
    parameters: dict[str, str],
    service_account: str | None,
    list_all: bool,
    pause: str | None,
    resume: str | None,
    delete: str | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Run a compiled package on a schedule, or change schedules.

    \b
    Examples:
      autoencoder schedule pipeline.yaml --host https://kubeflow.example.com/pipeline --namespace alice \\
        --name nightly --cron "0 0 2 * * *" --max-concurrency 1 --no-catchup
      autoencoder schedule --host https://kubeflow.example.com/pipeline --namespace alice --pause nightly
    """
    if [bool(package), list_all, pause is not None, resume is not None, delete is not None].count(True) != 1:
        raise UsageError("give one of: a package, --list, --pause, --resume, --delete")
    if package and not (name and cron):
        raise UsageError("a new schedule needs --name and --cron")
    from pipeline.kubeflow.client import schedules
    from pipeline.kubeflow.specification import load_package, scheduled_parameters

    server = server_of(**where)
    if list_all:
        _print_schedules(schedules.list_schedules(server), as_json=as_json)
    elif package and name and cron:
        schedule_id = schedules.create_schedule(
            server,
            package,
            name=name,
            experiment=experiment or name,
            cron_expression=cron,
            max_concurrency=max_concurrency,
            no_catchup=no_catchup,
            params=scheduled_parameters(load_package(package), parameters),
            service_account=service_account,
        )
        click.echo(f"{name}: created ({schedule_id}), {cron}")
    elif pause is not None:
        click.echo(f"{pause}: paused ({schedules.change_schedule(server, pause, 'disable')})")
    elif resume is not None:
        click.echo(f"{resume}: resumed ({schedules.change_schedule(server, resume, 'enable')})")
    elif delete is not None:
        click.echo(f"{delete}: deleted ({schedules.change_schedule(server, delete, 'delete')})")


def _print_schedules(found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for each in found:
        click.echo(f"{each['name']:<24} {each['cron']:<20} {'on' if each['enabled'] else 'paused':<7} {each['id']}")
