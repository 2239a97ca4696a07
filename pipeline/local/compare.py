"""Trains several families on the same images, each in its own run, and ranks them."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.configuration.configuration import ConfigurationError
from pipeline.configuration.loading import load_configuration, read_values
from runtime.errors import DONE, REFUSED
from serving.model.versions import RUN_SUBFOLDER
from trainer.settings.families import FAMILY_SETTINGS, PRESET_FIELDS
from trainer.settings.image import ImageSettings
from trainer.settings.trainer import GRADIENT_DESCENT_FIELDS


@dataclass(frozen=True)
class Entry:
    """One family's result; if its run failed, the numbers are None and `error` has the reason."""

    preset: str
    blessed: bool = False
    mean_error: float | None = None
    pca_ratio: float | None = None
    """Mean error divided by that of PCA with as many components."""
    auroc: float | None = None
    """Of labelled anomalies; None if there are none."""
    synthetic_auroc: float | None = None
    """Of faint synthetic defects in normal test images; None if there are too few of these."""
    interval: tuple[float, float] | None = None
    """The 95 % confidence interval, over test images, of the AUROC that ranks."""
    parameters: int | None = None
    training_s: float | None = None
    images_per_s: float | None = None
    error: str | None = None

    @property
    def detection(self) -> float | None:
        """The AUROC that ranks: of labelled anomalies, or else of synthetic defects."""
        return self.synthetic_auroc if self.auroc is None else self.auroc


def compare(config: Path, overrides: tuple[str, ...], presets: Iterable[str]) -> Iterator[Entry]:
    """Run each family, and yield its result as soon as it is known.

    A family whose settings CONFIG's common fields contradict gets an entry with that error. Raises ConfigurationError
    before the first run if CONFIG is invalid, or no family can run.
    """
    configuration = load_configuration(config, overrides)
    folder = (Path(configuration.root).expanduser() / f"{configuration.name}-compare").absolute()
    planned = {preset: overrides_of(config, overrides, preset, folder.name, str(folder / preset)) for preset in presets}
    errors = {preset: error for preset, own in planned.items() if (error := _mistake(config, own))}
    if len(errors) == len(planned):
        raise ConfigurationError("\n".join(f"{preset}: {error}" for preset, error in errors.items()))
    for preset, own in planned.items():
        if preset in errors:
            yield Entry(preset, error=errors[preset])
        else:
            yield _entry(preset, _run(config, own), configuration.image)


def _mistake(config: Path, overrides: tuple[str, ...]) -> str | None:
    """Why a family cannot run with these settings, if it cannot."""
    try:
        load_configuration(config, overrides)
    except ConfigurationError as error:
        return str(error)
    return None


def push_best(config: Path, overrides: tuple[str, ...], preset: str) -> str | None:
    """Push one family's model to the destination of the configuration's own runs; everything else is cached.

    Returns the version's folder, or None if nothing was pushed.
    """
    configuration = load_configuration(config, overrides)
    destination = configuration.push.destination or str(
        (Path(configuration.root).expanduser() / configuration.name / RUN_SUBFOLDER).absolute()
    )
    own = overrides_of(config, overrides, preset, f"{configuration.name}-compare", destination)
    pushed: str | None = _run(config, own).get("pushed")
    return pushed


def overrides_of(
    config: Path, overrides: tuple[str, ...], preset: str, pipeline: str, destination: str
) -> tuple[str, ...]:
    """The overrides of one family's run.

    The runs share one pipeline, so the images are ingested once; no model is compared with another family's.
    """
    trainer = read_values(config, overrides).get("trainer") or {}  # as written, without any preset's defaults
    common: dict[str, Any] = {
        "batch_size": None,
        "epochs": None,
    }  # unless they are set, the number of images determines them
    common |= {field: value for field, value in trainer.items() if field not in PRESET_FIELDS}
    family = FAMILY_SETTINGS[preset]
    if family.follows_images:  # here it takes the latent size of the others
        common = {"latent_dim": load_configuration(config, overrides).trainer.latent_dim, **common}
    if family.closed_form:
        common = {field: value for field, value in common.items() if field not in GRADIENT_DESCENT_FIELDS}
    return (
        *overrides,
        f"name={pipeline}",
        f"trainer={json.dumps({**common, 'preset': preset})}",
        *(["image.normalisation=unit"] if family.closed_form else []),
        "evaluation.max_regression=null",
        f"push.destination={destination}",
    )


def _run(config: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
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


def _entry(preset: str, document: dict[str, Any], image: ImageSettings) -> Entry:
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
        synthetic_auroc=metrics.get("synthetic_auroc"),
        interval=_interval(metrics, document["images"]["test"], image),
        parameters=model["parameters"],
        training_s=model["training_s"],
        images_per_s=seen / model["training_s"] if model["training_s"] else None,
    )


def _interval(metrics: dict[str, float], test_images: int, image: ImageSettings) -> tuple[float, float] | None:
    """The 95 % confidence interval of the AUROC that ranks.

    For synthetic defects it is that of one kind, so a little wide for the mean of all kinds.
    """
    from components.evaluation.reviewed import auroc_interval
    from components.evaluation.synthetic_auroc import most_images

    normal = round(metrics["example_count"])
    if "auroc" in metrics and 0 < normal < test_images:
        return auroc_interval(metrics["auroc"], test_images - normal, normal)
    if "synthetic_auroc" in metrics and normal:
        painted = min(normal, most_images(image.height_px, image.width_px))
        return auroc_interval(metrics["synthetic_auroc"], painted, painted)
    return None


def rivals(ranking: list[Entry]) -> list[str]:
    """Families that the test images cannot tell from the best one: the intervals of the AUROC that ranks overlap."""
    best, *others = ranking
    if best.interval is None:
        return []
    lowest, _ = best.interval
    return [e.preset for e in others if e.interval is not None and e.interval[1] >= lowest]


def ranked(entries: Iterable[Entry]) -> list[Entry]:
    """Best first: by AUROC of labelled anomalies, or else of synthetic defects, or else by mean error; failed last."""
    return sorted(entries, key=lambda e: (e.mean_error is None, -(e.detection or 0.0), e.mean_error or 0.0))
