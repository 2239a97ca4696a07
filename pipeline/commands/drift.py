"""`autoencoder drift`: checks whether it is time to retrain."""

import dataclasses
import json
import sys
from pathlib import Path

import click

from pipeline.commands.options import PATH, RUNS, json_option
from pipeline.errors import Command
from runtime.errors import REFUSED, UsageError


@click.command(cls=Command)
@click.argument("scores", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--model", type=PATH, help="A run, a folder of versions or one version; by default the one pushed last below runs/."
)
@json_option
def drift(scores: tuple[Path, ...], model: Path | None, as_json: bool) -> None:
    """Check whether recorded scores have drifted.

    They are compared with the scores of the normal images that calibrated the model. SCORES are files written by
    `autoencoder score --format jsonl` (or csv), by `autoencoder watch` or by `autoencoder serve --record-scores`, or
    folders of them. A watch writes the same results to NAME.jsonl and NAME.csv; only the first is read. No labels are
    needed. The exit code is 3 if it is time to retrain.
    """
    from serving.drift import drift_of, read_scores
    from serving.model.versions import newest_base_folder, saved_model_folder
    from serving.score_log import read_calibration

    folder = saved_model_folder(model or newest_base_folder(RUNS))
    calibration = read_calibration(folder)
    if calibration is None:
        raise UsageError(f"{folder}: the model has no record of its calibration scores; retrain it")
    found = drift_of(read_scores(scores, calibration), calibration)
    click.echo(json.dumps(dataclasses.asdict(found), indent=2) if as_json else found.sentence)
    if found.should_retrain:
        sys.exit(REFUSED)
