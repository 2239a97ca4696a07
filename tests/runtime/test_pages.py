"""Templates of HTML pages."""

import jinja2
import pytest

from runtime.pages import fill_in


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "templates_of_a_test"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "page.html.jinja").write_text("<p>{{ name | shout }}</p>")
    monkeypatch.syspath_prepend(tmp_path)
    return folder.name


def test_text_is_escaped_also_behind_a_filter(package):
    page = fill_in(package, "page.html.jinja", {"shout": str.upper}, name="<b>é</b>")
    assert page == "<p>&lt;B&gt;É&lt;/B&gt;</p>"


def test_a_name_that_nobody_gave_is_an_error(package):
    with pytest.raises(jinja2.UndefinedError, match="'name' is undefined"):
        fill_in(package, "page.html.jinja", {"shout": lambda value: str(value).upper()})
