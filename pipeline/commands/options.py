"""Arguments and options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

RUNS = Path("runs")
"""The folder of all runs, unless a configuration sets `root`."""

config_argument = click.argument("config", type=click.Path(path_type=Path), default=Path("configs/digits.yaml"))
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Override a field of the configuration, e.g. --set trainer.epochs=20 (repeatable).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def config_argument_or_option(*, required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """CONFIG as an argument; `--config CONFIG` still works."""

    def check(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
        option = context.params.pop("option")
        value = value or option
        if value is None and required:
            raise click.MissingParameter(ctx=context, param=parameter)
        return value

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        kind = click.Path(path_type=Path)
        command = click.option("--config", "option", type=kind, is_eager=True, hidden=True)(command)
        name = "CONFIG" if required else "[CONFIG]"
        return click.argument("config", type=kind, required=False, callback=check, metavar=name)(command)

    return decorate


def _pairs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`("a=1",)` -> {"a": "1"}."""
    for value in values:
        if "=" not in value:
            raise click.BadParameter(f"{value}: must look like epochs=20")
    return dict(value.split("=", 1) for value in values)


param_option = click.option(
    "--param",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_pairs,
    help="Set a parameter of the package (repeatable).",
)
