"""`autoencoder drift`: is it time to re-train?"""

import dataclasses
import json
import sys
from functools import reduce
from operator import add
from pathlib import Path

import click

from runtime.errors import REFUSED

RUNS = Path("runs")


@click.command()
@click.argument("scores", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="A run, a folder of versions or one version; by default the last one pushed below runs/.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def drift(scores: tuple[Path, ...], model: Path | None, as_json: bool) -> None:
    """Say whether recorded scores have moved away from those of the normal images the model was calibrated with.

    SCORES are files written by `autoencoder score --format jsonl` (or csv) or by `autoencoder serve
    --record_scores`, or folders of them. No labels are needed. Exit status 3 where it is time to re-train.
    """
    from serving.drift import drift_of, read_scores
    from serving.model.versions import newest_base_folder, saved_model_folder
    from serving.score_log import ScoresError, read_calibration

    try:
        folder = saved_model_folder(model or newest_base_folder(RUNS))
        calibration = read_calibration(folder)
        if calibration is None:
            raise click.UsageError(f"{folder}: the model has no record of its calibration's scores; train it anew")
        found = drift_of(reduce(add, (read_scores(path, calibration) for path in scores)), calibration)
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from None
    except ScoresError as error:
        raise click.ClickException(str(error)) from None
    click.echo(json.dumps(dataclasses.asdict(found), indent=2) if as_json else found.sentence)
    if found.should_retrain:
        sys.exit(REFUSED)
