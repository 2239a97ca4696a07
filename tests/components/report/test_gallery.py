"""The choice of images that the report shows."""

import numpy as np
from report_samples import sample_of

from components.report.gallery import choose, thumbnails
from components.report.scored_images import Sample


def rows_by_heading(sample: Sample) -> dict[str, list[int]]:
    return {title.partition(":")[0]: rows for title, rows in choose(sample)}


def test_few_images_are_split_between_the_groups() -> None:
    scores = np.random.default_rng(0).permutation(14) / 10
    found = rows_by_heading(sample_of(list(scores), [-1] * 14))
    assert [sorted(int(10 * scores[row] + 0.5) for row in rows) for rows in found.values()] == [
        [0, 1, 2, 3, 4],
        [4, 5, 6, 7, 8],
        [9, 10, 11, 12, 13],
    ]
    assert list(found) == ["Best", "Typical", "Worst"]


def test_each_group_shows_ten_images_most_extreme_first() -> None:
    found = rows_by_heading(sample_of([float(row) for row in range(200)], [0] * 100 + [1] * 100))
    assert found["Best among normal images"] == list(range(10))
    assert found["Typical among normal images"] == list(range(45, 55))
    assert found["Worst among normal images"] == list(range(99, 89, -1))
    assert found["Anomalies hardest to find"] == list(range(100, 110))
    assert found["Anomalies easiest to find"] == list(range(199, 189, -1))


def test_a_single_image_appears_in_every_group_of_its_kind() -> None:
    found = rows_by_heading(sample_of([0.1, 0.9], [0, 1]))
    assert found["Best among normal images"] == found["Worst among normal images"] == [0]
    assert found["Anomalies hardest to find"] == found["Anomalies easiest to find"] == [1]


def test_thumbnails_are_the_first_pictures_of_the_groups_that_sum_a_model_up() -> None:
    shown = {"score": "1", "outcome": "", "anomaly_map": None, "label": "a"}
    titles = (
        "Best among normal images: lowest scores",
        "Typical among normal images: median scores",
        "Worst among normal images: highest scores",
        "Anomalies easiest to find: highest scores",
    )
    groups = [{"title": t, "pictures": [{**shown, "original": t}, {**shown, "original": "second"}]} for t in titles]
    found = {picture["title"]: picture["original"] for picture in thumbnails(groups)}
    assert found == dict(zip(("typical", "worst", "anomaly"), titles[1:], strict=True))
