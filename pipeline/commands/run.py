"""`autoencoder run`: the whole pipeline, on this machine, of one product or of several."""

import itertools
import sys
from pathlib import Path

import click

from pipeline.commands.options import DEFAULT_CONFIG, json_option, set_option
from pipeline.errors import Command
from runtime.errors import UsageError


@click.command(cls=Command)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[CONFIG]... [-- BEAM_OPTIONS]")
@set_option
@json_option
@click.option(
    "--same-product", is_flag=True, help="The images show the product of earlier runs, although data.path differs."
)
def run(arguments: tuple[str, ...], overrides: tuple[str, ...], as_json: bool, same_product: bool) -> None:
    """Run the whole pipeline that CONFIG describes.

    CONFIG is configs/digits.yaml by default. Options after `--` are passed to Apache Beam, after those in the
    configuration's `beam.args`.

    Several configurations run one after the other, also after one has failed; a table of all products and an
    index.html beside their folders follow, and the exit code is the worst: 1 if a run failed, 3 if a model was refused.

    \b
    Examples:
      autoencoder run configs/mnist-dense.yaml --set trainer.epochs=20
      autoencoder run configs/plant/*.yaml
      autoencoder run configs/beam-flink.yaml -- --flink_master=flink:8081 --parallelism=32
    """
    paths = [Path(argument) for argument in itertools.takewhile(lambda text: not text.startswith("-"), arguments)]
    beam_options = arguments[len(paths) :]
    if beam_options and not paths:
        raise UsageError("name CONFIG before the options for Beam: autoencoder run CONFIG -- OPTIONS")
    for path in paths:
        if "=" in path.name and not path.exists():
            raise UsageError(f"unexpected argument '{path}': a setting needs --set, as in --set {path}")
    from pipeline.configuration.products import load_products

    configurations = []
    for configuration in load_products(paths or [DEFAULT_CONFIG], overrides):
        beam = configuration.beam.model_copy(update={"args": (*configuration.beam.args, *beam_options)})
        configurations.append(configuration.model_copy(update={"beam": beam}))
    from pipeline.local.plant import run_products  # a mistake in the configuration does not wait for what these import
    from pipeline.local.run import run as run_locally

    if len(configurations) > 1:
        sys.exit(run_products(configurations, as_json=as_json, same_product=same_product))
    sys.exit(run_locally(configurations[0], as_json=as_json, same_product=same_product))
