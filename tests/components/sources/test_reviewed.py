"""`data.reviewed`: reviewed images replace the same images of the data, and go where the decision sends them."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tfx.types import standard_artifacts

from components.example_gen.component import EXAMPLES_KEY, ImageExampleGenExecutor
from components.settings import DataSettings
from components.sources.files import DataError
from components.sources.registry import plan_source
from serving.reviewing.decisions import Subject, digest_of
from serving.reviewing.review_folder import ReviewFolder

IMAGES = np.random.default_rng(4).integers(0, 256, (70, 5, 6), dtype=np.uint8)
NEW = range(50, 70)
"""Images that are not in the data."""


@pytest.fixture
def folder(tmp_path):
    """50 images in a flat folder, whose labels and normality are unknown."""
    (tmp_path / "data").mkdir()
    for row, pixels in enumerate(IMAGES[:50]):
        Image.fromarray(pixels).save(tmp_path / f"data/{row:02d}.png")
    return tmp_path / "data"


@pytest.fixture
def review(tmp_path):
    return ReviewFolder(tmp_path / "review")


def decide(review, tmp_path, row, decision, *, form="png", **known):
    """The file that was decided about, in a format that may differ from the data's."""
    file = tmp_path / f"decided.{form}"
    Image.fromarray(IMAGES[row]).save(file)
    content = file.read_bytes()
    subject = Subject(digest=digest_of(content), name=f"line/{row:02d}.{form}", **known)
    review.decide(subject, decision, reviewer="Anna", content=content, label="dent" if decision == "defect" else "")


def settings_of(folder, review, **given):
    return DataSettings(source="folder", path=str(folder), reviewed=str(review.manifest), eval_fraction=0.3, **given)


def generate(uri, settings):
    """(row of IMAGES -> (split, label, is_anomaly, is reviewed), counts)."""
    examples = standard_artifacts.Examples()
    examples.uri = str(uri)
    plan = plan_source(settings)
    properties = {"settings": settings.model_dump_json(), "reading": "{}", "data_fingerprint": plan.fingerprint}
    ImageExampleGenExecutor().Do({}, {EXAMPLES_KEY: [examples]}, properties)
    found = {}
    for split in ("train", "eval", "test"):
        files = sorted(map(str, (uri / f"Split-{split}").glob("*")))
        for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            pixels = tf.io.decode_image(feature["image"].bytes_list.value[0]).numpy()[..., 0]
            [row] = np.flatnonzero((pixels == IMAGES).all(axis=(1, 2)))
            known = feature["is_anomaly"].int64_list.value[0] if "is_anomaly" in feature else None
            is_reviewed = feature["image_id"].bytes_list.value[0].startswith(b"reviewed:")
            assert int(row) not in found
            found[int(row)] = (split, feature["label"].bytes_list.value[0].decode(), known, is_reviewed)
    return found, json.loads((uri / "counts.json").read_text())


def test_defects_test_the_model_wherever_they_were(folder, review, tmp_path):
    before, _ = generate(tmp_path / "before", DataSettings(source="folder", path=str(folder), eval_fraction=0.3))
    in_train, in_eval = (next(row for row, known in before.items() if known[0] == split) for split in ("train", "eval"))
    decide(review, tmp_path, in_train, "defect", form="bmp", split="train")
    decide(review, tmp_path, in_eval, "defect", split="eval")
    decide(review, tmp_path, 60, "defect")
    after, counts = generate(tmp_path / "after", settings_of(folder, review))
    assert {row: after[row] for row in (in_train, in_eval, 60)} == dict.fromkeys(
        (in_train, in_eval, 60), ("test", "dent", 1, True)
    )
    others = before.keys() - {in_train, in_eval}
    assert {row: after[row] for row in others} == {row: before[row] for row in others}  # no other image moves
    assert (counts["reviewed"], counts["replaced"]) == (3, 2)


@pytest.mark.parametrize(("use", "split"), [("calibrate", "eval"), ("train", "train")])
def test_half_of_the_normal_images_test_and_half_calibrate_or_train(folder, review, tmp_path, use, split):
    for row in NEW:
        decide(review, tmp_path, row, "normal", label="good")
    after, _ = generate(tmp_path / "after", settings_of(folder, review, reviewed_normals=use))
    splits = [after[row][0] for row in NEW]
    assert set(splits) == {"test", split}
    assert 4 <= splits.count("test") <= 16
    assert {after[row][1:] for row in NEW} == {("good", 0, True)}


def test_a_normal_suspect_stays_where_the_model_had_it(folder, review, tmp_path):
    decide(review, tmp_path, 1, "normal", split="train")
    decide(review, tmp_path, 2, "normal", split="eval")
    decide(review, tmp_path, 3, "unsure", split="train")
    after, counts = generate(tmp_path / "after", settings_of(folder, review))
    assert (after[1], after[2]) == (("train", "", 0, True), ("eval", "", 0, True))
    assert not after[3][3]
    assert (counts["reviewed"], counts["replaced"]) == (2, 2)


def test_a_decision_counts_more_than_the_labels_of_the_configuration(folder, review, tmp_path):
    decide(review, tmp_path, 60, "normal", label="odd", split="train")
    decide(review, tmp_path, 61, "defect")
    after, _ = generate(tmp_path / "after", settings_of(folder, review, normal_labels=("", "dent")))
    assert (after[60][::2], after[61][::2]) == (("train", 0), ("test", 1))


def test_the_fingerprint_follows_decisions_but_not_their_time_or_author(folder, review, tmp_path):
    alone = plan_source(DataSettings(source="folder", path=str(folder))).fingerprint
    decide(review, tmp_path, 60, "defect")
    settings = settings_of(folder, review)
    first = plan_source(settings)
    assert first.fingerprint.startswith(f"{alone} with ")
    assert (first.image_count, first.reviewed.image_count) == (50, 1)
    decide(review, tmp_path, 60, "defect")
    assert plan_source(settings).fingerprint == first.fingerprint
    decide(review, tmp_path, 60, "normal")
    assert plan_source(settings).fingerprint != first.fingerprint
    review.undo("Anna")
    assert plan_source(settings).fingerprint == first.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,is_anomaly\n", "lists no images"),
        ("path,is_anomaly\n1.png,\n", "1.png has no is_anomaly; write 0 or 1"),
        ("path,is_anomaly\n../1.png,1\n", "outside the manifest's folder"),
        (None, "no such file"),
    ],
)
def test_an_unusable_manifest_is_reported_before_the_run(folder, tmp_path, text, message):
    if text is not None:
        (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(DataError, match=f"^data.reviewed: .*{message}"):
        plan_source(DataSettings(source="folder", path=str(folder), reviewed=str(tmp_path / "mine.csv")))


def test_auto_means_none_where_no_run_has_resolved_it(folder):
    plans = [plan_source(DataSettings(source="folder", path=str(folder), reviewed=given)) for given in ("auto", None)]
    assert plans[0] == plans[1]
    assert plans[0].reviewed is None
