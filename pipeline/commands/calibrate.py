"""`autoencoder calibrate`: another false-alarm rate, or another score, for the model that was trained last."""

import sys
from pathlib import Path

import click

from pipeline.commands.exit_codes import exit_with_message
from pipeline.commands.options import set_option


@click.command()
@click.argument("config", type=click.Path(path_type=Path), default=Path("configs/digits.yaml"))
@click.option("--rate", type=float, help="Share of normal images that may raise an alarm, e.g. 0.005.")
@click.option("--score", help="What is scored: error, local_ssim, ... (see docs/scores.md).")
@set_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
def calibrate(config: Path, rate: float | None, score: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Run what CONFIG describes with another false-alarm rate or score, training nothing anew.

    The same as `autoencoder run CONFIG --set evaluation.false_alarm_rate=RATE`: the Trainer's result is taken from the
    last run, and the Calibrator and what follows it run again. To keep the rate, write it into CONFIG.

    Example: autoencoder calibrate configs/mnist-deep.yaml --rate 0.005
    """
    if rate is None and score is None:
        raise click.UsageError("say what to change: --rate 0.005, --score local_ssim, or both")
    wanted = {"false_alarm_rate": rate, "score": score}
    changes = tuple(f"evaluation.{field}={value}" for field, value in wanted.items() if value is not None)
    with exit_with_message():
        from pipeline.configuration.loading import load_configuration

        configuration = load_configuration(config, (*overrides, *changes))
        from pipeline.local.run import run

        sys.exit(run(configuration, as_json=as_json))
