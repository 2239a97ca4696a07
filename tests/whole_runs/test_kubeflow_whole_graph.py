"""The real graph, compiled and simulated from end to end."""

import json
from pathlib import Path

import pytest
import yaml
from command_line import autoencoder
from repository import REPOSITORY

from pipeline.kubeflow.simulator.driver import Records
from schema.artifacts import PEAK_MEMORY_PROPERTY

IMAGE = "registry.example/autoencoder@sha256:" + "4f" * 32
FROM_THE_EVALUATOR_ON = {"Evaluator", "Report", "Pusher"}
NEVER_CACHED = {"data-version", "verdict", "fail-when-refused"}


def _autoencoder(*arguments: str) -> str:
    status, printed, log = autoencoder(*arguments)
    assert status == 0, log
    return printed


def _compile(package: Path, *arguments: str) -> None:
    config = str(REPOSITORY / "configs" / "digits.yaml")
    fixed = ["--config", config, "--image", IMAGE, "--root", "s3://bucket/prefix", "-o", str(package)]
    _autoencoder("compile", *fixed, "--set", "trainer.epochs=30", *arguments)


def _rehearse(package: Path, folder: Path, *arguments: str) -> dict[str, str]:
    output = _autoencoder("rehearse", str(package), "--folder", str(folder), "--json", *arguments)
    return {outcome["name"]: outcome["state"] for outcome in json.loads(output)}


def _pushed(folder: Path) -> list[Path]:
    return sorted((folder / "store" / "bucket" / "prefix" / "digits" / "serving").glob("*/saved_model.pb"))


def _peaks_gb(folder: Path) -> list[float]:
    """What the pods measured of themselves."""
    artifacts = Records(folder / "records.json").artifacts.values()
    peaks = [a["metadata"][PEAK_MEMORY_PROPERTY] / 1e3 for a in artifacts if PEAK_MEMORY_PROPERTY in a["metadata"]]
    assert len(peaks) > 10
    return peaks


def _smallest_request_gb() -> float:
    """Of the example of a first run, which trains the same model on the same images."""
    example = yaml.safe_load((REPOSITORY / "configs" / "kubeflow.yaml").read_text(encoding="utf-8"))
    return min(pod["memory_gb"] for pod in example["kubeflow"]["pods"].values())


@pytest.mark.slow
def test_the_whole_graph_runs_and_reruns_only_what_changed(tmp_path: Path) -> None:
    package, folder = tmp_path / "pipeline.yaml", tmp_path / "rehearsal"
    _compile(package)
    first = _rehearse(package, folder)
    assert set(first.values()) == {"ran"}
    assert len(first) == 15
    [saved_model] = _pushed(folder)
    record = json.loads((saved_model.parent / "assets.extra" / "autoencoder.json").read_text(encoding="utf-8"))
    assert record["data_fingerprint"] == "scikit-learn digits"
    assert max(_peaks_gb(folder)) < _smallest_request_gb()

    second = _rehearse(package, folder)
    assert {name for name, state in second.items() if state == "ran"} == NEVER_CACHED
    pages = sorted((folder / "store" / "bucket" / "prefix" / "digits").glob("*/verdict/*/page"))
    assert len(pages) == 2  # also of the run whose report came from the cache
    assert {page.read_bytes()[:15] for page in pages} == {b"<!doctype html>"}

    _compile(package, "--set", "evaluation.max_regression=0.5")
    third = _rehearse(package, folder)
    assert {name for name, state in third.items() if state == "ran"} == {*NEVER_CACHED, *FROM_THE_EVALUATOR_ON}
    assert len(_pushed(folder)) == 1  # the same model is not pushed again
