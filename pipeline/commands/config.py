"""`autoencoder config`: the configuration with all defaults, or its JSON Schema."""

import json
from pathlib import Path

import click

from pipeline.commands.options import config_argument, set_option
from pipeline.errors import Command


@click.command(cls=Command)
@config_argument
@set_option
@click.option("--schema", is_flag=True, help="Print the JSON Schema of every configuration, for editors.")
def config(config: Path, overrides: tuple[str, ...], schema: bool) -> None:
    """Print CONFIG as YAML, with all defaults filled in.

    CONFIG is configs/digits.yaml by default; overrides are applied.

    \b
    Examples:
      autoencoder config configs/mnist-dense.yaml --set trainer.epochs=20
      autoencoder config --schema > autoencoder.schema.json
    """
    import yaml

    from pipeline.configuration.configuration import Configuration
    from pipeline.configuration.loading import load_configuration

    if schema:
        click.echo(json.dumps(Configuration.model_json_schema(), indent=2))
    else:
        values = load_configuration(config, overrides).model_dump(mode="json")
        click.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)
