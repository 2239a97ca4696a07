"""`make quick` selects the tests that a change affects."""

from pathlib import Path

import pytest
from affected_tests import affected_tests

FILES = {
    "images/png.py": "",
    "images/formats.py": "from images import png",
    "components/report.py": "import images.formats",
    "components/report.html": "",
    "tests/images/test_png.py": "",
    "tests/components/conftest.py": "",
    "tests/components/test_report.py": "from components.report import page\nimport pages",
    "tests/components/test_gate.py": "",
    "tests/support/pages.py": "",
    "tests/test_server.py": "PAGE = 'report.html'\nfrom images.png import encode",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("images/png.py", {"images/test_png.py", "test_server.py"}),
        ("images/formats.py", {"components/test_report.py"}),
        ("components/report.py", {"components/test_report.py"}),
        ("components/report.html", {"components/test_report.py", "components/test_gate.py", "test_server.py"}),
        ("tests/components/test_gate.py", {"components/test_gate.py"}),
        ("tests/components/conftest.py", {"components/test_report.py", "components/test_gate.py"}),
        ("tests/support/pages.py", {"components/test_report.py"}),
        ("tests/conftest.py", set()),
        ("README.md", set()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_change_affects_its_own_test_and_those_of_its_nearest_importers(repository, changed, expected):
    found = affected_tests({changed}, repository)
    assert found - {"tests/test_architecture.py", "tests/test_documentation.py"} == {f"tests/{n}" for n in expected}


def test_the_architecture_is_tested_after_every_change_and_the_documentation_after_a_change_to_a_text(repository):
    assert affected_tests({"README.md"}, repository) == {"tests/test_architecture.py", "tests/test_documentation.py"}
    assert "tests/test_architecture.py" in affected_tests({"images/png.py"}, repository)


def test_no_change_affects_no_test(repository):
    assert affected_tests(set(), repository) == set()
