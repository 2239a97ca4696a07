"""The report page: its numbers match the artifacts, it is accessible, and untrusted text stays text."""

import base64
import dataclasses
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from browser import browse
from PIL import Image
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from components.report import page as report_page
from components.report.facts import ReportInputs, read_facts
from components.report.scored_images import score_sample
from components.report.tables import data_tables

HOSTILE_LABEL = '<script>alert("label")</script>'
HOSTILE_ID = '"><img src="https://example.com/x" onerror=alert(1)>.png'
HOSTILE_REASON = "</td><script src=//example.com></script>"
THRESHOLD = 0.085
SECTIONS = [
    "verdict", "gate", "images", "scores", "slices", "latent", "defects", "steadiness", "suspects", "training", "data",
    "comparison", "cost", "configuration",
]  # fmt: skip


class GreyModel(tf.Module):
    """Reconstructs every 8x8 image as plain grey; the score is the error."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def reconstruct(self, image_bytes):
        decode = tf.function(lambda encoded: tf.ensure_shape(tf.io.decode_png(encoded, channels=1), [8, 8, 1]))
        pixels = tf.cast(tf.map_fn(decode, image_bytes, fn_output_signature=tf.uint8), tf.float32) / 255.0
        reconstruction = tf.fill(tf.shape(pixels), 0.5)
        error_map = tf.reduce_mean((pixels - reconstruction) ** 2, axis=-1)
        return {
            "score": tf.reduce_mean(error_map, axis=[1, 2]),
            "reconstruction": reconstruction,
            "anomaly_map": error_map / 0.1,
            "is_padded": tf.zeros(tf.shape(error_map)[:1], tf.int64),
            "smallest_region": tf.fill(tf.shape(error_map)[:1], 0.02),
            "latent": tf.reshape(pixels, [-1, 64])[:, :6],
        }


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pixels_of_split():
    """60 images: 45 near grey, 15 with a bright half."""
    random = np.random.default_rng(0)
    images = random.integers(90, 166, (60, 8, 8), dtype=np.uint8)
    images[45:, :, :4] = 255
    images[45:, :, 4:] = 0
    return images


def feature(value):
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def write_examples(folder, images):
    (folder / "Split-test").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "Split-test/data_tfrecord-00000-of-00001")) as writer:
        for number, pixels in enumerate(images):
            values = {
                "image": png(pixels),
                "image_id": (HOSTILE_ID if number == 45 else f"{number}.png").encode(),
                "label": (HOSTILE_LABEL if number % 2 else "b").encode(),
                "is_anomaly": int(number >= 45),
            }
            features = tf.train.Features(feature={name: feature(value) for name, value in values.items()})
            writer.write(tf.train.Example(features=features).SerializeToString())
    (folder / "counts.json").write_text(
        json.dumps({"train": 5, "eval": 5, "test": len(images), "rejected": 1, "duplicates": 0})
    )
    (folder / "rejects.jsonl").write_text(json.dumps({"image_id": HOSTILE_ID, "reason": HOSTILE_REASON}) + "\n")


def write_statistics(statistics, anomalies):
    for split in ("train", "eval", "test"):
        written = statistics_pb2.DatasetFeatureStatisticsList()
        dataset = written.datasets.add()
        number = dataset.features.add(type=statistics_pb2.FeatureNameStatistics.FLOAT)
        number.path.step.append("contrast")
        number.num_stats.mean, number.num_stats.min, number.num_stats.max = 0.25, 0.125, 0.375
        number.num_stats.histograms.add().buckets.add(low_value=0.125, high_value=0.375, sample_count=5)
        label = dataset.features.add(type=statistics_pb2.FeatureNameStatistics.STRING)
        label.path.step.append("label")
        label.string_stats.rank_histogram.buckets.add(label=HOSTILE_LABEL, sample_count=5)
        label.string_stats.rank_histogram.buckets.add(label="b", sample_count=4)
        (statistics / f"Split-{split}").mkdir(parents=True)
        (statistics / f"Split-{split}/FeatureStats.pb").write_bytes(written.SerializeToString())
        found = anomalies_pb2.Anomalies()
        found.anomaly_info["label"].description = HOSTILE_LABEL
        drift = found.drift_skew_info.add()
        drift.path.step.append("contrast")
        drift.drift_measurements.add(value=0.0625, threshold=0.5)
        (anomalies / f"Split-{split}").mkdir(parents=True)
        (anomalies / f"Split-{split}/SchemaDiff.pb").write_bytes(found.SerializeToString())


SUSPECT_ROWS = (2, 0)
SUSPECT_MAPS = np.array([[[0, 1], [2, 3]], [[4, 0], [0, 0]]], np.float32)


def write_suspects(root):
    """Two suspects with maps, and one without; the training images are the first ones of the test split."""
    (root / "examples/Split-train").mkdir()
    with tf.io.TFRecordWriter(str(root / "examples/Split-train/data_tfrecord-00000-of-00001")) as writer:
        for number, pixels in enumerate(pixels_of_split()[:5]):
            values = {"image": png(pixels), "image_id": f"train/{number}.png".encode(), "label": b"good"}
            features = tf.train.Features(feature={name: feature(value) for name, value in values.items()})
            writer.write(tf.train.Example(features=features).SerializeToString())
    shared = {"of": 5, "label": "good", "split": "train", "score": "error", "p_value": 0.2, "unseen": True}
    names = ("train/2.png", HOSTILE_ID, "train/1.png")
    lines = [
        {**shared, "rank": rank, "image_id": name, "position": row, "value": 0.5, "deviations": 8.25 - rank}
        for rank, (name, row) in enumerate(zip(names, (*SUSPECT_ROWS, 1), strict=True), 1)
    ]
    (root / "calibration").mkdir()
    (root / "calibration/suspects.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    np.save(root / "calibration/suspect_maps.npy", SUSPECT_MAPS)


def row(**changes):
    values = {"metric": "mean_error", "label": None, "origin": "configured", "min": None, "max": 0.1, "value": 0.05}
    return {**values, "passed": True, "reason": None, **changes}


CALIBRATION = {
    "score": "error", "threshold": THRESHOLD, "false_alarm_rate": 0.05, "images": 5, "map_of": "error",
    "pixel_threshold": 0.1,
}  # fmt: skip
GATE = {
    "blessed": False,
    "metrics": {"mean_error": 0.05, "auroc": 0.875, "pca_mean_error": 0.1},
    "metrics_by_label": {HOSTILE_LABEL: {"mean_error": 0.07, "auroc": float("nan")}},
    "baseline_metrics": {"mean_error": 0.04, "auroc": 0.9},
    "thresholds": [
        row(),
        row(label=HOSTILE_LABEL, max=0.01, passed=False, reason=f"mean_error over {HOSTILE_LABEL} is 0.07"),
    ],
    "controls_refused": {"untrained": True, "constant": True},
    "warnings": [f"the model finds 13 % of {HOSTILE_LABEL}"],
    "steadiness": {
        "split": "test",
        "images": 45,
        "changes": {
            "unchanged": {"alarms": 0.02, "recall": 0.625, "auroc": 0.75},
            "brighter_20": {"alarms": 0.375, "recall": 1.0},
        },
    },
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("artifacts")
    write_examples(root / "examples", pixels_of_split())
    write_statistics(root / "statistics", root / "anomalies")
    model = GreyModel()
    folder = root / "model/Format-Serving"
    tf.saved_model.save(model, str(folder), signatures={"reconstruct": model.reconstruct})
    record = {
        "name": "hostile",
        "seed": 3,
        "image": {"height_px": 8, "width_px": 8, "channels": 1, "fit": "stretch"},
        "trainer": {"epochs": 2, "comment": HOSTILE_LABEL},
        "calibration": CALIBRATION,
        "history": {"loss": [0.5, 0.25], "val_loss": [0.75, 0.375]},
    }
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra/autoencoder.json").write_text(json.dumps(record))
    write_suspects(root)
    (root / "evaluation").mkdir()
    (root / "evaluation/gate.json").write_text(json.dumps(GATE))
    return ReportInputs(
        **{name: str(root / name) for name in ("examples", "statistics", "anomalies", "model", "evaluation")},
        baseline_model=None,
        calibration=str(root / "calibration"),
        settings={"data": {"source": "folder", "path": HOSTILE_ID}},
        costs=(("examples", "ImageExampleGen", 7.0, 512.0), ("model_run", "Trainer", None, None)),
    )


@pytest.fixture(scope="module")
def folder(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    report_page.write_report(inputs, str(folder))
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text()


class Elements(HTMLParser):
    """All start tags with their attributes, and all visible text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self._in_style = [], "", False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._in_style = tag == "style"

    def handle_endtag(self, tag):
        self._in_style = False

    def handle_data(self, text):
        self.text += "" if self._in_style else text + " "


def expected_scores():
    return ((pixels_of_split() / 255.0 - 0.5) ** 2).mean(axis=(1, 2))


def test_untrusted_names_and_labels_are_shown_as_text(page):
    elements = Elements(page)
    assert {"script", "iframe", "object"}.isdisjoint(tag for tag, _ in elements.tags)
    assert not [name for _, attributes in elements.tags for name in attributes if name.startswith("on")]
    for hostile in (HOSTILE_LABEL, HOSTILE_ID, HOSTILE_REASON):
        assert hostile in elements.text
    titles = [attributes["title"] for tag, attributes in elements.tags if tag == "figure" and "title" in attributes]
    assert HOSTILE_ID in titles


def test_the_page_loads_nothing(page):
    elements = Elements(page)
    for tag, attributes in elements.tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, name)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert not re.search(r"url\(|@import|https?:", style)
    [policy] = [a["content"] for tag, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy


def test_pictures_tables_and_charts_have_accessible_names(page):
    elements = Elements(page)
    assert all(attributes.get("alt") for tag, attributes in elements.tags if tag == "img")
    assert all("scope" in attributes for tag, attributes in elements.tags if tag == "th")
    charts = [attributes for tag, attributes in elements.tags if tag == "svg" and "aria-hidden" not in attributes]
    assert len(charts) == 1 + 2 + 2 + 6 + 1 + 1  # scores, ROC and PR, latent space, defects, loss, contrast
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in charts)
    ids = [attributes["id"] for _, attributes in elements.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_link_within_the_page_leads_somewhere(page):
    elements = Elements(page)
    ids = {attributes.get("id") for _, attributes in elements.tags}
    assert set(SECTIONS) <= ids
    links = [attributes["href"] for tag, attributes in elements.tags if tag == "a"]
    assert {link.removeprefix("#") for link in links} <= ids


def test_the_page_shows_the_artifacts_numbers(page):
    text = " ".join(Elements(page).text.split())
    assert f"Refused: mean_error over {HOSTILE_LABEL} is 0.07." in text
    assert "50 % below PCA's" in text
    assert "0 of 45 normal test images" in text
    assert "15 of 15 anomalous test images" in text
    assert "ROC curve: AUROC 1.000" in text
    assert "mean_error 0.05 0.04 +25.0 %" in text  # against the previous blessed model
    assert "ImageExampleGen 7.0 71 10 512 MB" in text
    assert "After 2 epochs: training 0.25, held out 0.375." in text
    assert "contrast test 0.0625 0.5" in text
    assert "0.25 ± 0 (0.125 – 0.375)" in text
    assert "random sample" not in text


def test_only_images_count_as_images_that_were_read(inputs, tmp_path):
    shutil.copytree(inputs.examples, tmp_path / "examples")
    images = {"train": 5, "eval": 4, "test": 3, "left_out": 1, "rejected": 2, "duplicates": 6, "excluded": 7}
    counts = {**images, "reviewed": 3, "with_region": 12, "blurred_masks": 8, "pages_dropped": 90, "used_bits": 12}
    (tmp_path / "examples/counts.json").write_text(json.dumps(counts))
    facts = read_facts(dataclasses.replace(inputs, examples=str(tmp_path / "examples")))
    assert {cost.component: cost.images for cost in facts.costs} == {"ImageExampleGen": 28, "Trainer": 10}
    assert data_tables(facts)["counts"] == {name: count for name, count in counts.items() if name != "used_bits"}


def test_regions_are_boxes_over_the_originals_with_their_places_in_the_file(page):
    """Both halves of an anomaly are 0.25 from grey, or 2.5 times the pixel threshold: one region, the whole image."""
    section = re.search(r'<section id="images".*?</section>', page, re.DOTALL)[0]
    figures = re.findall(r"<figure.*?</figure>", section, re.DOTALL)
    anomalous = [one for one in figures if ">found<" in one]
    assert len(anomalous) == 8 + 8 + 2  # the hardest and easiest to find, and one of each class
    for one in anomalous:
        assert re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)">', one) == [
            ("0.00", "0.00", "8.00", "8.00")
        ]
        assert "left 0.0, top 0.0, right 8.0, bottom 8.0 px; 100\xa0% of the image; peak 2.50, mean 2.50" in one
        assert "<br>1 region</figcaption>" in one
    assert not [one for one in figures if ">found<" not in one and ("<rect" in one or "region" in one)]


def test_an_anomaly_without_a_region_is_explained(inputs, page, tmp_path):
    """With a threshold below every score, normal images are flagged, but none of their pixels is."""
    words = re.compile(r"<br>whole image: no single region stands out, strongest at \([0-7], [0-7]\)</figcaption>")
    assert not words.search(page)
    text = written_with(inputs, tmp_path, {**CALIBRATION, "threshold": -1.0})
    section = re.search(r'<section id="images".*?</section>', text, re.DOTALL)[0]
    figures = re.findall(r"<figure.*?</figure>", section, re.DOTALL)
    assert {bool(words.search(one)) for one in figures if ">false alarm<" in one} == {True}
    assert not [one for one in figures if words.search(one) and "<rect" in one]


def test_warnings_stand_below_the_verdict(page):
    header = page[page.index('id="verdict"') : page.index("</header>")]
    assert '<p class="warning"><b>Warning:</b> the model finds 13 % of &lt;script&gt;' in header


def test_the_threshold_tile_tells_where_its_images_come_from(inputs, page, tmp_path):
    assert "held-out images</" in page
    text = written_with(inputs, tmp_path, {**CALIBRATION, "method": "cross"})
    assert "images, each scored by a fit without it" in text
    everything = f"All {CALIBRATION['images']} images of the splits <code>train</code> and <code>eval</code> train"
    assert everything in text
    assert everything not in page


def test_a_map_that_is_not_the_score_s_own_is_explained(inputs, tmp_path):
    text = written_with(inputs, tmp_path, {**CALIBRATION, "score": "latent_distance"})
    assert "which is the error map because the score looks at the whole image" in text
    assert "looks at the whole image" not in written_with(inputs, tmp_path, CALIBRATION)


def written_with(inputs, folder, calibration):
    """The text of the report about a model with this calibration record."""
    shutil.copytree(inputs.model, folder / "model", dirs_exist_ok=True)
    record = folder / "model/Format-Serving/assets.extra/autoencoder.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "calibration": calibration}))
    report_page.write_report(dataclasses.replace(inputs, model=str(folder / "model")), str(folder))
    return (folder / "report.html").read_text()


def test_a_report_about_a_model_of_a_version_without_anomaly_maps_can_be_written(inputs, tmp_path):
    class OldModel(GreyModel):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def reconstruct(self, image_bytes):
            outputs = super().reconstruct(image_bytes)
            return {name: outputs[name] for name in ("score", "reconstruction", "latent")}

    folder = tmp_path / "model/Format-Serving"
    shutil.copytree(f"{inputs.model}/Format-Serving/assets.extra", folder / "assets.extra")
    old = OldModel()
    tf.saved_model.save(old, str(folder), signatures={"reconstruct": old.reconstruct})
    record = json.loads((folder / "assets.extra/autoencoder.json").read_text())
    record["calibration"] = {"threshold": THRESHOLD, "false_alarm_rate": 0.05, "images": 5}
    (folder / "assets.extra/autoencoder.json").write_text(json.dumps(record))
    report_page.write_report(dataclasses.replace(inputs, model=str(tmp_path / "model")), str(tmp_path))
    text = (tmp_path / "report.html").read_text()
    assert "A version without anomaly maps calibrated this model" in text
    assert "reconstruction of 0.png" in text
    assert "anomaly map of" not in text
    assert "<rect x=" not in re.search(r'<section id="images".*?</section>', text, re.DOTALL)[0]


def test_steadiness_is_shown_with_a_picture_of_each_change(page):
    section = re.search(r'<section id="steadiness".*?</section>', page, re.DOTALL)[0]
    text = " ".join(Elements(section).text.split())
    assert "measured on 45 test images. Unchanged, 2 % of them do" in text
    assert "unchanged 2 % 0.750 62.5 % brighter_20 37.5 % – 100 %" in text
    encoded = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="(\w+)"', section)
    pictures = {name: np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data, name in encoded}
    typical = int(np.argsort(expected_scores()[:45])[22])
    assert np.array_equal(pictures["unchanged"], pixels_of_split()[typical])
    assert np.array_equal(pictures["brighter_20"], np.round(pixels_of_split()[typical] * 1.2))


def test_a_report_of_a_run_without_steadiness_can_be_written(inputs, tmp_path):
    gate = {key: value for key, value in GATE.items() if key != "steadiness"}
    (tmp_path / "gate.json").write_text(json.dumps(gate))
    report_page.write_report(dataclasses.replace(inputs, evaluation=str(tmp_path)), str(tmp_path))
    assert "Not measured: no test image is normal" in (tmp_path / "report.html").read_text()


def test_suspects_are_shown_with_their_pictures_maps_and_names_to_copy(page, folder, inputs):
    section = re.search(r'<section id="suspects".*?</section>', page, re.DOTALL)[0]
    elements = Elements(section)
    text = " ".join(elements.text.split())
    assert "the first 2 of 5 examined" in text
    assert "scored by a model that was not fitted to it" in text
    assert "train/2.png" in text
    assert HOSTILE_ID in text
    assert "train/1.png" not in text
    assert re.findall(r"<figcaption><b>([\d.]+)</b>", section) == ["7.25", "6.25"]
    encoded = re.findall(r'<img src="data:image/(?:png|webp);base64,([^"]+)"', section)
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int) for data in encoded]
    for row, picture in zip(SUSPECT_ROWS, pictures[::2], strict=True):
        assert np.array_equal(picture, pixels_of_split()[row])
    for anomaly_map, picture in zip(SUSPECT_MAPS, pictures[1::2], strict=True):
        brightness = picture.sum(axis=2)
        middles = brightness[18::72, 18::72]  # near the corners of the enlarged map
        assert np.argmax(middles) == np.argmax(anomaly_map)
        assert np.argmin(middles) in np.flatnonzero(anomaly_map == anomaly_map.min())
    assert (folder / "suspects.jsonl").read_bytes() == Path(inputs.calibration, "suspects.jsonl").read_bytes()


def test_weaker_evidence_from_a_model_that_has_learnt_the_suspects_is_explained(inputs, tmp_path):
    shutil.copytree(inputs.calibration, tmp_path / "calibration")
    written = tmp_path / "calibration/suspects.jsonl"
    written.write_text(written.read_text().replace('"unseen": true', '"unseen": false'))
    report_page.write_report(dataclasses.replace(inputs, calibration=str(tmp_path / "calibration")), str(tmp_path))
    assert "The model was trained on them" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("calibration", [None, "empty"])
def test_a_report_of_a_run_without_suspects_can_be_written(inputs, tmp_path, calibration):
    uri = calibration and str(tmp_path / calibration)
    report_page.write_report(dataclasses.replace(inputs, calibration=uri), str(tmp_path))
    assert "a version that did not look for suspects" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "suspects.jsonl").read_text() == ""


def test_best_and_worst_images_match_numpys_scores(page):
    normal = np.sort(expected_scores()[:45])
    captions = [float(score) for score in re.findall(r"<figcaption><b>([\d.]+)</b>", page)]
    assert captions[:10] == pytest.approx(normal[:10], rel=1e-3)
    assert captions[20:30] == pytest.approx(normal[::-1][:10], rel=1e-3)


def test_an_original_is_shown_pixel_by_pixel(page):
    best = int(np.argmin(expected_scores()[:45]))
    [first, *_] = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="original', page)
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(first)))) == pixels_of_split()[best]).all()


def test_the_defects_found_are_written_for_programs(folder):
    document = json.loads((folder / "synthetic_defects.json").read_text())
    assert document["images"] == 32
    assert document["threshold"] == THRESHOLD
    kinds = {kind["kind"]: kind for kind in document["kinds"]}
    assert list(kinds) == ["occlusion", "cut and paste", "scratch", "blur", "noise", "brightness"]
    assert kinds["blur"]["smallest_found"] is None  # blurring brings an image closer to grey
    # Near grey, 40 % in black or white has an error of about 0.4 * 0.25 = 0.1, and 20 % half of that.
    assert kinds["occlusion"]["smallest_found"] == 0.4
    assert kinds["brightness"]["smallest_found"] == 0.3  # whose error is 0.3^2 = 0.09; 0.2^2 is 0.04


def test_the_same_artifacts_give_the_same_bytes(inputs, folder, tmp_path):
    report_page.write_report(inputs, str(tmp_path))
    for name in ("report.html", "synthetic_defects.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_large_test_split_is_sampled_and_the_page_mentions_it(inputs, tmp_path):
    report_page.write_report(inputs, str(tmp_path), at_most=20)
    assert "a random sample of 20 of the 60 test images (seed 3)." in (tmp_path / "report.html").read_text()


def test_a_sample_holds_the_scores_of_the_images_chosen_by_the_seed(inputs):
    model = report_page.load_model(inputs.model + "/Format-Serving")
    samples = [score_sample(model, inputs.examples, total=60, limit=20, seed=seed) for seed in (1, 1, 2)]
    assert samples[0].positions == samples[1].positions != samples[2].positions
    for sample in samples:
        assert sample.scores == pytest.approx(expected_scores()[list(sample.positions)], rel=1e-5)
        assert (sample.is_anomaly == (np.array(sample.positions) >= 45)).all()


def test_a_browser_shows_every_section_without_warnings(folder, tmp_path):
    dom, warnings = browse(folder / "report.html", tmp_path / "profile")
    assert warnings == []
    assert set(re.findall(r'<section id="(\w+)"', dom)) == set(SECTIONS) - {"verdict"}
    assert 'id="verdict"' in dom


def test_the_page_fits_a_phones_width(page, tmp_path):
    excess = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    (tmp_path / "measured.html").write_text(f"{without_policy}<script>parent.postMessage({excess}, '*')</script>")
    receive = "<script>onmessage = e => document.body.dataset.excess = e.data</script>"
    frame = '<iframe src="measured.html" width="360" height="700" style="border:0"></iframe>'
    (tmp_path / "phone.html").write_text(f"<!doctype html><body>{receive}{frame}</body>")
    dom, _ = browse(tmp_path / "phone.html", tmp_path / "profile")
    assert re.search(r'data-excess="(\d+)"', dom)[1] == "0"
