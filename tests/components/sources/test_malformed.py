"""Any file content leads to images, rejects or a DataError that names the file, never to another exception."""

import gzip
import resource
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from components.settings import DataSettings
from components.sources.files import DataError
from components.sources.plan import Reject
from components.sources.registry import plan_source
from images.stored import from_pixels

PIXELS = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


def idx_file(folder):
    content = struct.pack(">4I", 0x0803, *PIXELS.shape) + PIXELS.tobytes()
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    return folder / "train-images-idx3-ubyte", DataSettings(source="idx", path=str(folder))


def gzipped_idx_file(folder):
    path, given_settings = idx_file(folder)
    packed = path.with_name("train-images-idx3-ubyte.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed, given_settings


def npy_file(folder):
    np.save(folder / "a.npy", PIXELS)
    return folder / "a.npy", DataSettings(source="numpy", path=str(folder / "a.npy"))


def npz_file(folder):
    np.savez(folder / "a.npz", x_train=PIXELS, y_train=["a", "b", "c"])
    return folder / "a.npz", DataSettings(source="numpy", path=str(folder / "a.npz"))


def compressed_npz_file(folder):
    np.savez_compressed(folder / "a.npz", x=PIXELS / 255, y=[1, 2, 3])
    return folder / "a.npz", DataSettings(source="numpy", path=str(folder / "a.npz"))


def tfrecord_file(folder, compression=""):
    with tf.io.TFRecordWriter(str(folder / "a.tfrecord"), compression) as writer:
        for pixels in PIXELS:
            value = tf.train.BytesList(value=[from_pixels(pixels).encoded])
            feature = {"image": tf.train.Feature(bytes_list=value)}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return folder / "a.tfrecord", DataSettings(source="tfrecord", path=str(folder / "a.tfrecord"))


def gzipped_tfrecord_file(folder):
    return tfrecord_file(folder, "GZIP")


def csv_file(folder):
    Image.new("L", (3, 2)).save(folder / "a.png")
    (folder / "a.csv").write_text('path,label,split,is_anomaly\na.png,"a, b",train,0\nb.png,,,\n')
    return folder / "a.csv", DataSettings(source="csv", path=str(folder / "a.csv"))


FORMATS = [
    idx_file, gzipped_idx_file, npy_file, npz_file, compressed_npz_file, tfrecord_file, gzipped_tfrecord_file, csv_file,
]  # fmt: skip
NAMES = {"idx": "train-images-idx3-ubyte", "numpy": "a.np", "tfrecord": "a.tfrecord"}
EDITS = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 3), st.binary(max_size=6)), max_size=4)
SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def damaged(content, edits):
    """Each edit replaces `length` bytes at a position by others, or truncates the content."""
    for at, length, inserted in edits:
        at %= len(content) + 1
        content = content[:at] if not (length or inserted) else content[:at] + inserted + content[at + length :]
    return content


def complaint(given_settings):
    """Reads everything; returns the message of a DataError, or None."""
    try:
        found = [image for shard in plan_source(given_settings).shards for image in shard.read()]
    except DataError as error:
        return str(error)
    assert found
    if given_settings.source != "csv":  # whose rejects name the files that it lists
        name = NAMES[given_settings.source]
        assert all(name in image.image_id for image in found if isinstance(image, Reject))
    return None


def check(path, given_settings):
    """An error must name the file `path`, or its folder if the folder has no images."""
    message = complaint(given_settings) or str(path)
    assert str(path) in message or f"{path.parent}: contains no" in message


@pytest.mark.parametrize("write", FORMATS)
def test_an_intact_file_is_read(write, tmp_path):
    path, given_settings = write(tmp_path)
    found = [image for shard in plan_source(given_settings).shards for image in shard.read()]
    assert [image for image in found if not isinstance(image, Reject)]


@pytest.mark.parametrize("write", FORMATS)
@given(edits=EDITS)
@SETTINGS
def test_a_damaged_file_is_named(write, edits, tmp_path):
    path, given_settings = write(tmp_path)
    path.write_bytes(damaged(path.read_bytes(), edits))
    check(path, given_settings)


@pytest.mark.parametrize("write", FORMATS)
@given(content=st.binary(max_size=200))
@SETTINGS
def test_a_file_with_any_content_is_named(write, content, tmp_path):
    path, given_settings = write(tmp_path)
    path.write_bytes(content)
    check(path, given_settings)


@given(text=st.text(alphabet='path,label"split01\n\r\0./aé ', max_size=60))
@SETTINGS
def test_a_manifest_with_any_content_is_named(text, tmp_path):
    path, given_settings = csv_file(tmp_path)
    path.write_text("path,label\n" + text, encoding="utf-8", newline="")
    check(path, given_settings)


@given(header=st.text(alphabet="{}()[],:'0123456789-<>|fui descrshapefortran_orderTrueFalseNone\\", max_size=100))
@SETTINGS
def test_an_array_with_any_header_is_named(header, tmp_path):
    path, given_settings = npy_file(tmp_path)
    packed = header.encode("latin-1")
    path.write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(packed)) + packed + PIXELS.tobytes())
    check(path, given_settings)


@given(
    descr=st.sampled_from(["|u1", "<f4", ">f8", "<f2", "|b1", "<U3", "|O", "|V1", "<M8[D]", "u1,u1", "", "x", None, 3]),
    shape=st.lists(st.one_of(st.integers(-2, 6), st.sampled_from([60, 2**31, 2**63, True])), max_size=5).map(tuple),
    fortran_order=st.booleans(),
    version=st.sampled_from([b"\1\0", b"\2\0", b"\3\0", b"\4\0"]),
)
@SETTINGS
def test_an_array_of_any_shape_and_type_is_named(descr, shape, fortran_order, version, tmp_path):
    path, given_settings = npy_file(tmp_path)
    header = repr({"descr": descr, "fortran_order": fortran_order, "shape": shape}).encode()
    length = struct.pack("<H" if version == b"\1\0" else "<I", len(header))
    path.write_bytes(b"\x93NUMPY" + version + length + header + PIXELS.tobytes())
    check(path, given_settings)


def test_a_length_that_is_true_counts_as_one(tmp_path):
    path, given_settings = npy_file(tmp_path)
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (60, True, True)}"
    path.write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + PIXELS.tobytes())
    images = [image for shard in plan_source(given_settings).shards for image in shard.read()]
    assert {(image.stored.height_px, image.stored.width_px) for image in images} == {(1, 1)}
    assert len(images) == 60


def test_a_gzip_bomb_is_unzipped_only_up_to_the_size_in_its_header(tmp_path):
    """It contains 32 MiB, but the process may write only 1 MiB."""
    path, given_settings = gzipped_idx_file(tmp_path)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(2**25)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))  # Python ignores the signal: writing more is an error
    try:
        with pytest.raises(DataError, match=r"ubyte.gz: too long: .* 3x4x5 = 60 bytes, but more follow"):
            plan_source(given_settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_gzip_file_of_the_right_length_with_a_wrong_checksum_is_named(tmp_path):
    path, given_settings = gzipped_idx_file(tmp_path)
    packed = bytearray(path.read_bytes())
    packed[-8] ^= 1
    path.write_bytes(packed)
    with pytest.raises(DataError, match=r"ubyte.gz: damaged or incomplete gzip file \(CRC"):
        plan_source(given_settings)


@pytest.mark.parametrize("shape", [(2, 1, 65_536), (2, 65_536, 1)])
def test_sides_that_the_schema_does_not_allow_are_refused(shape, tmp_path):
    np.save(tmp_path / "images.npy", np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match=f"images.npy: images of {shape[1]}x{shape[2]}"):
        plan_source(DataSettings(source="numpy", path=str(tmp_path / "images.npy")))
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", *shape)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + bytes(2 * 65_536))
    with pytest.raises(DataError, match=f"idx3-ubyte: images of {shape[1]}x{shape[2]}"):
        plan_source(DataSettings(source="idx", path=str(tmp_path)))
