"""Every command's `--help`, and the commands that the documentation shows."""

import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from repository import REPOSITORY

from pipeline.cli import COMMANDS, main

KUBEFLOW = {"compile", "rehearse", "submit", "schedule"}
HEAVY = {"tensorflow", "tfx", "kfp", "pyarrow", "numpy", "grpc", "starlette", "rich", "pydantic", "yaml"}


def documented_commands() -> list[list[str]]:
    text = (REPOSITORY / "docs" / "kubeflow.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (line.strip() for line in text.splitlines() if line.startswith("    autoencoder "))
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_describes_the_command_and_every_option(command: click.Command) -> None:
    assert CliRunner().invoke(command, ["--help"]).exit_code == 0
    assert command.help
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize("name", sorted(KUBEFLOW))
def test_help_of_a_kubeflow_command_shows_a_whole_example(name: str) -> None:
    text = CliRunner().invoke(main.commands[name], ["--help"]).output
    assert f"autoencoder {name}" in text.partition("Example")[2]


def test_kubeflows_documentation_shows_every_kubeflow_command() -> None:
    assert {words[0] for words in documented_commands()} == {*KUBEFLOW, "runs", "report"}


@pytest.mark.parametrize("words", documented_commands(), ids=" ".join)
def test_documented_commands_use_existing_options(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEFLOW_HOST", "http://localhost:8080")  # which the documentation sets first
    main.commands[words[0]].make_context(words[0], words[1:])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_option_is_accepted_with_hyphens_and_with_underscores(command: click.Command) -> None:
    context = main.make_context("autoencoder", ["--help"], resilient_parsing=True)
    for option in (option for option in command.params if isinstance(option, click.Option) and option.name):
        for name in (name[2:] for name in option.opts if name.startswith("--")):
            for spelled in (f"--{name.replace('-', '_')}", f"--{name.replace('_', '-')}"):
                arguments = [spelled] if option.is_flag else [spelled, "1"]
                child = command.make_context(command.name, arguments, parent=context, resilient_parsing=True)
                assert child.get_parameter_source(option.name) is click.core.ParameterSource.COMMANDLINE, spelled


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pipeline.cli import COMMANDS\n"
        "for command in COMMANDS: command.main(['--help'], standalone_mode=False)\n"
        f"print(sorted({HEAVY} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_the_list_of_commands_shows_every_summary_in_full_on_80_columns() -> None:
    listed = CliRunner().invoke(main, ["--help"], terminal_width=80).output.partition("Commands:")[2]
    assert len(listed.strip().splitlines()) == len(COMMANDS)
    assert "..." not in listed
