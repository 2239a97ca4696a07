"""Pixel AUROC compared with scikit-learn's, per-region overlap with its definition."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from components.evaluation.pixel_metrics import PixelCounts, pixel_auroc, region_overlap

RANDOM = np.random.default_rng(3)


def levels_of(error_map):
    """The upper 16 bits of each float32 that is not negative, in their order above those that are, by NumPy."""
    return ((np.asarray(error_map, np.float32).view(np.uint32) >> 16) + 2**15).astype(np.uint16)


def defective_image():
    """(error map, mask) with a small and a large defect, whose errors are larger than the rest."""
    mask = np.zeros((32, 40), np.int8)
    row, column = RANDOM.integers(0, 10, 2)
    mask[row : row + 3, column : column + 3] = 1
    mask[20:30, 20:35] = 1
    return RANDOM.exponential(0.01, mask.shape) * (1 + 2 * mask), mask


@pytest.fixture(scope="module")
def images():
    sound = [(RANDOM.exponential(0.01, (32, 40)), np.zeros((32, 40), np.int8)) for _ in range(5)]
    return sound + [defective_image() for _ in range(6)]


def counted(images):
    halves = PixelCounts(), PixelCounts()
    for number, (error_map, mask) in enumerate(images):
        halves[number % 2].add(levels_of(error_map), mask)
    return halves[0] + halves[1]


def test_pixel_auroc_equals_scikit_learns(images):
    errors, masks = (np.concatenate([pair[i].ravel() for pair in images]) for i in (0, 1))
    assert pixel_auroc(counted(images)) == pytest.approx(roc_auc_score(masks, errors), abs=1e-4)


def test_region_overlap_follows_its_definition(images):
    regions = []
    for error_map, mask in images:
        numbered, count = ndimage.label(mask)
        regions += [error_map[numbered == n] for n in range(1, count + 1)]
    assert len(regions) == counted(images).regions == 12
    assert counted(images).region_shares.sum() == pytest.approx(12), "each region counts as one, whatever its size"
    sound = np.sort(np.concatenate([error_map[mask == 0] for error_map, mask in images]))
    rates = np.linspace(0, 0.3, 3001)
    thresholds = np.quantile(sound, 1 - rates)
    overlap = [np.mean([(region > threshold).mean() for region in regions]) for threshold in thresholds]
    assert region_overlap(counted(images)) == pytest.approx(np.mean(overlap), abs=2e-3)


def test_a_perfect_map_scores_one_and_a_useless_map_one_half():
    mask = np.zeros((16, 16), np.int8)
    mask[4:8, 4:8] = 1
    assert pixel_auroc(counted([(mask + 0.1, mask)])) == region_overlap(counted([(mask + 0.1, mask)])) == 1.0
    assert pixel_auroc(counted([(np.ones((16, 16)), mask)])) == 0.5


def test_pixels_that_touch_at_a_corner_are_one_region():
    mask = np.eye(4, dtype=np.int8)
    assert counted([(mask + 0.1, mask)]).regions == 1


def test_a_defect_may_cover_the_whole_image():
    image = (np.ones((8, 8)), np.ones((8, 8), np.int8))
    assert counted([image]).region_shares.sum() == 1
    assert pixel_auroc(counted([image, (np.zeros((8, 8)), np.zeros((8, 8), np.int8))])) == 1


def test_images_without_ground_truth_are_not_counted(images):
    unknown = (np.ones((32, 40)), np.full((32, 40), -1, np.int8))
    assert pixel_auroc(counted([*images, unknown])) == pixel_auroc(counted(images))
    assert np.isnan(pixel_auroc(counted([unknown])))
    assert np.isnan(region_overlap(counted(images[:5])))
