"""A whole run on photographs in MVTec AD's layout, its measurements and its maps against independent ones."""

import io
import json

import numpy as np
import pytest
from local_runs import (
    DONE,
    SMALL,
    read_examples,
    records_of,
    run,
)
from PIL import Image

pytestmark = pytest.mark.slow


def test_mvtec_layout_keeps_its_splits_and_judges_by_normal_images(tmp_path):
    code, document = run("configs/folder.yaml", tmp_path, *SMALL)
    assert code == DONE
    assert document["metrics"]["auroc"] > 0.95
    assert document["metrics"]["example_count"] == 40  # test/good, not the 30 defects
    examples = next((tmp_path / "folder/artifacts/ImageExampleGen/examples").iterdir())
    counts = json.loads((examples / "counts.json").read_text())
    assert (counts["test"], counts["train"] + counts["eval"], counts["rejected"]) == (70, 300, 0)
    check_detection_against_scikit_learn(tmp_path)
    check_that_evaluator_and_served_model_agree_on_maps(tmp_path)


def check_detection_against_scikit_learn(root):
    """AUROC, overall and of each defect, and that of pixels, from what the finished model answers to the images."""
    import tensorflow as tf
    from sklearn.metrics import roc_auc_score

    [gate] = (root / "folder/artifacts/Evaluator/evaluation").glob("*/gate.json")
    judged = json.loads(gate.read_text())
    model = tf.saved_model.load(str(next((root / "folder/artifacts/Calibrator/model").glob("*/Format-Serving"))))
    test = read_examples(root, "test", "folder")
    images = tf.constant([example["image"].bytes_list.value[0] for example in test])
    scored = {name: values.numpy() for name, values in model.signatures["reconstruct"](image_bytes=images).items()}
    labels = np.array([example["label"].bytes_list.value[0].decode() for example in test])
    for label, found in [(None, judged["metrics"]), *judged["metrics_by_label"].items()]:
        chosen = (labels == "good") | (labels == label) | (label is None)
        if label != "good":
            expected = roc_auc_score(labels[chosen] != "good", scored["score"][chosen])
            assert found["auroc"] == pytest.approx(expected, abs=2e-3), label
    masks = np.zeros(scored["anomaly_map"].shape)
    for row, example in enumerate(test):
        if labels[row] != "good":
            mask = Image.open(io.BytesIO(example["mask"].bytes_list.value[0]))
            masks[row] = (
                np.asarray(tf.image.resize(np.asarray(mask)[..., None], masks.shape[1:], "nearest"))[..., 0] > 0
            )
    expected = roc_auc_score(masks.ravel(), scored["anomaly_map"].ravel())
    assert judged["metrics"]["pixel_auroc"] == pytest.approx(expected, abs=2e-3)
    assert 0 < judged["metrics"]["region_overlap"] <= 1


def check_that_evaluator_and_served_model_agree_on_maps(root):
    """The Evaluator keeps the upper 16 bits of a map, in the score's units: boxes are compared after the same cut."""
    import tensorflow as tf

    from serving.scoring import local_scorer

    [folder] = (root / "folder/artifacts/Calibrator/model").glob("*/Format-Serving")
    calibration = json.loads((folder / "assets.extra/autoencoder.json").read_text())["calibration"]
    encoded = [example["image"].bytes_list.value[0] for example in read_examples(root, "test", "folder")]
    evaluated = tf.saved_model.load(str(folder)).signatures["examples"](
        examples=tf.constant(records_of(root, "test", "folder"))
    )
    plain, served = local_scorer(folder)(encoded), local_scorer(folder, with_maps=True)(encoded)
    for name in ("score", "error", "threshold", "p_value"):
        expected = [getattr(one, name) for one in plain]
        assert [getattr(one, name) for one in served] == pytest.approx(expected, rel=1e-5), name
    assert [one.score for one in served] == pytest.approx(evaluated["score"].numpy().tolist(), rel=1e-5)

    levels = evaluated["error_levels"].numpy().astype(np.int32)
    bits = np.where(levels < 2**15, ~levels, levels - 2**15) << 16
    maps = np.stack([one.anomaly_map for one in served]) * np.float32(calibration["pixel_threshold"])
    kept = maps.view(np.int32) & ~0xFFFF
    assert maps == pytest.approx(bits.view(np.float32), rel=2**-7, abs=1e-5)
    assert np.mean(kept != bits) < 1e-3  # where a difference of 1e-7 crosses a step of the 16 bits
    compared = [
        (boxes_in(ours, image, one.smallest_region), boxes_in(theirs, image, one.smallest_region))
        for one, image, ours, theirs in zip(
            served,
            encoded,
            kept.view(np.float32) / np.float32(calibration["pixel_threshold"]),
            bits.view(np.float32) / np.float32(calibration["pixel_threshold"]),
            strict=True,
        )
    ]
    assert np.mean([ours == theirs for ours, theirs in compared]) > 0.95
    assert sum(bool(theirs) for _, theirs in compared) > 10


def boxes_in(anomaly_map, image, smallest_share):
    from images.decoding import upright_size
    from images.regions import Placement, find_regions

    placement = Placement.on_map(upright_size(image), anomaly_map.shape, is_padded=False)
    regions, _ = find_regions(anomaly_map, placement, smallest_share=smallest_share)
    return [(region.left, region.top, region.right, region.bottom, region.area_px) for region in regions]
