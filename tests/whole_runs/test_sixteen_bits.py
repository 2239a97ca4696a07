"""A camera of 12 bits in PNG files of 16: faint defects are found at a depth of 16, and hardly at a depth of 8."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import autoencoder
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

pytestmark = pytest.mark.slow

SIDE_PX = 32
DEFECT = 25
"""Levels of 4,096 at a defect's centre: a tenth of the 256 that one level of 8 bits stands for."""
CONFIGURATION = """
name: twelve
data: {source: folder, path: %s, eval_fraction: 0.25}
image: {height_px: 32, width_px: 32}
trainer: {preset: dense, latent_dim: 4, linear_path: true, loss: mse, epochs: 10}
evaluation: {score: auto, purpose: detect, min_auroc: null}
"""


def write_parts(folder: Path) -> None:
    """A part that looks like the first digit, in changing light, with a sensor's noise; half of the test images with a
    faint spot."""
    random = np.random.default_rng(0)
    digit = Image.fromarray(load_digits().images[0].astype("f4") / 16).resize((SIDE_PX, SIDE_PX))
    part = 500 + 3000 * np.asarray(digit)
    down, across = np.mgrid[:SIDE_PX, :SIDE_PX]
    for kind, count in {"train/good": 240, "test/good": 60, "test/spot": 60}.items():
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            image = part * random.uniform(0.95, 1.05) + random.normal(0, 5, part.shape)
            if kind == "test/spot":
                y, x = random.uniform(8, 24, 2)
                image += DEFECT * np.exp(-((down - y) ** 2 + (across - x) ** 2) / (2 * 2.0**2))
            levels = np.clip(np.round(image), 0, 4095).astype(np.uint16)
            Image.fromarray(levels).save(folder / kind / f"{number:03d}.png")


def test_faint_defects_in_12_of_16_bits(tmp_path: Path) -> None:
    write_parts(tmp_path / "parts")
    (tmp_path / "twelve.yaml").write_text(CONFIGURATION % (tmp_path / "parts"))
    auroc = {}
    settings = {
        "8": ["image.depth=8"],
        "16": ["image.depth=16", "image.range=[0, 4095]"],
        "percentiles": ["image.depth=16", "image.range={percentiles: [0.1, 99.9]}"],
    }
    for name, own in settings.items():
        root = tmp_path / name
        overrides = [argument for one in (f"root={root}", *own) for argument in ("--set", one)]
        code, stdout, stderr = autoencoder("run", tmp_path / "twelve.yaml", "--json", *overrides)
        assert code in (0, 3), stderr
        assert ("only 16 grey levels are left" in stderr) == (name == "8")
        document = json.loads(stdout)
        assert any("only 16 grey levels are left" in warning for warning in document["warnings"]) == (name == "8")
        assert "used_bits" not in document["images"]
        auroc[name] = document["metrics"]["auroc"]
        if document["blessed"]:  # what is served scores as what was evaluated
            _, lines, _ = autoencoder("score", "--format", "jsonl", "--model", root / "twelve", tmp_path / "parts/test")
            rows = [json.loads(line) for line in lines.splitlines()]
            is_spot = ["/spot/" in row["path"] for row in rows]
            assert roc_auc_score(is_spot, [row["score"] for row in rows]) == pytest.approx(auroc[name], abs=1e-3)
    assert auroc["16"] > 0.95
    assert auroc["percentiles"] > 0.95
    assert auroc["8"] < 0.75
