"""The command line's Kubeflow part."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from repository import REPOSITORY

from pipeline.commands.kubeflow import compile_, rehearse, schedule, submit

DOCUMENTATION = REPOSITORY / "docs" / "kubeflow.md"
COMMANDS = {"compile": compile_, "rehearse": rehearse, "submit": submit, "schedule": schedule}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_shows_a_whole_example(name: str) -> None:
    result = CliRunner().invoke(COMMANDS[name], ["--help"])
    assert result.exit_code == 0
    assert f"autoencoder {name}" in result.output.partition("Example:")[2]


def _commands_in_the_documentation() -> list[list[str]]:
    text = DOCUMENTATION.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (line.strip() for line in text.splitlines() if line.startswith("    autoencoder "))
    return [shlex.split(line)[1:] for line in lines]


def test_the_documentation_shows_every_command() -> None:
    assert {words[0] for words in _commands_in_the_documentation()} == set(COMMANDS)


@pytest.mark.parametrize("words", _commands_in_the_documentation(), ids=" ".join)
def test_the_documented_commands_have_the_options_that_they_use(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEFLOW_HOST", "http://localhost:8080")  # as the documentation says before
    COMMANDS[words[0]].make_context(words[0], words[1:])


def test_the_rehearsal_says_that_it_is_one() -> None:
    text = " ".join(CliRunner().invoke(rehearse, ["--help"]).output.split())
    assert "It is a rehearsal, not a run on Kubeflow." in text
    assert "Not played: Argo" in text


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pipeline.commands import kubeflow as k\n"
        "for c in (k.compile_, k.rehearse, k.submit, k.schedule): c.main(['--help'], standalone_mode=False)\n"
        "print(sorted({'tensorflow', 'tfx', 'kfp', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


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
def test_a_package_that_could_not_run_is_refused_at_once(tmp_path: Path, arguments: list[str], reason: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("name: digits\ntrainer: {latent_dim: 8}\n", encoding="utf-8")
    output = tmp_path / "pipeline.yaml"
    result = CliRunner().invoke(compile_, ["--config", str(config), *arguments, "-o", str(output)])
    assert result.exit_code == 2
    assert reason in result.output
    assert not output.exists()


@pytest.mark.parametrize(
    ("output", "reason"), [("pipeline.json", "must end in .yaml"), ("missing/pipeline.yaml", "create it first")]
)
def test_a_package_that_could_not_be_written_is_refused_before_it_is_compiled(
    tmp_path: Path, output: str, reason: str
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("name: digits\ntrainer: {latent_dim: 8}\n", encoding="utf-8")
    image = "registry.example/ae@sha256:" + "4f" * 32
    arguments = ["--config", str(config), "--image", image, "--root", "s3://b/x", "-o", str(tmp_path / output)]
    result = CliRunner().invoke(compile_, arguments)
    assert result.exit_code == 2
    assert reason in result.output


def test_what_is_no_package_is_not_rehearsed(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("name: digits\n", encoding="utf-8")
    result = CliRunner().invoke(rehearse, [str(path), "--folder", str(tmp_path / "r")])
    assert result.exit_code == 2
    assert "is not a compiled package; create one with: autoencoder compile" in result.output
