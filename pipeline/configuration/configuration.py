"""The configuration: one immutable, validated value. Imports nothing heavy, so mistakes are reported immediately."""

import math
import re
from collections.abc import Iterator
from typing import Any

from pydantic import Field, ValidationError, model_validator

from components.settings import DataSettings, GateSettings
from pipeline.configuration.kubeflow import KubeflowSettings
from pipeline.metadata.store import MetadataSettings
from runtime.errors import UsageError
from runtime.places import bucket_problem, pattern_problem
from runtime.settings import Section
from trainer.settings.calibration import LARGEST_LATENT, LATENT_SCORES, CalibrationSettings
from trainer.settings.families import FAMILY_SETTINGS
from trainer.settings.image import ImageSettings
from trainer.settings.trainer import TrainerSettings
from trainer.settings.tuner import TunerSettings

_SECRET = re.compile(r"[\w+.-]+://[^/@\s]*:[^/@\s]*@|--\w*(secret|password|passwd|token)\w*(=|$)", re.IGNORECASE)


_SOURCES_OF_FILES = ("folder", "csv")
_SOURCES_OF_GROUPS = ("csv", "tfrecord")


class ConfigurationError(UsageError):
    """The configuration cannot be used; the message names the file, the field, the value and the remedy."""


class EvaluationSettings(CalibrationSettings, GateSettings):
    """The anomaly score with its false-alarm rate, and the gate: what the Calibrator and the Evaluator read."""


class PushSettings(Section):
    """The destination of blessed models."""

    destination: str | None = None
    """Folder that a model server watches, local or `s3://` or `gs://`; null: `serving/` in the run's folder."""
    keep: int | None = Field(None, ge=1)
    """Number of versions to keep in the destination, the newest ones; null keeps all."""


class BeamSettings(Section):
    """Options for Apache Beam, which runs the data steps."""

    args: tuple[str, ...] = ("--direct_running_mode=in_memory", "--direct_num_workers=1")
    """Options of every component that runs on Beam; options after `--` on the command line are added."""
    components: dict[str, tuple[str, ...]] = {}
    """Further options by component, e.g. `Transform`; they override those in `args`."""


class Configuration(Section):
    """Everything that a run depends on."""

    base: str | None = Field(None, exclude=True)
    """Another configuration file, relative to this one, whose values apply where this file states none."""
    name: str = Field("digits", pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)
    """The pipeline's name, and its folder below `root`."""
    root: str = "runs"
    """Folder of all runs."""
    seed: int = Field(42, ge=0, lt=2**31)
    """Seed of all random numbers."""
    data: DataSettings = Field(default_factory=DataSettings)
    image: ImageSettings = Field(default_factory=ImageSettings)
    trainer: TrainerSettings = Field(default_factory=lambda: TrainerSettings.model_validate({}))
    tuner: TunerSettings = Field(default_factory=TunerSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    push: PushSettings = Field(default_factory=PushSettings)
    beam: BeamSettings = Field(default_factory=BeamSettings)
    metadata: MetadataSettings = Field(default_factory=MetadataSettings)
    kubeflow: KubeflowSettings = Field(default_factory=KubeflowSettings)

    @model_validator(mode="after")
    def _check_search_space(self) -> "Configuration":
        for name, value in self.tuner.ends():
            try:
                TrainerSettings.model_validate({**self.trainer.model_dump(), name: value})
            except ValidationError as error:
                reason = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"tuner.search_space.{name}: {value!r} is not a valid value: {reason}") from None
        return self

    @model_validator(mode="after")
    def _check_secrets(self) -> "Configuration":
        for field, text in _texts("", self.model_dump()):
            if holds_secret(text):
                raise ValueError(
                    f"{field} holds a password or key, which would be written into artifacts and compiled packages: "
                    "remove it; set the credentials of object stores in the environment (AWS_ACCESS_KEY_ID, ...), "
                    "and give Beam's options after `--` on the command line"
                )
        return self

    @model_validator(mode="after")
    def _check_places(self) -> "Configuration":
        places = {f"data.{name}": getattr(self.data, name) for name in ("path", "exclude", "reviewed")}
        for field, place in {**places, "push.destination": self.push.destination}.items():
            if place and (problem := bucket_problem(place)):
                raise ValueError(f"{field} {place}: {problem}")
        if self.push.destination and (problem := pattern_problem(self.push.destination)):
            raise ValueError(f"push.destination {self.push.destination}: {problem}")
        return self

    @model_validator(mode="after")
    def _check_normalisation(self) -> "Configuration":
        if FAMILY_SETTINGS[self.trainer.preset].closed_form and self.image.normalisation != "unit":
            raise ValueError(
                f"image.normalisation '{self.image.normalisation}' does not apply to preset '{self.trainer.preset}', "
                "whose backbone scales pixels itself; remove it"
            )
        return self

    @model_validator(mode="after")
    def _check_pages(self) -> "Configuration":
        if self.image.page == "all" and self.data.source not in _SOURCES_OF_FILES:
            raise ValueError(
                f"image.page 'all' applies to the sources {' and '.join(_SOURCES_OF_FILES)}, not to "
                f"'{self.data.source}'; remove it"
            )
        return self

    @model_validator(mode="after")
    def _check_latent(self) -> "Configuration":
        latent_dim, values = self.trainer.latent_dim, math.prod(self.image.network_shape)
        section, what = ("image.tiles", "a tile") if self.image.tiles else ("image", "an image")
        if latent_dim is not None and latent_dim >= values:
            raise ValueError(
                f"trainer.latent_dim {latent_dim} is not smaller than the {values} values of {what}, so nothing "
                f"would be compressed; lower it, or raise {section}.height_px and {section}.width_px"
            )
        return self

    @model_validator(mode="after")
    def _check_groups(self) -> "Configuration":
        if self.evaluation.groups == "group" and self.data.source not in _SOURCES_OF_GROUPS:
            raise ValueError(
                f"evaluation.groups 'group' applies to the sources {' and '.join(_SOURCES_OF_GROUPS)}, not to "
                f"'{self.data.source}'; use 'label', or list the images with their groups in a manifest"
            )
        return self

    @model_validator(mode="after")
    def _check_latents_of_tiles(self) -> "Configuration":
        evaluation, tiles = self.evaluation, self.image.tile_count
        scores = evaluation.score_members if evaluation.score == "ensemble" else (evaluation.score,)
        users = [f"evaluation.score {score}" for score in scores if score in LATENT_SCORES]
        users += ["evaluation.groups"] if evaluation.groups else []
        latent_dim = tiles * (self.trainer.latent_dim or 1)
        if self.image.tiles and latent_dim > LARGEST_LATENT and users:
            raise ValueError(
                f"{users[0]} supports latents of at most {LARGEST_LATENT} numbers, but that of an image of {tiles} "
                f"tiles has {latent_dim} or more; remove it, lower trainer.latent_dim, or use larger tiles"
            )
        return self


def holds_secret(text: str) -> bool:
    """Whether `text` is an address with a password, or an option whose name suggests that its value is secret."""
    return bool(_SECRET.match(text))


def _texts(field: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every string in a value, with the dotted name of its field."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(f"{field}.{name}" if field else str(name), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(field, inner)
    elif isinstance(value, str):
        yield field, value
