"""The command behind `make bench`: measures every speed claim as a ratio, in one run.

Exit codes: 0 if every claim holds; 1 if one does not or an area could not be measured; 2 for bad usage. `--size tiny`
only shows that every area can be measured, two at a time: whether the claims hold is printed, and does not count.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
from rich.console import Console

from bench.areas import AREAS, measure
from bench.comparison import Comparison
from bench.images import MNIST_VARIABLE
from bench.recorded import recorded, worse
from bench.table import document_of, table_of
from bench.timing import in_new_process

_TINY = "tiny"
_SIDE_BY_SIDE = 2
"""Areas of the size tiny: more cores would help, but each takes 2 GB of memory."""
_REPETITIONS = {_TINY: 1, "small": 1, "full": 3}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("areas", nargs=-1, type=click.Choice(AREAS))
@click.option("--size", type=click.Choice(list(_REPETITIONS)), default="full", show_default=True)
@click.option("--repetitions", type=click.IntRange(min=1), help="Default: 3; 1 unless --size is full.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all measurements to this file.")
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of MNIST files.")
def main(areas: tuple[str, ...], size: str, repetitions: int | None, json_path: Path | None, data: Path | None) -> None:
    """Measure AREAS (default: all) and compare them with their claims."""
    if data:
        os.environ[MNIST_VARIABLE] = str(data.absolute())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    repetitions = repetitions or _REPETITIONS[size]
    console = Console(width=None if sys.stdout.isatty() else 160)
    with ThreadPoolExecutor(_SIDE_BY_SIDE if size == _TINY else 1) as side_by_side:
        chosen = areas or AREAS
        comparisons: list[Comparison] = []
        failures: dict[str, str] = {}
        measured = side_by_side.map(lambda area: _measured(area, size, repetitions), chosen)
        for area, rows in zip(chosen, measured, strict=True):
            if isinstance(rows, str):
                failures[area] = rows
            else:
                comparisons += rows
            document = document_of(comparisons, failures, size=size, repetitions=repetitions)
            if json_path:  # after each area, so that an interruption loses one at most
                json_path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    console.print(table_of(comparisons, title=f"--size {size}, medians of {repetitions}"))
    for area, reason in failures.items():
        console.print(f"{area} could not be measured: {reason}", style="red", markup=False)
    for line in worse(document, recorded()):
        console.print(f"worse than recorded: {line}", style="yellow", markup=False)
    holds = size == _TINY or all(comparison.holds for comparison in comparisons)
    sys.exit(0 if holds and not failures else 1)


def _measured(area: str, size: str, repetitions: int) -> list[Comparison] | str:
    """The area's comparisons, or why it could not be measured, which must not discard the others' measurements."""
    started = time.monotonic()
    print(f"measuring {area} ...", file=sys.stderr)
    try:
        comparisons: list[Comparison] = in_new_process(measure, area, size, repetitions)
        return comparisons
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        print(f"measured {area} in {time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
