"""A CSV manifest lists images, and error messages name the line."""

import os

import pytest
from PIL import Image

from components.settings import DataSettings
from components.sources.files import DataError
from components.sources.plan import Reject
from components.sources.registry import plan_source


def settings_of(manifest, **given):
    return DataSettings(source="csv", path=str(manifest), **given)


@pytest.fixture
def manifest(tmp_path):
    for name in ("a.png", "deep/b.png", "ü, 1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (3, 2)).save(tmp_path / name)
    return tmp_path / "list.csv"


def rows_of(manifest, text, **given):
    manifest.write_text(text, encoding="utf-8")
    return [image for shard in plan_source(settings_of(manifest, **given)).shards for image in shard.read()]


def test_every_column_is_read(manifest):
    text = (
        "is_anomaly,path,label,split,note,mask,group\n"
        "0,a.png,cat,train,x,, left \n"
        ",deep/b.png,,VAL,,,\n"
        '1,"ü, 1.png",dog,,"two\nlines",deep/b.png,right\n'
    )
    rows = rows_of(manifest, text)
    assert [(i.image_id, i.label, i.named_split, i.is_anomaly, bool(i.mask), i.group) for i in rows] == [
        ("a.png", "cat", "train", 0, False, "left"),
        ("deep/b.png", "", "eval", None, False, ""),
        ("%C3%BC%2C%201.png", "dog", None, 1, True, "right"),
    ]
    assert plan_source(settings_of(manifest)).has_named_eval


@pytest.mark.parametrize("text", ["path\na.png", "\ufeffPath \r\na.png\r\n", "path\n\na.png\n\n"])
def test_the_output_of_spreadsheets_is_accepted(manifest, text):
    assert [image.image_id for image in rows_of(manifest, text)] == ["a.png"]


@pytest.mark.parametrize(
    "text",
    [
        "filename;label;is_anomaly\ndeep/b.png;cat;True\n",
        "Image_Path\tlabel\tis_anomaly\ndeep\\b.png\tcat\tTRUE\n",
        'label,is_anomaly,path\n"cat",1.0,deep\\b.png\n',
        "path,label,is_anomaly,filename\ndeep/b.png,cat,yes,x\n",
    ],
)
def test_other_delimiters_names_of_columns_and_kinds_of_paths_are_read(manifest, text):
    [image] = rows_of(manifest, text)
    assert (image.image_id, image.label, image.is_anomaly) == ("deep/b.png", "cat", 1)


@pytest.mark.parametrize(
    ("name", "split"),
    [("Train", "train"), ("training", "train"), ("VALID", "eval"), ("dev", "eval"), ("Testing", "test")],
)
def test_splits_have_their_usual_names(manifest, name, split):
    assert [image.named_split for image in rows_of(manifest, f"path,split\na.png,{name}\n")] == [split]


def test_max_images_takes_the_first_rows(manifest):
    assert [i.image_id for i in rows_of(manifest, "path\ndeep/b.png\na.png\n", max_images=1)] == ["deep/b.png"]


def test_missing_files_and_other_than_regular_files_are_rejected(manifest):
    os.mkfifo(manifest.parent / "pipe.png")
    assert rows_of(manifest, "path\ngone.png\ndeep\npipe.png\n") == [
        Reject("gone.png", "cannot be opened: No such file or directory"),
        Reject("deep", "not a regular file"),
        Reject("pipe.png", "not a regular file"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "list.csv: the first line must name the column 'path'; found nothing"),
        ("picture,label\n", "must name the column 'path'; found picture, label"),
        ("path,path\n", "names the column 'path' twice; remove one"),
        ("path,roi\na.png,a-roi.png\n", "line 2 gives a region of interest, a-roi.png.*set image.alpha: roi"),
        ("path,lable\na.png,cat\n", "unknown column 'lable'; did you mean 'label'"),
        ("path\n", "lists no images; add a line for each image"),
        ("path\na.png\n./deep/../a.png\n", "lines 2 and 3 both list a.png; remove one"),
        ("path,label\na.png,cat,dog\n", "line 2 has 3 fields, the header 2"),
        ("path,label\n,cat\n", "line 2: has no valid path"),
        ("path\n/a.png\n", "line 2: /a.png is absolute; make it relative"),
        ("path,mask\na.png,/a.png\n", "line 2: /a.png is absolute; make it relative"),
        (
            "path,split\na.png,holdout\n",
            "line 2: unknown split 'holdout'; use train, training, eval, val, valid, validation, dev, test, testing",
        ),
        (
            "path,is_anomaly\na.png,maybe\n",
            "line 2: unknown is_anomaly 'maybe'; use 0 or false, 1 or true, or leave it",
        ),
        ("path\nC:\\images\\a.png\n", "is absolute; make it relative"),
        ('path\n"a.png', "line 2 is not valid CSV: unexpected end of data"),
    ],
)
def test_an_error_names_the_line(manifest, text, message):
    with pytest.raises(DataError, match=message):
        rows_of(manifest, text)


def test_another_encoding_is_refused(manifest):
    manifest.write_bytes("path\nü.png\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"list.csv: not UTF-8 \(invalid start byte\); save it as UTF-8"):
        plan_source(settings_of(manifest))


def test_the_fingerprint_changes_with_the_manifest_and_with_the_files(manifest):
    rows_of(manifest, "path,label\na.png,cat\n")
    before = plan_source(settings_of(manifest)).fingerprint
    os.utime(manifest.parent / "a.png", ns=(1, 1))
    touched = plan_source(settings_of(manifest)).fingerprint
    rows_of(manifest, "path,label\na.png,horse\n")
    assert len({before, touched, plan_source(settings_of(manifest)).fingerprint}) == 3
