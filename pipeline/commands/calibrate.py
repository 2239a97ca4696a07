"""`autoencoder calibrate`: another false-alarm rate or score for the latest model, without training."""

import sys
from pathlib import Path

import click

from pipeline.commands.options import config_argument, json_option, set_option
from pipeline.errors import Command
from runtime.errors import UsageError


@click.command(cls=Command)
@config_argument
@click.option("--rate", type=float, help="Share of normal images that may raise an alarm, e.g. 0.005.")
@click.option("--score", help="The score that the threshold applies to: auto, error, ... (see docs/scores.md).")
@set_option
@json_option
def calibrate(config: Path, rate: float | None, score: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Change the false-alarm rate or the score without retraining.

    The same as `autoencoder run CONFIG --set evaluation.false_alarm_rate=RATE`: the trained model comes from the cache,
    and only the Calibrator and the components after it run again. To keep the rate, write it into CONFIG.

    Example: autoencoder calibrate configs/mnist-deep.yaml --rate 0.005
    """
    if rate is None and score is None:
        raise UsageError("nothing to change: give --rate 0.005, --score local_ssim, or both")
    wanted = {"false_alarm_rate": rate, "score": score}
    changes = tuple(f"evaluation.{field}={value}" for field, value in wanted.items() if value is not None)
    from pipeline.configuration.loading import load_configuration

    configuration = load_configuration(config, (*overrides, *changes))
    from pipeline.local.run import run

    sys.exit(run(configuration, as_json=as_json))
