"""Synthetic defects are counted at the threshold, and sizes below one pixel are left out."""

import numpy as np
import pytest

from components.report.defect_study import Detection, detect
from components.report.synthetic_defects import DEFECTS


def share_of_white(images):
    return np.array([(image > 0).mean() for image in images])


def test_the_smallest_occlusion_found_is_the_first_above_the_threshold():
    [occlusion] = [defect for defect in DEFECTS if defect.kind == "occlusion"]
    images = [np.zeros((100, 100), np.uint8)] * 5
    detection = detect(occlusion, images, share_of_white, 0.03, seed=1)
    assert detection.found == tuple(float(size > 0.03) for size in detection.sizes)
    assert detection.smallest_found(0.9) == detection.as_json()["smallest_found"] == 0.05


def test_sizes_below_one_pixel_are_not_tried():
    [occlusion] = [defect for defect in DEFECTS if defect.kind == "occlusion"]
    detection = detect(occlusion, [np.zeros((8, 8), np.uint8)], share_of_white, 0.5, seed=1)
    assert min(detection.sizes) == 0.02  # 1.3 pixels; one pixel is 0.0156


@pytest.mark.parametrize(("found", "smallest"), [([0.95, 0.2, 0.9, 1.0], 3), ([1, 1, 1, 1], 1), ([1, 1, 1, 0.8], None)])
def test_a_size_counts_as_found_only_if_all_larger_ones_are(found, smallest):
    detection = Detection("k", "the area", (1, 2, 3, 4), tuple(found), (), ())
    assert detection.smallest_found(0.9) == smallest


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.kind)
def test_defects_lie_in_the_region_of_interest(defect):
    inside = np.zeros((40, 60), bool)
    inside[5:20, 10:30] = True
    inside[5:10, 10:15] = False
    images = list(np.random.default_rng(1).integers(60, 200, (3, 40, 60, 3), np.uint8))
    given = []

    def score(damaged):
        given.extend(damaged)
        return np.zeros(len(damaged))

    detect(defect, images, score, 0.5, seed=1, inside=np.stack([inside] * 3))
    changes = [(damaged != images[number % 3]).any(axis=2) for number, damaged in enumerate(given)]
    assert all(change.any() for change in changes)
    assert not any(change[~inside].any() for change in changes)
