"""`autoencoder run`: the whole pipeline, on this machine."""

import sys
from pathlib import Path

import click

from pipeline.commands.options import config_argument, json_option, set_option
from pipeline.errors import Command
from runtime.errors import UsageError


@click.command(cls=Command)
@config_argument
@set_option
@json_option
@click.option(
    "--same-product", is_flag=True, help="The images show the product of earlier runs, although data.path is another."
)
@click.argument("beam_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- BEAM_OPTIONS]")
def run(
    config: Path, overrides: tuple[str, ...], as_json: bool, same_product: bool, beam_options: tuple[str, ...]
) -> None:
    """Run the whole pipeline that CONFIG describes.

    CONFIG is configs/digits.yaml by default. Options after `--` are passed to Apache Beam, after those in the
    configuration's `beam.args`.

    Examples: autoencoder run configs/mnist-dense.yaml --set trainer.epochs=20;
    autoencoder run configs/beam-flink.yaml -- --flink_master=flink:8081 --parallelism=32
    """
    if str(config).startswith("-"):
        raise UsageError("name CONFIG before the options for Beam: autoencoder run CONFIG -- OPTIONS")
    if beam_options and not beam_options[0].startswith("-"):
        raise UsageError(f"unexpected argument '{beam_options[0]}': after CONFIG, only `-- BEAM_OPTIONS` is allowed")
    from pipeline.configuration.loading import load_configuration

    configuration = load_configuration(config, overrides)
    beam = configuration.beam.model_copy(update={"args": (*configuration.beam.args, *beam_options)})
    configuration = configuration.model_copy(update={"beam": beam})
    from pipeline.local.run import run as run_locally

    sys.exit(run_locally(configuration, as_json=as_json, same_product=same_product))
