"""An unknown name is answered with the known name that it resembles."""

import pytest

from runtime.did_you_mean import did_you_mean

KNOWN = ("dense", "denoising", "MobileNetV2")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("dens", "; did you mean 'dense'?"),
        ("DENSE", "; did you mean 'dense'?"),
        ("mobilenetv2", "; did you mean 'MobileNetV2'?"),
        ("ResNet", "; use dense"),
        ("", "; use dense"),
    ],
)
def test_the_closest_known_name_is_suggested_whatever_its_case(name: str, hint: str) -> None:
    assert did_you_mean(name, KNOWN, "; use dense") == hint


def test_a_stricter_similarity_suggests_less() -> None:
    assert did_you_mean("split2", ["split"], similarity=0.95) == ""
    assert did_you_mean("split2", ["split"]) == "; did you mean 'split'?"
