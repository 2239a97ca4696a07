"""Trains several families on the same images, each in its own run, and ranks them."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.configuration.configuration import Configuration
from pipeline.configuration.loading import load_configuration, read_values
from runtime.errors import DONE, REFUSED
from serving.model.versions import RUN_SUBFOLDER
from trainer.settings.families import PRESET_FIELDS


@dataclass(frozen=True)
class Entry:
    """One family's result; if its run failed, the numbers are None and `error` has the reason."""

    preset: str
    blessed: bool = False
    mean_error: float | None = None
    pca_ratio: float | None = None
    """Mean error divided by that of PCA with as many components."""
    auroc: float | None = None
    parameters: int | None = None
    training_s: float | None = None
    images_per_s: float | None = None
    error: str | None = None


def overrides_for(
    configuration: Configuration, trainer: dict[str, Any], preset: str, *, push_destination: str
) -> tuple[str, ...]:
    """The overrides that turn `configuration` into one family's run; `trainer`: its `trainer:` section as written.

    The runs share one pipeline, so the images are ingested once; no model is compared with another family's.
    """
    common = {field: value for field, value in trainer.items() if field not in PRESET_FIELDS}
    return (
        f"name={comparison_name(configuration)}",
        f"trainer={json.dumps({**common, 'preset': preset})}",
        "evaluation.max_regression=null",
        f"push.destination={json.dumps(push_destination)}",
    )


def comparison_name(configuration: Configuration) -> str:
    """The name of the pipeline that compares the families."""
    return f"{configuration.name}-compare"


def compare(config: Path, overrides: tuple[str, ...], presets: Iterable[str]) -> Iterator[Entry]:
    """Run each family, and yield its result as soon as it is known.

    Raises ConfigurationError before the first run if the configuration of any family is invalid.
    """
    configuration = load_configuration(config, overrides)
    trainer = trainer_section(config, overrides)
    folder = Path(configuration.root).expanduser() / comparison_name(configuration)
    planned = []
    for preset in presets:
        own = overrides_for(configuration, trainer, preset, push_destination=str(folder.absolute() / preset))
        load_configuration(config, (*overrides, *own))
        planned.append((preset, own))
    for preset, own in planned:
        yield _entry(preset, run_of(config, (*overrides, *own)))


def push_best(config: Path, overrides: tuple[str, ...], preset: str) -> str | None:
    """Push one family's model to the destination of the configuration's own runs; everything else is cached.

    Returns the version's folder, or None if nothing was pushed.
    """
    configuration = load_configuration(config, overrides)
    destination = configuration.push.destination or str(
        (Path(configuration.root).expanduser() / configuration.name / RUN_SUBFOLDER).absolute()
    )
    trainer = trainer_section(config, overrides)
    own = overrides_for(configuration, trainer, preset, push_destination=destination)
    pushed: str | None = run_of(config, (*overrides, *own)).get("pushed")
    return pushed


def trainer_section(config: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    """The `trainer:` section of the file and the overrides, without any preset's defaults."""
    section: dict[str, Any] = read_values(config, overrides).get("trainer") or {}
    return section


def run_of(config: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    """The document of `autoencoder run --json` in its own process, which frees its memory; shows its progress."""
    settings = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "pipeline", "run", str(config), "--json", *settings]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout.strip():
        return {"error": f"ended with status {done.returncode}"}
    document: dict[str, Any] = json.loads(done.stdout)
    if done.returncode not in (DONE, REFUSED) and not document.get("error"):
        document["error"] = f"ended with status {done.returncode}"
    return document


def _entry(preset: str, document: dict[str, Any]) -> Entry:
    if document["error"]:
        return Entry(preset, error=document["error"])
    metrics, model = document["metrics"], document["model"]
    seen = document["images"]["train"] * model["epochs"]
    return Entry(
        preset=preset,
        blessed=document["blessed"],
        mean_error=metrics["mean_error"],
        pca_ratio=metrics["mean_error"] / metrics["pca_mean_error"] if metrics.get("pca_mean_error") else None,
        auroc=metrics.get("auroc"),
        parameters=model["parameters"],
        training_s=model["training_s"],
        images_per_s=seen / model["training_s"] if model["training_s"] else None,
    )


def ranked(entries: Iterable[Entry]) -> list[Entry]:
    """Best first: by AUROC if it is known, otherwise by mean error; failed runs last."""

    def key(entry: Entry) -> tuple[bool, float, float]:
        return entry.mean_error is None, -(entry.auroc or 0.0), entry.mean_error or 0.0

    return sorted(entries, key=key)
