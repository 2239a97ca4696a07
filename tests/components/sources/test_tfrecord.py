"""TFRecords of tf.Examples, as TensorFlow writes them."""

import pytest
import tensorflow as tf

from components.settings import DataSettings
from components.sources.files import DataError
from components.sources.plan import Reject
from components.sources.registry import plan_source
from components.sources.tfrecord import MAX_RECORD_BYTES
from images.stored import from_pixels

PNG = [from_pixels(tf.fill((3, 4), tf.constant(level, tf.uint8)).numpy()).encoded for level in range(5)]


def settings_of(path, **given):
    return DataSettings(source="tfrecord", path=str(path), **given)


def images_of(path, **given):
    return [image for shard in plan_source(settings_of(path, **given)).shards for image in shard.read()]


def example(**values):
    feature = {
        name.replace("__", "/"): tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, bytes)
        else tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        for name, value in values.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def write(path, records, compression=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for record in records:
            writer.write(record)


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_records_are_read_whatever_the_shard_size(tmp_path, compression):
    write(tmp_path / "a.tfrecord", [example(image=png, label=row) for row, png in enumerate(PNG)], compression)
    one, many = (images_of(tmp_path / "a.tfrecord", images_per_shard=n) for n in (100, 2))
    assert one == many
    assert [image.stored.encoded for image in one] == PNG
    assert [(image.image_id, image.label) for image in one] == [(f"a.tfrecord/{row:07d}", str(row)) for row in range(5)]


def test_image_and_label_may_have_other_names(tmp_path):
    write(tmp_path / "imagenet.tfrecord", [example(image__encoded=PNG[0], image__class__label=7)])
    write(tmp_path / "own.tfrecord", [example(jpeg=PNG[0], kind=b"cat")])
    assert [image.label for image in images_of(tmp_path / "imagenet.tfrecord")] == ["7"]
    own = images_of(tmp_path / "own.tfrecord", image_feature="jpeg", label_feature="kind")
    assert [image.label for image in own] == ["cat"]


def test_a_group_is_read_if_there_is_one(tmp_path):
    write(tmp_path / "a.tfrecord", [example(image=PNG[0], group=b"left"), example(image=PNG[1], group=7)])
    write(tmp_path / "b.tfrecord", [example(image=PNG[0])])
    assert [image.group for image in images_of(tmp_path)] == ["left", "7", ""]


def test_a_folder_of_our_own_examples_keeps_splits_and_normality(tmp_path):
    for split, is_anomaly in (("train", 0), ("eval", 0), ("test", 1)):
        name = "data_tfrecord-00000-of-00001.gz"
        write(tmp_path / f"Split-{split}" / name, [example(image=PNG[0], is_anomaly=is_anomaly)], "GZIP")
    (tmp_path / "counts.json").write_text("{}")
    assert [(i.image_id, i.named_split, i.is_anomaly) for i in images_of(tmp_path)] == [
        ("Split-eval/data_tfrecord-00000-of-00001.gz/0000000", "eval", 0),
        ("Split-test/data_tfrecord-00000-of-00001.gz/0000000", "test", 1),
        ("Split-train/data_tfrecord-00000-of-00001.gz/0000000", "train", 0),
    ]
    assert plan_source(settings_of(tmp_path)).has_named_eval


def test_max_images_takes_the_first_of_each_file(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.tfrecord", [example(image=png) for png in PNG])
    assert [image.image_id[0] for image in images_of(tmp_path, max_images=2)] == ["a", "a", "b", "b"]


def test_records_without_a_readable_image_are_rejected(tmp_path):
    records = [example(picture=PNG[0]), b"\xff no protocol buffer", example(image=b"no image"), example(image=PNG[0])]
    write(tmp_path / "a.tfrecord", records)
    *rejects, good = images_of(tmp_path / "a.tfrecord")
    assert rejects == [
        Reject(
            "a.tfrecord/0000000",
            "the record has no encoded image in image or image/encoded; found picture; set data.image_feature",
        ),
        Reject("a.tfrecord/0000001", "the record is not a tf.Example"),
        Reject("a.tfrecord/0000002", "not an image in a supported format"),
    ]
    assert good.stored.encoded == PNG[0]


def test_a_damaged_record_is_rejected_and_the_next_one_read(tmp_path):
    write(tmp_path / "a.tfrecord", [example(image=PNG[0]), example(image=PNG[1])])
    content = bytearray((tmp_path / "a.tfrecord").read_bytes())
    content[40] ^= 1
    (tmp_path / "a.tfrecord").write_bytes(content)
    reject, good = images_of(tmp_path / "a.tfrecord")
    assert reject == Reject("a.tfrecord/0000000", "the record is damaged: its checksum is wrong")
    assert good.stored.encoded == PNG[1]


def test_a_record_too_long_for_memory_is_rejected_and_the_next_one_read(tmp_path):
    """The file is sparse, so that the gigabyte is not written to disk."""
    write(tmp_path / "rest.tfrecord", [example(image=PNG[0])])
    length, checksum_of_length = MAX_RECORD_BYTES + 1, bytes.fromhex("63cf8aec")
    with (tmp_path / "a.tfrecord").open("wb") as file:
        file.write(length.to_bytes(8, "little") + checksum_of_length)
        file.seek(length + 4, 1)
        file.write((tmp_path / "rest.tfrecord").read_bytes())
    reject, good = images_of(tmp_path / "a.tfrecord")
    assert reject == Reject("a.tfrecord/0000000", "the record has 1,073,741,825 bytes, more than 1,073,741,824")
    assert good.stored.encoded == PNG[0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[:-1], r"a.tfrecord: record 1 at byte \d+: is truncated: its length says \d+ bytes"),
        (lambda content: content + b"\1", r"a.tfrecord: record 2 at byte \d+: is truncated within its length"),
        (lambda content: b"\7" + content[1:], "a.tfrecord: record 0 at byte 0: its length has a wrong checksum"),
        (lambda content: b"", "a.tfrecord: contains no records"),
    ],
)
def test_broken_framing_is_reported_with_its_position(tmp_path, spoil, message):
    write(tmp_path / "a.tfrecord", [example(image=PNG[0]), example(image=PNG[1])])
    (tmp_path / "a.tfrecord").write_bytes(spoil((tmp_path / "a.tfrecord").read_bytes()))
    with pytest.raises(DataError, match=message):
        plan_source(settings_of(tmp_path / "a.tfrecord"))


def test_a_truncated_gzip_file_is_reported(tmp_path):
    write(tmp_path / "a.tfrecord", [example(image=png) for png in PNG], "GZIP")
    (tmp_path / "a.tfrecord").write_bytes((tmp_path / "a.tfrecord").read_bytes()[:-20])
    with pytest.raises(DataError, match="a.tfrecord: record .* ended before the end-of-stream marker"):
        plan_source(settings_of(tmp_path / "a.tfrecord"))


def test_a_plain_file_that_begins_like_gzip_is_read_as_plain(tmp_path):
    """A first record of 0x8b1f bytes begins with gzip's magic number."""
    overhead = len(example(image=PNG[0], note=b"n" * 30_000)) - 30_000
    record = example(image=PNG[0], note=b"n" * (0x8B1F - overhead))
    assert len(record) == 0x8B1F
    write(tmp_path / "a.tfrecord", [record])
    assert len(images_of(tmp_path / "a.tfrecord")) == 1


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(DataError, match="contains no TFRecord files"):
        plan_source(settings_of(tmp_path))


def feature_of(value):
    values = value if isinstance(value, list) else [value]
    if isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def only_image(tmp_path, *, settings=None, **values):
    """The image, or the reject, of a file with one record."""
    record = {"image": PNG[0], **values}
    features = tf.train.Features(feature={name: feature_of(value) for name, value in record.items()})
    write(tmp_path / "a.tfrecord", [tf.train.Example(features=features).SerializeToString()])
    [image] = images_of(tmp_path / "a.tfrecord", **(settings or {}))
    return image


@pytest.mark.parametrize(("label", "text"), [(7, "7"), (7.0, "7"), (-1.0, "-1"), (b"cat", "cat"), (b"007", "007")])
def test_labels_are_text_or_whole_numbers_of_any_type(tmp_path, label, text):
    assert only_image(tmp_path, label=label).label == text


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (0.5, "the feature label is 0.5; labels and groups are strings or whole numbers"),
        ([0.0, 1.0], "the feature label (2 floats) should have one value"),
        ([1, 2, 3], "the feature label (3 integers) should have one value"),
    ],
)
def test_other_labels_are_refused_by_name(tmp_path, label, reason):
    assert only_image(tmp_path, label=label).reason == reason


def test_a_misspelt_label_feature_is_refused(tmp_path):
    reject = only_image(tmp_path, species=b"cat", settings={"label_feature": "spezies"})
    assert reject.reason == "the record has no label in spezies; found image, species; set data.label_feature"
    assert only_image(tmp_path, species=b"cat").label == ""


@pytest.mark.parametrize("value", [1, 1.0, b"1", b"true", b"True"])
def test_anomalies_of_any_type_are_anomalies(tmp_path, value):
    assert only_image(tmp_path, is_anomaly=value).is_anomaly == 1
    zero = b"False" if isinstance(value, bytes) else type(value)(0)
    assert only_image(tmp_path, is_anomaly=zero).is_anomaly == 0


@pytest.mark.parametrize("value", [2, -1, 0.5, b"yes!", [0, 1]])
def test_an_unclear_normality_is_refused_by_name(tmp_path, value):
    assert "is_anomaly" in only_image(tmp_path, is_anomaly=value).reason


def test_a_mask_or_an_image_of_another_type_is_refused_by_name(tmp_path):
    assert "mask (2 floats)" in only_image(tmp_path, mask=[0.0, 1.0]).reason
    assert "mask (1 integers) is no image file" in only_image(tmp_path, mask=3).reason
    assert "found image (3 floats)" in only_image(tmp_path, image=[0.0, 0.5, 1.0]).reason


def test_zlib_files_are_read_whatever_the_shard_size(tmp_path):
    records = [example(image=png, label=row) for row, png in enumerate(PNG * 40)]
    write(tmp_path / "a.tfrecord", records, "ZLIB")
    for size in (7, 1000):
        images = images_of(tmp_path / "a.tfrecord", images_per_shard=size)
        assert [image.label for image in images] == [str(row) for row in range(200)]
    (tmp_path / "a.tfrecord").write_bytes((tmp_path / "a.tfrecord").read_bytes()[:-20])
    with pytest.raises(DataError, match="a.tfrecord: record .* ended before the end-of-stream marker"):
        plan_source(settings_of(tmp_path / "a.tfrecord"))


def test_names_of_files_name_splits(tmp_path):
    """As TensorFlow Datasets and ImageNet's scripts write them, with an index beside the data."""
    for name in (
        "flowers-train.tfrecord-00000-of-00001",
        "flowers-test.tfrecord-00000-of-00001",
        "validation-00000-of-00002",
    ):
        write(tmp_path / name, [example(image=PNG[0])])
    (tmp_path / "flowers-train.tfrecord.index").write_text("no records")
    assert [image.named_split for image in images_of(tmp_path)] == ["test", "train", "eval"]
    (tmp_path / "flowers-train.tfrecord-00000-of-00001").unlink()
    assert [image.named_split for image in images_of(tmp_path)] == [None, None]
