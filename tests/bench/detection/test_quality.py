"""The metrics, compared with scikit-learn on all pixels and with a loop over the regions."""

import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.integrate import trapezoid
from sklearn.metrics import roc_auc_score

from bench.detection import quality
from bench.detection.method import Findings
from bench.detection.quality import measure_quality
from bench.detection.tasks import Batch
from bench.timing import BenchmarkError

RANDOM = np.random.default_rng(1)
COUNT, SIDE = 24, 16


def defects():
    """(masks, maps, scores, is_anomaly) of images, half of which have two regions that the maps show faintly."""
    masks = np.zeros((COUNT, SIDE, SIDE), np.int8)
    masks[COUNT // 2 :, 2:5, 2:7] = 1
    masks[COUNT // 2 :, 10:14, 9:11] = 1
    maps = (RANDOM.normal(size=masks.shape) + 1.5 * masks).astype(np.float32)
    is_anomaly = (np.arange(COUNT) >= COUNT // 2).astype(np.int64)
    return masks, maps, maps.max(axis=(1, 2)), is_anomaly


def measure(masks, maps, scores, is_anomaly, *, size=7):
    rows = [np.arange(COUNT)[start : start + size] for start in range(0, COUNT, size)]
    batches = [Batch([], of_batch.astype(np.float32), is_anomaly[of_batch], masks[of_batch]) for of_batch in rows]

    def detect(batch):
        rows = batch.pixels.astype(int)
        return Findings(scores[rows], None if maps is None else maps[rows])

    return measure_quality(batches, detect)


def overlap_by_definition(masks, maps, limit=0.3):
    """The mean found share of each region at every threshold, integrated over the false-alarm rate up to `limit`."""
    regions = [ndimage.label(mask, np.ones((3, 3))) for mask in masks]
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        shares = [found[i][of == n].mean() for i, (of, count) in enumerate(regions) for n in range(1, count + 1)]
        rates.append(found[masks == 0].mean())
        overlaps.append(np.mean(shares))
    grid = np.linspace(0.0, limit, 100_001)
    return trapezoid(np.interp(grid, rates, overlaps), grid) / limit


def test_all_metrics_have_the_values_of_their_definitions():
    masks, maps, scores, is_anomaly = defects()
    found = measure(masks, maps, scores, is_anomaly)
    normal = np.sort(scores[is_anomaly == 0])
    assert found.image_auroc == pytest.approx(roc_auc_score(is_anomaly, scores))
    assert found.recall_at_1 == found.recall_at_5 == np.mean(scores[is_anomaly == 1] > normal[-1])  # none of 12
    assert found.pixel_auroc == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-6)
    assert found.region_overlap == pytest.approx(overlap_by_definition(masks, maps), abs=1e-4)


@pytest.mark.parametrize("transform", [lambda maps: maps - 1e4, np.exp, lambda maps: 1e-9 * maps, lambda maps: maps**3])
def test_range_sign_and_unit_of_a_map_do_not_matter(transform):
    masks, maps, scores, is_anomaly = defects()
    maps = np.round(maps, 2)
    expected = measure(masks, maps, scores, is_anomaly)
    changed = measure(masks, transform(maps.astype(np.float64)).astype(np.float32), scores, is_anomaly)
    assert changed.pixel_auroc == pytest.approx(expected.pixel_auroc, abs=1e-6)
    assert changed.region_overlap == pytest.approx(expected.region_overlap, abs=1e-6)


def test_levels_from_a_sample_of_the_pixels_are_close(monkeypatch):
    masks, maps, scores, is_anomaly = defects()
    expected = measure(masks, maps, scores, is_anomaly)
    monkeypatch.setattr(quality, "_SAMPLED_PIXELS", 1000)
    assert measure(masks, maps, scores, is_anomaly).pixel_auroc == pytest.approx(expected.pixel_auroc, abs=2e-3)


def test_images_without_a_mask_count_for_images_only():
    masks, maps, scores, is_anomaly = defects()
    expected = roc_auc_score(masks[:-3].ravel(), maps[:-3].ravel())
    masks[-3:] = -1
    assert measure(masks, maps, scores, is_anomaly).pixel_auroc == pytest.approx(expected, abs=1e-6)


def test_a_method_without_maps_has_no_pixel_metrics():
    masks, _, scores, is_anomaly = defects()
    found = measure(masks, None, scores, is_anomaly)
    assert math.isnan(found.pixel_auroc)
    assert math.isnan(found.region_overlap)


def test_a_score_that_is_not_finite_is_an_error():
    masks, maps, scores, is_anomaly = defects()
    scores[3] = np.nan
    with pytest.raises(BenchmarkError, match="not finite"):
        measure(masks, maps, scores, is_anomaly)
