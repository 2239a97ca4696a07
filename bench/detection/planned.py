"""Takes a measurement from the file of results, or makes it in a new process."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from bench.detection.measurement import Measurement
from bench.detection.product import measure_product
from bench.detection.references import REFERENCES, measure_reference
from bench.detection.results_file import ResultsFile, key_of
from bench.detection.tasks import Task
from bench.timing import in_new_process
from pipeline.configuration.configuration import Configuration


@dataclass(frozen=True)
class Planned:
    """What is to be measured; `overrides` are those that the configuration was loaded with."""

    task: Task
    method: str
    seed: int
    configuration: Configuration
    overrides: tuple[str, ...]

    @property
    def is_reference(self) -> bool:
        return self.method in REFERENCES

    @property
    def what(self) -> str:
        """For messages."""
        return f"{self.task.name}, {self.method}, seed {self.seed}"

    def key(self) -> str:
        """References depend on the images' size alone, our models on the whole configuration."""
        settings = self.configuration.image if self.is_reference else self.configuration
        return key_of(
            self.task,
            self.method,
            self.seed,
            is_reference=self.is_reference,
            settings=settings.model_dump_json(),
        )


def measured(planned: Planned, file: ResultsFile) -> Measurement:
    """The measurement in the file, or else a new one, which is added to the file."""
    key = planned.key()
    if (known := file.get(key)) is not None:
        return known
    print(f"measuring {planned.what} ...", file=sys.stderr)
    arguments = (planned.task, planned.method, planned.seed, planned.configuration.image)
    if planned.is_reference:
        measurement: Measurement = in_new_process(_quietly, measure_reference, *arguments)
    else:
        measurement = in_new_process(_quietly, measure_product, *arguments, planned.overrides)
    file.add(key, measurement)
    return measurement


def _quietly(measure: Callable[..., Measurement], *arguments: object) -> Measurement:
    """Redirect standard output to standard error, where TensorFlow's messages do not spoil the table."""
    os.dup2(2, 1)
    return measure(*arguments)
