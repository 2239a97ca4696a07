"""Links and `..` cannot lead outside the data folder, unless data.follow_links allows links."""

import math
import struct

import pytest
import tensorflow as tf
from PIL import Image

from components.settings import DataSettings
from components.sources.files import DataError
from components.sources.plan import Reject, SourceImage
from components.sources.registry import plan_source
from images.stored import from_pixels

REASON = "links to a file outside the data folder; copy the file there, or set data.follow_links=true"


def images_of(source, path, **given):
    settings = DataSettings(source=source, path=str(path), **given)
    return [image for shard in plan_source(settings).shards for image in shard.read()]


def ids_of(*arguments, **given):
    return [image.image_id for image in images_of(*arguments, **given) if isinstance(image, SourceImage)]


def rejects_of(*arguments):
    return [image for image in images_of(*arguments) if isinstance(image, Reject)]


@pytest.fixture
def private(tmp_path):
    """A folder next to `data` whose name starts with the same letters."""
    private = tmp_path / "data-private"
    write_image(private / "a.png")
    return private


@pytest.fixture
def data(tmp_path):
    write_image(tmp_path / "data/own.png")
    return tmp_path / "data"


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (6, 5), 99).save(path)


def write_tfrecord(path):
    value = tf.train.BytesList(value=[from_pixels(tf.zeros((3, 4), tf.uint8).numpy()).encoded])
    feature = {"image": tf.train.Feature(bytes_list=value)}
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def write_idx(path, *shape):
    header = struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape)
    path.write_bytes(header + bytes(math.prod(shape)))


def test_a_linked_image_is_rejected_unless_links_are_followed(data, private):
    (data / "link.png").symlink_to(private / "a.png")
    (data / "nowhere.png").symlink_to(private / "nowhere.png")
    assert rejects_of("folder", data) == [Reject("link.png", REASON), Reject("nowhere.png", REASON)]
    assert ids_of("folder", data, follow_links=True) == ["link.png", "own.png"]


def test_links_within_the_data_folder_are_read_even_if_the_folder_is_a_link(data, tmp_path):
    (data / "again.png").symlink_to("own.png")
    (tmp_path / "alias").symlink_to(data)
    for folder in (data, tmp_path / "alias"):
        assert ids_of("folder", folder) == ["again.png", "own.png"]


def test_an_image_with_a_linked_mask_is_rejected(data, private):
    for path in ("train/good/1.png", "test/crack/2.png", "ground_truth/crack/1.png"):
        write_image(data / path)
    (data / "ground_truth/crack/2_mask.png").symlink_to(private / "a.png")
    assert rejects_of("folder", data) == [
        Reject("test/crack/2.png", f"its mask ground_truth/crack/2_mask.png: {REASON}")
    ]


def test_a_linked_folder_of_masks_is_refused(data, private):
    (data / "ground_truth").symlink_to(private)
    with pytest.raises(DataError, match=f"ground_truth: {REASON}"):
        plan_source(DataSettings(source="folder", path=str(data)))


def test_a_manifest_cannot_name_files_in_linked_folders_unless_links_are_followed(data, private):
    (data / "deep").symlink_to(private)
    (data / "list.csv").write_text("path,mask\ndeep/a.png,\nown.png,deep/a.png\n")
    assert rejects_of("csv", data / "list.csv") == [
        Reject("deep/a.png", REASON),
        Reject("own.png", f"its mask deep/a.png: {REASON}"),
    ]
    assert ids_of("csv", data / "list.csv", follow_links=True) == ["deep/a.png", "own.png"]


@pytest.mark.parametrize("follow_links", [False, True])
@pytest.mark.parametrize("row", ["../data-private/a.png,", "own.png,deep/../../data-private/a.png"])
def test_paths_in_a_manifest_cannot_leave_its_folder(data, private, row, follow_links):
    (data / "list.csv").write_text(f"path,mask\nown.png,\n{row}\n")
    with pytest.raises(DataError, match=r"list.csv: line 3: .* is outside the manifest's folder"):
        images_of("csv", data / "list.csv", follow_links=follow_links)


def test_a_name_may_begin_with_dots(data):
    write_image(data / "..a.png")
    (data / "list.csv").write_text("path\n..a.png\n")
    assert ids_of("csv", data / "list.csv") == ["..a.png"]


def test_a_linked_tfrecord_is_refused_unless_it_is_data_path_itself(data, private):
    write_tfrecord(private / "a.tfrecord")
    (data / "link.tfrecord").symlink_to(private / "a.tfrecord")
    with pytest.raises(DataError, match=f"link.tfrecord: {REASON}"):
        images_of("tfrecord", data)
    for path, follow_links in ((data, True), (data / "link.tfrecord", False)):
        assert ids_of("tfrecord", path, follow_links=follow_links) == ["link.tfrecord/0000000"]


@pytest.mark.parametrize("linked", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_a_linked_idx_file_is_refused(data, private, linked):
    for name, shape in (("train-images-idx3-ubyte", (1, 2, 3)), ("train-labels-idx1-ubyte", (1,))):
        write_idx((private if name == linked else data) / name, *shape)
    (private / linked).rename(private / "1f2e3d")  # content-addressed, as in the caches of DVC or Hugging Face
    (data / linked).symlink_to(private / "1f2e3d")
    with pytest.raises(DataError, match=f"{linked}: {REASON}"):
        images_of("idx", data)
    assert ids_of("idx", data, follow_links=True) == ["train-images-idx3-ubyte/0000000"]


def test_a_change_of_a_linked_idx_file_changes_the_fingerprint(data, private):
    (data / "train-images-idx3-ubyte").symlink_to(private / "1f2e3d")
    fingerprints = set()
    for rows in (1, 2):
        write_idx(private / "1f2e3d", rows, 2, 3)
        settings = DataSettings(source="idx", path=str(data), follow_links=True)
        fingerprints.add(plan_source(settings).fingerprint)
    assert len(fingerprints) == 2
