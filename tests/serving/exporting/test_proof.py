"""An exported file whose scores or verdicts differ is refused."""

import os
from pathlib import Path

import pytest
import tensorflow as tf

from serving.exporting import proof
from serving.exporting.proof import ExportRefusedError, Image, compare, images_of, require_equal

IMAGES = [Image("a.png", b""), Image("b.png", b"")]
SERVED = [{"score": 2.0, "is_anomaly": 0, "milliseconds": 4.0}, {"score": 5.0, "is_anomaly": 1}]


def replayed(*pairs: tuple[float, int]) -> list[dict[str, float]]:
    return [
        {"score": score, "is_anomaly": verdict, "milliseconds": float(number)}
        for number, (score, verdict) in enumerate(pairs)
    ]


def test_differences_of_rounding_pass() -> None:
    theirs = replayed((2.0001, 0), (5.0, 1))
    require_equal(IMAGES, SERVED, theirs)
    found = compare(IMAGES, SERVED, theirs)
    assert (found.images, found.same_verdicts, found.milliseconds, found.served_milliseconds) == (2, 2, 0.5, 4.0)
    assert found.worst_difference == pytest.approx(5e-5)


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ([(2.0, 0), (5.001, 1)], r"b\.png: the exported model's score is 5\.001 \(anomaly\), but .* 5 \(anomaly\)"),
        ([(2.0, 1), (5.0, 1)], r"a\.png: the exported model's score is 2 \(anomaly\), but .* 2 \(normal\)"),
        ([(float("nan"), 0), (5.0, 1)], r"a\.png: the exported model's score is nan"),
    ],
)
def test_another_score_or_verdict_is_refused_and_named(pairs: list[tuple[float, int]], reason: str) -> None:
    with pytest.raises(ExportRefusedError, match=reason):
        require_equal(IMAGES, SERVED, replayed(*pairs))


def test_a_file_that_hangs_its_runtime_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")  # opening it waits for a writer
    with pytest.raises(ExportRefusedError, match=r"model\.onnx took more than 5 s for 2 images"):
        proof.replayed(tmp_path / "model.onnx", IMAGES, timeout_s=5)


def test_images_are_found_in_a_folder_with_special_characters(tmp_path: Path) -> None:
    folder = tmp_path / "run[1]*"
    folder.mkdir()
    values = {"image": b"content", "image_id": b"a.png"}
    features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in values.items()}
    with tf.io.TFRecordWriter(str(folder / "parity.tfrecord")) as writer:
        writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    assert images_of(f"{folder}/*") == [Image("a.png", b"content")]


def test_auroc_is_measured_on_labelled_images_of_both_kinds() -> None:
    images = [Image("a", b"", 0), Image("b", b"", 1), Image("c", b"", 0), Image("d", b"")]
    ours = [{"score": score, "is_anomaly": 0, "milliseconds": 1.0} for score in (1.0, 3.0, 2.0, 9.0)]
    theirs = replayed((1.0, 0), (2.0, 0), (3.0, 0), (0.0, 0))
    assert compare(images, ours, theirs).auroc == (1.0, 0.5)
    assert compare(images[::2], ours[::2], theirs[::2]).auroc is None


def test_the_number_of_agreeing_verdicts_is_counted() -> None:
    assert compare(IMAGES, SERVED, replayed((2.0, 1), (5.0, 1))).same_verdicts == 1


@pytest.mark.parametrize(("threshold", "share"), [(2.0, 4e-6), (0.01, 1.6e-5)])
def test_scores_that_cross_zero_are_compared_with_the_threshold_or_the_median(threshold: float, share: float) -> None:
    """Such as those of `ensemble`: 8e-6 is little beside scores of 0.5, but a fifth of 4e-5."""
    images = [Image(name, b"") for name in "abc"]
    served, other = (-0.5, 4e-5, 0.6), (-0.5, 4.8e-5, 0.6)
    about = {"is_anomaly": 0, "milliseconds": 1.0, "threshold": threshold}
    ours, theirs = ([{"score": score, **about} for score in scores] for scores in (served, other))
    require_equal(images, ours, theirs)
    assert compare(images, ours, theirs).worst_difference == pytest.approx(share)
    with pytest.raises(ExportRefusedError, match=r"b: the exported model's score is 4\.8e-05"):
        require_equal(images[1:], ours[1:], theirs[1:])
