"""`autoencoder compare` runs and ranks families, and pushes the best one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import autoencoder

from pipeline.configuration.loading import load_configuration
from pipeline.local.compare import Entry, overrides_of, ranked, rivals
from trainer.settings.families import FAMILY_SETTINGS

DONE, BAD_USAGE, REFUSED = 0, 2, 3


def compare(root: Path, presets: str, *arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error)."""
    where = ("--set", f"root={root}")
    return autoencoder("compare", "configs/digits.yaml", "--json", "--presets", presets, *where, *arguments)


def pushed_best(root: Path, presets: str, epochs: int, thresholds: str, *, code: int) -> Any:
    """The --json document of a comparison with these bounds, which must end with this exit code."""
    bounds = ("--set", f"evaluation.thresholds={thresholds}")
    ended, stdout, stderr = compare(root, presets, "--epochs", str(epochs), "--push-best", *bounds)
    assert ended == code, stderr
    return json.loads(stdout)


@pytest.mark.slow
def test_the_best_blessed_family_is_pushed_and_the_others_are_not(tmp_path: Path) -> None:
    document = pushed_best(tmp_path, "sparse,deep", 25, "[]", code=DONE)
    best, other = document["ranking"]
    assert best["mean_error"] < other["mean_error"]
    assert (best["preset"], best["blessed"]) == ("deep", True)  # 64-8-64, penalised, against 64-128-8-128-64

    pushed = Path(document["pushed"])
    assert pushed.parent == tmp_path / "digits" / "serving"
    assert [version.name for version in pushed.parent.iterdir() if version.name.isdigit()] == [pushed.name]
    record = json.loads((pushed / "assets.extra" / "autoencoder.json").read_text(encoding="utf-8"))
    assert (record["trainer"]["preset"], record["trainer"]["epochs"]) == ("deep", 25)
    assert record["parameters"] == best["parameters"]


@pytest.mark.slow
def test_if_no_family_is_blessed_nothing_is_pushed(tmp_path: Path) -> None:
    document = pushed_best(tmp_path, "dense", 1, "[{metric: mean_error, max: 1.0e-9}]", code=REFUSED)
    assert (document["ranking"][0]["blessed"], document["pushed"]) == (False, None)
    assert not (tmp_path / "digits").exists()


def test_an_unknown_family_is_reported_before_training(tmp_path: Path) -> None:
    code, _, stderr = compare(tmp_path, "deep,dens")
    assert code == BAD_USAGE
    assert "'dens' is none of dense, deep" in stderr
    assert "did you mean 'dense'?" in stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("preset", [name for name, family in FAMILY_SETTINGS.items() if not family.closed_form])
def test_every_family_takes_the_configurations_batch_size_and_otherwise_enough_steps(
    tmp_path: Path, preset: str
) -> None:
    config = tmp_path / "own.yaml"
    config.write_text("trainer: {preset: deep, batch_size: 12}\n")
    trainer = load_configuration(config, overrides_of(config, (), preset, "own-compare", "x")).trainer
    assert (trainer.preset, trainer.batch_size, trainer.epochs) == (preset, 12, None)
    config.write_text("trainer: {preset: deep, epochs: 7}\n")
    trainer = load_configuration(config, overrides_of(config, (), preset, "own-compare", "x")).trainer
    assert (trainer.batch_size, trainer.epochs) == (None, 7)


def test_families_within_each_others_intervals_are_rivals() -> None:
    best = Entry("residual", mean_error=0.1, auroc=0.95, interval=(0.90, 0.99))
    close = Entry("conv", mean_error=0.1, auroc=0.90, interval=(0.84, 0.95))
    far = Entry("dense", mean_error=0.1, auroc=0.80, interval=(0.72, 0.86))
    assert rivals([best, close, far, Entry("deep", error="failed")]) == ["conv"]
    assert rivals([Entry("residual", mean_error=0.1), Entry("conv", mean_error=0.2)]) == []


def test_a_family_in_closed_form_runs_beside_those_that_are_trained(tmp_path: Path) -> None:
    """It is fitted once, so nothing about gradient descent applies, and its images have values in [0, 1]."""
    config = tmp_path / "own.yaml"
    config.write_text(
        "image: {normalisation: zscore}\ntrainer: {preset: deep, latent_dim: 9, batch_size: 12, epochs: 7, "
        "learning_rate: 0.01, augmentation: {shift_px: 2}}\n"
    )
    for preset in (name for name, family in FAMILY_SETTINGS.items() if family.closed_form):
        configuration = load_configuration(config, overrides_of(config, (), preset, "own-compare", "x"))
        assert (configuration.trainer.preset, configuration.trainer.latent_dim) == (preset, 9)
        assert configuration.image.normalisation == "unit"


def test_without_labels_synthetic_defects_rank_and_with_labels_they_do_not() -> None:
    sharp = Entry("conv", mean_error=0.1, synthetic_auroc=0.6, interval=(0.5, 0.7))
    finder = Entry("residual", mean_error=0.2, synthetic_auroc=0.9, interval=(0.8, 1.0))
    failed = Entry("deep", error="failed")
    assert [entry.preset for entry in ranked([failed, sharp, finder])] == ["residual", "conv", "deep"]
    assert rivals([finder, sharp]) == []
    labelled = [replace(sharp, auroc=0.95), replace(finder, auroc=0.7)]
    assert [entry.preset for entry in ranked(labelled)] == ["conv", "residual"]
