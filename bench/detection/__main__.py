"""The command behind `make bench-detection`: how well our models and four references find defects.

Exit codes: 0 if everything was measured; 1 if something could not be; 2 for bad usage.
"""

import json
import os
import sys
from pathlib import Path

import click
from rich.console import Console

from bench.detection.measurement import Measurement
from bench.detection.planned import Planned, measured
from bench.detection.product import CONFIGURATION, DEFAULT
from bench.detection.references import REFERENCES
from bench.detection.results_file import ResultsFile
from bench.detection.table import document_of, table_of
from bench.detection.tasks import find_tasks
from bench.timing import REPOSITORY
from pipeline.configuration.configuration import Configuration
from pipeline.configuration.loading import load_configuration
from pipeline.errors import Command
from runtime.keras_flavour import use_keras_2
from trainer.settings.families import FAMILY_SETTINGS

_ALL = "all"
_RESULTS = REPOSITORY / "runs" / "bench-detection.jsonl"


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True, file_okay=False), help="A task, or a folder of tasks."
)
@click.option("--families", help="Also measure these families: names separated by commas, or `all`.")
@click.option("--methods", help="Measure only these methods, separated by commas.")
@click.option("--tasks", "names", help="Measure only these tasks, separated by commas.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Number of seeds.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=f"Change {CONFIGURATION}.")
@click.option("--results", type=click.Path(path_type=Path), default=_RESULTS, help="Measurements so far, to be reused.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all measurements to this file.")
def main(
    data: Path | None,
    families: str | None,
    methods: str | None,
    names: str | None,
    seeds: int,
    overrides: tuple[str, ...],
    results: Path,
    json_path: Path | None,
) -> None:
    """Measure how well defects are found, with several seeds, and print a table."""
    use_keras_2()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    configuration = load_configuration(REPOSITORY / CONFIGURATION, overrides)
    tasks = {task.name: task for task in find_tasks(data)}
    chosen_tasks = _chosen("--tasks", names.split(",") if names else list(tasks), list(tasks))
    more = [] if not families else list(FAMILY_SETTINGS) if families == _ALL else families.split(",")
    known = [DEFAULT, *_chosen("--families", more, list(FAMILY_SETTINGS)), *REFERENCES]
    chosen = _chosen("--methods", methods.split(",") if methods else known, known)
    plans = [
        Planned(tasks[name], method, seed, configuration, overrides)
        for name in chosen_tasks
        for method in chosen
        for seed in range(seeds)
    ]
    measurements, failures = _measure(plans, ResultsFile(results))
    _tell(measurements, failures, configuration, seeds, overrides, json_path)
    sys.exit(1 if failures else 0)


def _measure(plans: list[Planned], file: ResultsFile) -> tuple[list[Measurement], dict[str, str]]:
    """(measurements, what could not be measured -> why)."""
    measurements, failures = [], {}
    for planned in plans:
        try:
            measurements.append(measured(planned, file))
        except Exception as error:  # one failure must not discard the other measurements
            failures[planned.what] = f"{type(error).__name__}: {error}"
            print(f"{planned.what} failed: {error}", file=sys.stderr)
    return measurements, failures


def _chosen(option: str, names: list[str], known: list[str]) -> list[str]:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.BadParameter(f"unknown: {', '.join(unknown)}; there are: {', '.join(known)}", param_hint=option)
    return names


def _tell(
    measurements: list[Measurement],
    failures: dict[str, str],
    configuration: Configuration,
    seeds: int,
    overrides: tuple[str, ...],
    json_path: Path | None,
) -> None:
    image = configuration.image
    size = f"{image.height_px}x{image.width_px}x{image.channels}"
    console = Console(width=None if sys.stdout.isatty() else 180)
    of_seeds = "one seed" if seeds == 1 else f"mean of {seeds} seeds (largest difference)"
    console.print(table_of(measurements, title=f"{size}; in percent, {of_seeds}"))
    for what, reason in failures.items():
        console.print(f"{what} could not be measured: {reason}", style="red", markup=False)
    if json_path:
        settings = {"image": image.model_dump(), "seeds": seeds, "overrides": list(overrides)}
        document = document_of(measurements, failures, settings)
        json_path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
