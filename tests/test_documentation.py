"""Links in the documentation work, and it covers every component and configuration."""

import re
from pathlib import Path

import pytest
from repository import REPOSITORY

from pipeline.configuration.loading import load_configuration
from pipeline.graph import create_pipeline
from pipeline.local.run import TROUBLESHOOTING

PAGES = [
    path
    for path in sorted(REPOSITORY.rglob("*.md"))
    if not {".venv", "node_modules", ".pytest_cache"} & set(path.relative_to(REPOSITORY).parts)
]


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub creates for the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_relative_link_has_a_target(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name) if name else page
        assert linked.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors_of(linked), f"{page}: {target}"


def test_troubleshooting_has_a_heading_for_every_component_that_a_failure_can_name() -> None:
    configuration = load_configuration(REPOSITORY / "configs" / "digits.yaml")
    graph = create_pipeline(configuration, data_fingerprint="", pipeline_root="/tmp/x", push_destination="/tmp/y")
    names = {node.id.lower() for node in graph.components}
    assert names - anchors_of(REPOSITORY / TROUBLESHOOTING) == set()


@pytest.mark.parametrize("config", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_configuration_is_valid_and_opens_with_its_command_or_the_result_to_expect(config: Path) -> None:
    load_configuration(config)
    assert config.read_text().startswith("# autoencoder ") or "\n# Expect" in config.read_text()
