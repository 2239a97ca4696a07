"""Every remedy that can be executed is: settings load, commands and options exist, in the page and in the gate."""

import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from repository import REPOSITORY

from components.evaluation import gate
from components.evaluation.bounds import BASELINE
from pipeline.cli import main
from pipeline.configuration.configuration import Configuration
from pipeline.configuration.loading import load_configuration

PAGE = (REPOSITORY / "docs/troubleshooting.md").read_text()
SECTIONS = tuple(
    name for name in Configuration.model_fields if hasattr(Configuration.model_fields[name].annotation, "model_fields")
)
CODE = sorted(set(re.findall(r"`([^`\n]+)`", PAGE)))
REMEDIES = [*gate._REMEDIES.values(), gate._BETTER_DETECTION]
_FIELD = re.compile(rf"\b(?:{'|'.join(SECTIONS)})(?:\.[a-z_]+)+\b")
PLACEHOLDERS = {"...": "other", "FOLDER": "/tmp/other"}


def remedies_of_page():
    """The second column of every table, as text."""
    rows = re.findall(r"^\| (.+) \| (.+) \|$", PAGE, re.MULTILINE)
    return [remedy for _, remedy in rows if remedy not in ("remedy", "---")]


def fields_in(text):
    """Settings as `section.field`, not files such as `metadata.sqlite`."""
    return [field for field in _FIELD.findall(text) if not field.endswith((".sqlite", ".yaml", ".md"))]


def exists(field):
    """Whether a dotted name leads through the sections of the configuration to a field."""
    section = Configuration
    for name in field.split("."):
        if name not in getattr(section, "model_fields", {}):
            return False
        section = section.model_fields[name].annotation
    return True


SETTINGS = sorted({field for text in [*remedies_of_page(), *REMEDIES] for field in fields_in(text)})
OVERRIDES = sorted({override for text in CODE for override in re.findall(r"--set (\S+)", text)})
COMMANDS = sorted(
    {
        command
        for text in [*CODE, *REMEDIES]
        for command in re.findall(r"autoencoder [a-z]+(?: --[a-z-]+| [A-Z]+)*", text)
    }
)


def test_the_page_names_enough_that_can_be_executed():
    assert (len(SETTINGS), len(OVERRIDES), len(COMMANDS)) >= (15, 5, 4)


@pytest.mark.parametrize("field", SETTINGS)
def test_a_setting_that_a_remedy_names_exists(field):
    assert exists(field)


@pytest.mark.parametrize("override", OVERRIDES)
def test_an_override_that_a_remedy_gives_loads_and_takes_effect(override):
    name, _, value = override.partition("=")
    value = PLACEHOLDERS.get(value, value)
    found = load_configuration(REPOSITORY / "configs/folder.yaml", (f"{name}={value}",))
    for part in name.split("."):
        found = getattr(found, part)
    assert found == (value if isinstance(found, str) else yaml.safe_load(value))


@pytest.mark.parametrize("text", sorted(t for t in CODE if re.fullmatch(r"[a-z]+(\.[a-z_]+)+: \S+", t)))
def test_a_line_of_yaml_in_a_remedy_loads(text):
    name, _, value = text.partition(": ")
    if exists(name):
        load_configuration(REPOSITORY / "configs/folder.yaml", (f"{name}={value}",))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_a_remedy_gives_exists_with_its_options(command):
    _, verb, *rest = command.split()
    shown = CliRunner().invoke(main, [verb, "--help"])
    assert shown.exit_code == 0, shown.output
    for option in (word for word in rest if word.startswith("--")):
        assert option in shown.output


def test_every_origin_of_a_bound_has_a_remedy_and_the_page_lists_those_of_the_gate():
    origins = ("PCA floor", "floor: chance", "identity", "constant", BASELINE)
    for origin in origins:
        row = {"metric": "m", "label": None, "origin": origin, "min": None, "max": 1.0, "value": 2.0}
        assert len(gate._remedy(row)) > 20
        assert f"({origin})" in PAGE
    assert "(floor: ...)" in PAGE
    assert "max_pca_ratio: null`" not in re.sub(r"remove `evaluation.max_pca_ratio: null`", "", PAGE)


def test_the_page_is_where_the_program_points_to():
    from pipeline.local.run import TROUBLESHOOTING

    assert Path(TROUBLESHOOTING) == Path("docs/troubleshooting.md")
