"""`autoencoder compile` refuses what could not run or be written, before it compiles."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pipeline.commands.compile import compile_

IMAGE = "registry.example/ae@sha256:" + "4f" * 32


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--image", "registry.example/ae:latest", "--root", "s3://bucket/x"], "is a tag"),
        (
            ["--image", "registry.example/ae:1", "--allow-tag", "--root", "file:///tmp"],
            "must be an object store",
        ),
    ],
)
def test_a_package_that_could_not_run_is_refused(tmp_path: Path, arguments: list[str], reason: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("name: digits\ntrainer: {latent_dim: 8}\n", encoding="utf-8")
    output = tmp_path / "pipeline.yaml"
    result = CliRunner().invoke(compile_, [str(config), *arguments, "-o", str(output)])
    assert result.exit_code == 2
    assert reason in result.output
    assert not output.exists()


@pytest.mark.parametrize(
    ("output", "reason"), [("pipeline.json", "must end in .yaml"), ("missing/pipeline.yaml", "create it first")]
)
def test_an_unwritable_output_is_refused_before_compilation(tmp_path: Path, output: str, reason: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("name: digits\ntrainer: {latent_dim: 8}\n", encoding="utf-8")
    arguments = [str(config), "--image", IMAGE, "--root", "s3://bucket/x", "-o", str(tmp_path / output)]
    result = CliRunner().invoke(compile_, arguments)
    assert result.exit_code == 2
    assert reason in result.output


@pytest.mark.parametrize("before", [[], ["--config"]])
def test_the_configuration_is_an_argument_and_the_former_option_still_works(tmp_path: Path, before: list[str]) -> None:
    arguments = [*before, str(tmp_path / "missing.yaml"), "--image", IMAGE, "--root", "s3://bucket/x"]
    result = CliRunner().invoke(compile_, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{tmp_path / 'missing.yaml'}: no such configuration file")


def test_a_missing_configuration_is_a_usage_error() -> None:
    result = CliRunner().invoke(compile_, ["--image", IMAGE, "--root", "s3://bucket/x"])
    assert result.exit_code == 2
    assert "Missing argument 'CONFIG'" in result.stderr


def test_a_package_contains_the_values_of_the_base(tmp_path: Path) -> None:
    (tmp_path / "plant.yaml").write_text("name: plant\ntrainer: {latent_dim: 8, epochs: 9}\n", encoding="utf-8")
    config = tmp_path / "cap.yaml"
    config.write_text("base: plant.yaml\nname: cap\ntrainer: {epochs: 7}\n", encoding="utf-8")
    output = tmp_path / "pipeline.yaml"
    result = CliRunner().invoke(compile_, [str(config), "--image", IMAGE, "--root", "s3://bucket/x", "-o", str(output)])
    assert result.exit_code == 0, result.output
    package = output.read_text(encoding="utf-8")
    found = [
        json.loads(text) for text in _strings(yaml.safe_load(package)) if text.startswith("{") and '"trainer"' in text
    ]
    trainers = [parameters["trainer"] for parameters in found if "trainer" in parameters]
    assert trainers
    assert all((trainer["latent_dim"], trainer["epochs"]) == (8, 7) for trainer in trainers)
    assert "plant" not in package


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
