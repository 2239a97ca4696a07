"""The `tuner:` section of the configuration."""

import difflib
from collections.abc import Iterator
from typing import Any

from pydantic import Field, model_validator

from runtime.settings import Section
from trainer.settings.trainer import TrainerSettings


class Range(Section):
    """Numbers from `min` to `max`, both included; whole ones if both are."""

    min: int | float
    max: int | float
    log: bool = False
    """Every order of magnitude as often as any other."""

    @model_validator(mode="after")
    def _check_order(self) -> "Range":
        if self.min >= self.max or (self.log and self.min <= 0):
            raise ValueError(f"a range needs min below max, and with log a min above 0, not {self.min} and {self.max}")
        return self


class TunerSettings(Section):
    """A search for better `trainer` fields before training: by the error on held-out images, at random."""

    enabled: bool = False
    trials: int = Field(10, ge=1)
    epochs: int | None = Field(None, ge=1)
    """Of each trial; null: as many as `trainer.epochs`."""
    search_space: dict[str, list[Any] | Range] = {}
    """Field of `trainer` -> list of values, or {min, max, log}."""

    @model_validator(mode="after")
    def _check_space(self) -> "TunerSettings":
        if self.enabled and not self.search_space:
            raise ValueError("tuner.search_space is empty: name fields of trainer, e.g. learning_rate: [0.001, 0.003]")
        for name in self.search_space:
            if name not in TrainerSettings.model_fields:
                near = difflib.get_close_matches(name, TrainerSettings.model_fields, n=1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                raise ValueError(f"tuner.search_space: trainer has no field '{name}'{hint}")
        return self

    def ends(self) -> Iterator[tuple[str, Any]]:
        """(field, value) for all that can be chosen; of a range, both ends."""
        for name, choice in self.search_space.items():
            for value in (choice.min, choice.max) if isinstance(choice, Range) else choice:
                yield name, value
