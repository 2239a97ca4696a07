"""`data.exclude` leaves out the images that a text file names, and no others."""

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

IMAGES = np.random.default_rng(3).integers(0, 256, (40, 5, 6), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """40 images in train/good, one with a name that identifiers quote, and one in test/bad."""
    (tmp_path / "data/train/good").mkdir(parents=True)
    (tmp_path / "data/test/bad").mkdir(parents=True)
    for row, pixels in enumerate(IMAGES[:39]):
        Image.fromarray(pixels).save(tmp_path / f"data/train/good/{row:02d}.png")
    Image.fromarray(IMAGES[39]).save(tmp_path / "data/train/good/rück seite.png")
    Image.fromarray(255 - IMAGES[0]).save(tmp_path / "data/test/bad/00.png")
    return tmp_path / "data"


def excluding(tmp_path, text, **data):
    (tmp_path / "suspects.txt").write_text(text, encoding="utf-8")
    return DataSettings(**data, exclude=str(tmp_path / "suspects.txt"))


def generate(uri, settings):
    """(split -> identifiers, counts, rejects)."""
    examples = standard_artifacts.Examples()
    examples.uri = str(uri)
    fingerprint = plan_source(settings).fingerprint
    properties = {"settings": settings.model_dump_json(), "reading": "{}", "data_fingerprint": fingerprint}
    ImageExampleGenExecutor().Do({}, {EXAMPLES_KEY: [examples]}, properties)
    rejects = [json.loads(line) for line in (uri / "rejects.jsonl").read_text().splitlines()]
    counts = json.loads((uri / "counts.json").read_text())
    return {split: ids_of(uri / f"Split-{split}") for split in ("train", "eval", "test")}, counts, rejects


def ids_of(folder):
    records = tf.data.TFRecordDataset(sorted(map(str, folder.glob("*")))).as_numpy_iterator()
    examples = map(tf.train.Example.FromString, records)
    return {e.features.feature["image_id"].bytes_list.value[0].decode() for e in examples}


def test_named_images_are_left_out_counted_and_listed_and_no_other_moves(folder, tmp_path, caplog):
    source = {"source": "folder", "path": str(folder), "eval_fraction": 0.3}
    before, counts, _ = generate(tmp_path / "before", DataSettings(**source))
    assert "excluded" not in counts
    caplog.set_level("INFO")
    text = f"# confirmed on Monday\n\ntrain/good/03.png\n  {folder}/train/good/07.png  \ntrain/good/rück seite.png\r\n"
    after, counts, rejects = generate(tmp_path / "after", excluding(tmp_path, text, **source))
    excluded = {"train/good/03.png", "train/good/07.png", "train/good/r%C3%BCck%20seite.png"}
    assert after == {split: ids - excluded for split, ids in before.items()}
    assert sum(map(len, before.values())) == sum(map(len, after.values())) + 3
    assert (counts["excluded"], counts["rejected"]) == (3, 0)
    assert {reject["image_id"] for reject in rejects} == excluded
    assert {reject["reason"] for reject in rejects} == {"excluded by data.exclude"}
    [message] = [record.getMessage() for record in caplog.records if hasattr(record, "notice")]
    assert message == "images left out by data.exclude: 3"


def test_identifiers_of_suspects_jsonl_match(folder, tmp_path):
    settings = excluding(tmp_path, "train/good/r%C3%BCck%20seite.png\n", source="folder", path=str(folder))
    assert plan_source(settings).excluded == {"train/good/r%C3%BCck%20seite.png"}


def test_a_name_that_matches_nothing_is_an_error_before_anything_is_read(folder, tmp_path):
    settings = excluding(tmp_path, "train/good/03.png\n04.png\ngood/x.png\n", source="folder", path=str(folder))
    with pytest.raises(DataError, match=r"suspects\.txt: no image is named 04\.png, good/x\.png; correct or remove"):
        plan_source(settings)


def test_an_unreadable_image_can_be_excluded(folder, tmp_path):
    (folder / "train/good/broken.png").write_bytes(b"not an image")
    settings = excluding(tmp_path, "train/good/broken.png\n", source="folder", path=str(folder), max_reject_fraction=0)
    _, counts, _ = generate(tmp_path / "examples", settings)
    assert (counts["excluded"], counts["rejected"]) == (1, 0)


def test_rows_of_a_manifest_are_named_by_their_paths(folder, tmp_path):
    rows = "".join(f"train/good/{row:02d}.png\n" for row in range(39))
    (folder / "list.csv").write_text("path\n" + rows)
    settings = excluding(tmp_path, "train/good/00.png\n", source="csv", path=str(folder / "list.csv"))
    splits, counts, _ = generate(tmp_path / "examples", settings)
    assert counts["excluded"] == 1
    assert "train/good/00.png" not in set().union(*splits.values())
    assert sum(map(len, splits.values())) == 38


def test_rows_of_arrays_are_named_by_their_identifiers(tmp_path):
    np.save(tmp_path / "shot.npy", IMAGES)
    source = {"source": "numpy", "path": str(tmp_path / "shot.npy")}
    before, _, _ = generate(tmp_path / "before", DataSettings(**source))
    first = min(before["train"])
    after, counts, _ = generate(tmp_path / "after", excluding(tmp_path, f"{first}\n", **source))
    assert counts["excluded"] == 1
    assert after == {split: ids - {first} for split, ids in before.items()}
    with pytest.raises(DataError, match=r"no image is named shot\.npy/9999999; correct or remove these lines"):
        generate(tmp_path / "examples", excluding(tmp_path, f"{first}\nshot.npy/9999999\n", **source))


def test_the_names_are_part_of_the_fingerprint_but_comments_and_order_are_not(folder, tmp_path):
    source = {"source": "folder", "path": str(folder)}
    texts = [
        "",
        "# nothing yet\n",
        "train/good/01.png\ntrain/good/02.png\n",
        "# two\ntrain/good/02.png\ntrain/good/01.png\n",
        "train/good/01.png\n",
    ]
    fingerprints = [plan_source(excluding(tmp_path, text, **source)).fingerprint for text in texts]
    assert fingerprints[0] == fingerprints[1] == plan_source(DataSettings(**source)).fingerprint
    assert fingerprints[2] == fingerprints[3]
    assert len(set(fingerprints)) == 3


def test_a_missing_file_is_named_with_its_field(folder):
    settings = DataSettings(source="folder", path=str(folder), exclude="/no/such.txt")
    with pytest.raises(DataError, match=r"data\.exclude: /no/such\.txt: cannot be read: No such file or directory"):
        plan_source(settings)
