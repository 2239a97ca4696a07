"""The model of what a run takes and costs predicts the runs that were measured, and docs/scale.md shows its tables."""

import re
import shlex

import pytest
from click.testing import CliRunner
from repository import REPOSITORY

from bench.cost import TRAINER, WORKLOADS, Resources, Step, Workload, main, price_of, seconds_of

MEASURED_S = {70_000: 26.0, 280_000: 48.7, 1_120_000: 134.0}
"""Whole runs of one epoch on images of 28x28, on two otherwise idle cores, without imports."""
ONE = Workload(image_kb=100.0, steps=(), decode_ms=0.5)


@pytest.mark.parametrize(("images", "measured_s"), MEASURED_S.items())
def test_the_model_predicts_the_measured_runs_within_20_percent(images, measured_s):
    digits, two_cores = WORKLOADS["digits"], Resources(cores=2, machine_cores=2)
    predicted_s = sum(seconds_of(step, digits, images, two_cores) for step in digits.steps)
    assert predicted_s == pytest.approx(measured_s, rel=0.2)


@pytest.mark.parametrize(
    ("resources", "seconds"),
    [
        (Resources(cores=1, mb_per_s=1e9), 5 + 200),
        (Resources(cores=100, mb_per_s=1e9), 5 + 2),
        (Resources(cores=100, mb_per_s=100.0), 5 + 100),  # 100,000 images of 100 kB, to be read at 100 MB/s
    ],
)
def test_a_step_takes_the_longer_of_processing_and_transfer(resources, seconds):
    step = Step("ImageExampleGen", fixed_s=5, ms_per_image=4, share=0.5, transfers=2)
    assert seconds_of(step, ONE, 100_000, resources) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("gpus", "cores", "seconds"),
    [
        (0, 4, 1_000_000 * 0.020 / 4),
        (1, 4, 1_000_000 / 1000),
        (2, 4, 1_000_000 / 2000),
        (8, 4, 1_000_000 * 0.0005 / 4),  # four cores decode 8,000 images a second
    ],
)
def test_the_trainer_uses_the_machine_s_gpus_as_far_as_its_cores_can_decode(gpus, cores, seconds):
    step = Step(TRAINER, fixed_s=0, ms_per_image=20, share=1.0, transfers=1, on_beam=False)
    resources = Resources(cores=500, machine_cores=cores, mb_per_s=1e9, gpus=gpus, images_per_gpu_s=1000.0, epochs=10)
    assert seconds_of(step, ONE, 100_000, resources) == pytest.approx(seconds)


def test_the_price_covers_the_cluster_s_cores_on_beam_and_the_machine_elsewhere():
    resources = Resources(cores=100, machine_cores=8, gpus=2, core_hour=0.5, gpu_hour=3.0)
    assert price_of(Step("Transform", 0, 0, 0, 0), 1800, resources) == 25.0
    assert price_of(Step("Pusher", 0, 0, 0, 0, on_beam=False), 1800, resources) == 2.0
    assert price_of(Step(TRAINER, 0, 0, 0, 0, on_beam=False), 1800, resources) == 5.0


def test_prices_are_required():
    assert "--core-hour" in CliRunner().invoke(main, ["digits", "--tb-month", "1"]).output


def test_the_documentation_shows_what_its_commands_print():
    page = (REPOSITORY / "docs" / "scale.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python -m bench\.cost (.+?)$", page.replace("\\\n", ""), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        printed = CliRunner().invoke(main, shlex.split(command))
        assert printed.exit_code == 0, printed.output
        assert printed.output in page, command
