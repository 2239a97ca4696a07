"""The `tuner:` section of the configuration."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field, model_validator

from runtime.did_you_mean import did_you_mean
from runtime.settings import Section
from trainer.settings.trainer import TrainerSettings


class Range(Section):
    """A range of numbers to search, inclusive; integers if both ends are."""

    min: int | float
    """Smallest value."""
    max: int | float
    """Largest value."""
    log: bool = False
    """Sample on a logarithmic scale."""

    @model_validator(mode="after")
    def _check_order(self) -> "Range":
        if self.min >= self.max or (self.log and self.min <= 0):
            raise ValueError(
                f"min {self.min} and max {self.max} are not a range: min must be below max, and above 0 with log: true"
            )
        return self


class TunerSettings(Section):
    """A random search for better values of `trainer:` fields before training, by the error on held-out images."""

    enabled: bool = False
    """Run the search before training."""
    trials: int = Field(10, ge=1)
    """Number of trials, each a training run with random values from the search space."""
    epochs: int | None = Field(None, ge=1)
    """Epochs per trial. null: `trainer.epochs`."""
    search_space: dict[str, list[Any] | Range] = {}
    """Fields of `trainer:`, each with a list of values or a range `{min, max, log}`."""

    @model_validator(mode="after")
    def _check_space(self) -> "TunerSettings":
        if self.enabled and not self.search_space:
            raise ValueError(
                "tuner.search_space is empty; name fields of trainer, such as learning_rate: [0.001, 0.003]"
            )
        for name in self.search_space:
            if name not in TrainerSettings.model_fields:
                hint = did_you_mean(name, TrainerSettings.model_fields)
                raise ValueError(f"tuner.search_space: trainer has no field '{name}'{hint}")
            if self.search_space[name] == []:
                raise ValueError(f"tuner.search_space.{name} is empty; give values, or a range {{min, max}}")
        return self

    def ends(self) -> Iterator[tuple[str, Any]]:
        """(field, value) for every value in the search space; for a range, both ends."""
        for name, choice in self.search_space.items():
            for value in (choice.min, choice.max) if isinstance(choice, Range) else choice:
                yield name, value
