"""Models what a run on millions of images takes and costs: `python -m bench.cost --help`, and docs/scale.md.

Each component takes a fixed time, and then for every image the longer of two: its processor time, shared by the cores,
and the transfer of the bytes that it moves, at the storage's bandwidth. The slopes are measured; prices are parameters,
because they differ between providers and change.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import click

COUNTS: Final = (1_000_000, 10_000_000, 100_000_000)
TRAINER: Final = "Trainer"
_S_PER_HOUR: Final = 3600.0
_KB_PER_TB: Final = 1e9


@dataclass(frozen=True)
class Step:
    """What a component does; `share` is the part of all images that it handles."""

    component: str
    fixed_s: float
    ms_per_image: float
    """Processor time on one core; in the Trainer, of one epoch."""
    share: float
    transfers: int
    """How often the bytes of its images are read or written."""
    on_beam: bool = True
    """Whether a cluster's cores share the work; otherwise those of one machine do."""


@dataclass(frozen=True)
class Workload:
    """A kind of images, and the steps of a run that trains one kind of model on them."""

    image_kb: float
    steps: tuple[Step, ...]
    decode_ms: float
    """Processor time in which the Trainer decodes an image for a GPU."""


@dataclass(frozen=True)
class Resources:
    """What a run may use, and its prices, in any one currency."""

    cores: int = 1
    """Of Beam's workers: 1 for a run without a cluster, whatever the machine has."""
    machine_cores: int = 1
    """Of the machine that trains and calibrates."""
    mb_per_s: float = 1000.0
    gpus: int = 0
    images_per_gpu_s: float = 1.0
    epochs: int = 1
    core_hour: float = 0.0
    gpu_hour: float = 0.0
    tb_month: float = 0.0


_FIXED_S: Final = {
    "ImageExampleGen": 0.3,
    "StatisticsGen": 0.2,
    "Transform": 0.4,
    TRAINER: 3.7,
    "Calibrator": 3.1,
    "ModelAnalysis": 5.6,
    "Pusher": 2.9,
    "Report": 2.6,
}
"""What each component of a run on digits takes if its number of images goes to zero, without imports."""
_ON_ONE_MACHINE: Final = (TRAINER, "Calibrator", "Pusher", "Report")


def _steps(**of_images: tuple[float, float, int]) -> tuple[Step, ...]:
    """A run's steps, given for each component that handles images its milliseconds for each, share and transfers."""
    return tuple(
        Step(name, fixed_s, *of_images.get(name, (0.0, 0.0, 0)), on_beam=name not in _ON_ONE_MACHINE)
        for name, fixed_s in _FIXED_S.items()
    )


WORKLOADS: Final = {
    # Between whole runs of one epoch of 784-32-784 on 2,100 and 210,000 images of 28x28, a seventh of them for test.
    "digits": Workload(
        image_kb=0.6,
        steps=_steps(
            ImageExampleGen=(0.022, 1.0, 2),
            StatisticsGen=(0.012, 1.0, 1),
            Transform=(0.0, 0.77, 0),
            Trainer=(0.074, 0.77, 1),
            Calibrator=(0.25, 0.086, 1),
            ModelAnalysis=(0.55, 0.143, 2),
            Report=(0.007, 1.0, 0),
        ),
        decode_ms=0.01,
    ),
    # Each step alone, on colour JPEGs of 256x256, with `filters: [16, 32, 64, 64]` and `latent_dim: 128`.
    "photographs": Workload(
        image_kb=21.0,
        steps=_steps(
            ImageExampleGen=(1.5, 1.0, 2),
            StatisticsGen=(0.15, 1.0, 1),
            Transform=(1.6, 0.8, 1),
            Trainer=(27.5, 0.8, 1),
            Calibrator=(8.1, 0.1, 1),
            ModelAnalysis=(38.0, 0.1, 2),
            Report=(0.007, 1.0, 0),
        ),
        decode_ms=0.44,
    ),
}


def seconds_of(step: Step, workload: Workload, images: int, resources: Resources) -> float:
    """Wall-clock seconds of a component in a run on so many images."""
    handled = step.share * images * (resources.epochs if step.component == TRAINER else 1)
    cores = resources.cores if step.on_beam else resources.machine_cores
    if step.component == TRAINER and resources.gpus:
        on_gpus = handled / (resources.gpus * resources.images_per_gpu_s)
        computing = max(on_gpus, handled * workload.decode_ms / 1000 / cores)
    else:
        computing = handled * step.ms_per_image / 1000 / cores
    moving = handled * step.transfers * workload.image_kb / 1000 / resources.mb_per_s
    return step.fixed_s + max(computing, moving)


def price_of(step: Step, seconds: float, resources: Resources) -> float:
    """Of the cores, and while training the GPUs, during these seconds."""
    cores = resources.cores if step.on_beam else resources.machine_cores
    gpus = resources.gpus if step.component == TRAINER else 0
    return seconds / _S_PER_HOUR * (cores * resources.core_hour + gpus * resources.gpu_hour)


def lines_of(workload: Workload, resources: Resources) -> Iterator[str]:
    """A table in Markdown: for each component and number of images, the time and the price."""
    yield f"| component | each image, one core | {' | '.join(f'{count:,} images' for count in COUNTS)} |"
    yield f"|---|---|{'---|' * len(COUNTS)}"
    totals = [(0.0, 0.0)] * len(COUNTS)
    for step in workload.steps:
        seconds = [seconds_of(step, workload, count, resources) for count in COUNTS]
        prices = [price_of(step, time, resources) for time in seconds]
        totals = [(s + time, p + price) for (s, p), time, price in zip(totals, seconds, prices, strict=True)]
        cells = [_cell(time, price) for time, price in zip(seconds, prices, strict=True)]
        yield f"| {step.component} | {f'{step.ms_per_image:g} ms' if step.share else ''} | {' | '.join(cells)} |"
    yield f"| **the run** | | {' | '.join(_cell(*total) for total in totals)} |"
    stored = [2 * count * workload.image_kb / _KB_PER_TB for count in COUNTS]
    cells = [f"{tb:.2g} TB, {tb * resources.tb_month:,.2f}" for tb in stored]
    yield f"| storage, a month: images and examples | | {' | '.join(cells)} |"


def _cell(seconds: float, price: float) -> str:
    return f"{_time(seconds)}, {price:,.2f}"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / _S_PER_HOUR:,.1f} h"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("workload", type=click.Choice(list(WORKLOADS)))
@click.option("--cores", default=1, help="Of Beam's workers; 1 without a cluster.")
@click.option("--machine-cores", default=2, help="Of the machine that trains.")
@click.option("--mb-per-s", default=500.0, help="Bandwidth of the storage that holds images and artifacts.")
@click.option("--gpus", default=0, help="Of the machine that trains.")
@click.option("--images-per-gpu-s", default=1000.0, help="What one GPU trains; measure it with your network.")
@click.option("--epochs", default=10)
@click.option("--core-hour", type=float, required=True, help="Price of a core for an hour.")
@click.option("--gpu-hour", type=float, default=0.0, help="Price of a GPU for an hour.")
@click.option("--tb-month", type=float, required=True, help="Price of a stored terabyte for a month.")
def main(workload: str, **resources: float) -> None:
    """Print the time and the price of each component for runs on 1, 10 and 100 million images."""
    for line in lines_of(WORKLOADS[workload], Resources(**resources)):  # type: ignore[arg-type]
        click.echo(line)


if __name__ == "__main__":
    main()
