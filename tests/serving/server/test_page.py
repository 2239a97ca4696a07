"""The page computes placement, regions and colours itself: in a browser, they are those of `images`."""

import html
import json
import re

import numpy as np
import pytest
from browser import browse
from scipy import ndimage

from images.heat import heat_colours
from images.regions import Placement, find_regions, strongest_place
from serving.server.pages import page_text

SIZES = [(80, 100), (300, 200), (21, 30), (20, 28), (20, 27)]
"""Height and width of images; padded to 40 x 50, three are only placed correctly in float32."""
SMALLEST = 0.004
VALUES = [0.0, 0.5, 0.99, 0.9995, 1.0, 1.5, 2.0, 2.9, 3.0, 40.0]

MEASURE = """<script>
const found = CASES.map(({ width, height, answer }) => {
  const placement = placementOf(width, height, answer);
  return { placement, regions: regionsOf(answer.anomaly_map, placement, answer.smallest_region),
           strongest: strongestOf(answer.anomaly_map, placement) };
});
const colours = VALUES.map(heat);
const captions = [[1, true], [0.5, true], [0.5, false]].map(([value, is_anomaly]) => {
  const answer = { anomaly_map: [[value + 0.1]], is_padded: 0, smallest_region: 0, is_anomaly };
  return overlay(null, answer).lastChild.textContent;
});
document.body.dataset.found = JSON.stringify({ found, colours, captions });
</script>"""


@pytest.fixture(scope="module")
def cases():
    random = np.random.default_rng(7)
    maps = [ndimage.gaussian_filter(random.standard_normal((40, 50)), 2) * 8 for _ in range(2 * len(SIZES))]
    maps[3][20, 20] = np.nan
    return list(zip(2 * SIZES, [False] * len(SIZES) + [True] * len(SIZES), maps, strict=True))


@pytest.fixture(scope="module")
def measured(cases, tmp_path_factory):
    """What the page's functions return for the cases and VALUES; its script reads NaN as null."""
    folder = tmp_path_factory.mktemp("page")
    page = page_text("serving.server", "page.html", MODEL_NAME='"autoencoder"')
    answers = [
        {
            "height": height,
            "width": width,
            "answer": {
                "anomaly_map": [[None if np.isnan(value) else value for value in row] for row in anomaly_map.tolist()],
                "is_padded": int(is_padded),
                "smallest_region": SMALLEST,
            },
        }
        for (height, width), is_padded, anomaly_map in cases
    ]
    script = MEASURE.replace("CASES", json.dumps(answers)).replace("VALUES", json.dumps(VALUES))
    text = page.replace("</html>", f"{script}</html>")
    (folder / "page.html").write_text(text, encoding="utf-8")
    dom, _ = browse(folder / "page.html", folder / "profile")
    return json.loads(html.unescape(re.search(r'data-found="([^"]+)"', dom)[1]))


def test_regions_of_the_page_are_those_of_the_client(cases, measured):
    shown = 0
    for (size, is_padded, anomaly_map), found in zip(cases, measured["found"], strict=True):
        placement = Placement.on_map(size, anomaly_map.shape, is_padded=is_padded)
        assert found["placement"] == {name: getattr(placement, name) for name in ("top", "left", "rows", "columns")}
        regions, labels = find_regions(anomaly_map, placement, smallest_share=SMALLEST)
        expected = {
            (columns.start, rows.start, columns.stop, rows.stop, int((labels == number).sum()))
            for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1)
        }
        edges = ("left", "top", "right", "bottom", "area")
        assert {tuple(region[edge] for edge in edges) for region in found["regions"]} == expected
        if np.isfinite(anomaly_map).all():
            assert [one["peak"] for one in found["regions"]] == pytest.approx([region.peak for region in regions])
        place = strongest_place(anomaly_map, placement)
        across, down = placement.width_px / placement.columns, placement.height_px / placement.rows
        assert (found["strongest"][0] * across, found["strongest"][1] * down) == pytest.approx((place.x, place.y))
        shown += len(regions)
    assert shown > 20


def test_colours_of_the_page_are_those_of_overlays_and_report(measured):
    assert np.array(measured["colours"]) == pytest.approx(heat_colours(np.array([VALUES]))[0].astype(float), abs=1)


def test_an_anomaly_without_a_region_is_explained(measured):
    assert measured["captions"] == [
        "1 region: 100 % of the image, peak 1.10",
        "whole image: no single region stands out, strongest at (0, 0)",
        "no region above the pixel threshold",
    ]
