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
