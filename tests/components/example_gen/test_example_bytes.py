"""Serialized examples hold what protobuf would write, and are the same bytes in every process."""

import os
import unicodedata

import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from components.example_gen.example_bytes import serialize
from components.sources.plan import SourceImage
from images.stored import StoredImage
from schema import features

STORED = st.builds(
    StoredImage,
    encoded=st.binary(max_size=20_000),
    height_px=st.integers(1, 2**31),
    width_px=st.integers(1, 2**31),
    channels=st.sampled_from([1, 3]),
    mean_intensity=st.floats(0, 1),
    contrast=st.floats(0, 0.5),
    pixel_digest=st.just(b""),
)
IMAGES = st.builds(
    SourceImage,
    image_id=st.text(st.characters(codec="ascii"), max_size=300),
    label=st.text(max_size=50) | st.just(os.fsdecode(b"not UTF-8: \xff")) | st.just("not Unicode: \ud800"),
    named_split=st.none(),
    is_anomaly=st.sampled_from([None, 0, 1]),
    stored=STORED,
    mask=st.none() | st.binary(max_size=300),
    group=st.text(st.characters(codec="utf-8"), max_size=50),
)


def built_by_protobuf(image):
    values = {
        features.IMAGE: image.stored.encoded,
        features.IMAGE_ID: image.image_id.encode(),
        features.LABEL: "".join("\ufffd" if unicodedata.category(c) == "Cs" else c for c in image.label).encode(),
        features.MASK: image.mask,
        features.GROUP: image.group.encode() or None,
        features.HEIGHT_PX: image.stored.height_px,
        features.WIDTH_PX: image.stored.width_px,
        features.CHANNELS: image.stored.channels,
        features.IS_ANOMALY: image.is_anomaly,
        features.MEAN_INTENSITY: image.stored.mean_intensity,
        features.CONTRAST: image.stored.contrast,
    }
    example = tf.train.Example()
    for name, value in values.items():
        feature = example.features.feature[name] if value is not None else tf.train.Feature()
        kind = {bytes: feature.bytes_list, int: feature.int64_list, float: feature.float_list}.get(type(value))
        if kind is not None:
            kind.value.append(value)
    return example


@settings(deadline=None)
@given(IMAGES)
def test_protobuf_reads_what_it_would_have_written(image):
    """Its versions write a map's entries in different orders; the size shows that nothing is written twice."""
    expected = built_by_protobuf(image)
    written = serialize(image)
    assert tf.train.Example.FromString(written) == expected
    assert len(written) == len(expected.SerializeToString())


@settings(deadline=None)
@given(IMAGES)
def test_features_are_sorted_by_name(image):
    """Each entry is preceded by its length, so a name is found where it follows its tag and its own length."""
    written = serialize(image)
    names = sorted(tf.train.Example.FromString(written).features.feature)
    places = [written.index(bytes([0x0A, len(name)]) + name.encode()) for name in names]
    assert places == sorted(places)
