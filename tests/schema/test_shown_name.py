"""Names of images are shown as people wrote them."""

import pytest

from schema.features import printable, shown_name


@pytest.mark.parametrize(
    ("image_id", "name"),
    [
        ("gut/Bild%20024%C3%A4.png", "gut/Bild 024ä.png"),
        ("digits/00042", "digits/00042"),
        ("stack.tif#3", "stack.tif#3"),
        ("two%0Alines.png", "two%0Alines.png"),  # one name must not look like two
        ("right%E2%80%AEgnp.png", "right%E2%80%AEgnp.png"),  # nor like another one
        ("latin%E4.png", "latin�.png"),
    ],
)
def test_a_name_is_shown_as_it_was_written_if_it_can_be_printed(image_id, name):
    assert shown_name(image_id) == name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("teile/Bild 024ä.png: 3 %\n\tnext line", "teile/Bild 024ä.png: 3 %\n\tnext line"),
        ("red\x1b[31m.png", "red%1B[31m.png"),
        ("over\rwritten\b", "over%0Dwritten%08"),
        ("right\u202egnp.png", "right%E2%80%AEgnp.png"),
        ("latin\udce4.png", "latin%E4.png"),  # a file's name that is not UTF-8
    ],
)
def test_text_for_a_terminal_holds_nothing_that_controls_it(text, shown):
    assert printable(text) == shown
