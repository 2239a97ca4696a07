"""Warnings about images whose sizes are unlike those of all training images."""

import json
from dataclasses import asdict

import pytest

from schema.usual_sizes import UsualSizes

USUAL = UsualSizes.of([(600, 800), (900, 1200), (800, 800)])


def test_the_smallest_and_median_sides_and_the_range_of_aspect_ratios_are_kept_in_the_record():
    assert asdict(USUAL) == {
        "smallest_height_px": 600, "smallest_width_px": 800, "lowest_aspect": 1.0, "highest_aspect": 4 / 3,
        "median_height_px": 800, "median_width_px": 800,
    }  # fmt: skip
    assert UsualSizes.from_record(json.loads(json.dumps({"sizes": asdict(USUAL)}))) == USUAL
    assert UsualSizes.from_record({"image": {}}) is None


@pytest.mark.parametrize("size", [(600, 800), (300, 400), (6000, 8000), (1000, 1200), (546, 800), (550, 800)])
def test_usual_sizes_are_not_mentioned(size):
    assert USUAL.warning(*size) == ""


@pytest.mark.parametrize("size", [(299, 400), (150, 200), (2000, 399)])
def test_an_image_with_less_than_half_of_a_side_is_much_smaller(size):
    warning = USUAL.warning(*size)
    assert f"{size[1]:,} x {size[0]:,} pixels, but training images have at least 800 x 600" in warning
    assert "too low" in warning


@pytest.mark.parametrize(("size", "ratio"), [((1200, 900), "0.75"), ((600, 900), "1.5"), ((400, 2400), "6")])
def test_another_aspect_ratio_is_named_with_the_usual_ones(size, ratio):
    assert f"a ratio of {ratio}, but training images have 1 to 1.33" in USUAL.warning(*size)
    assert "training images have 1:" in UsualSizes.of([(10, 10)]).warning(20, 60)
