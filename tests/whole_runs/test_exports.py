"""A run's model, exported to every runtime through the command line, decides as the SavedModel does."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import autoencoder
from PIL import Image
from sklearn.datasets import load_digits

from serving.exporting.proof import Image as Stored
from serving.exporting.proof import served

FILES = {"onnx": "model.onnx", "litert": "model.tflite", "openvino": "model.xml"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The folder of a run."""
    root = tmp_path_factory.mktemp("runs")
    code, _, stderr = autoencoder("run", "configs/digits.yaml", "--set", f"root={root}", "--set", "trainer.epochs=20",
                                  "--set", "evaluation.thresholds=[{metric: mean_error, max: 0.1}]")  # fmt: skip
    assert code == 0, stderr
    return root / "digits"


@pytest.fixture(scope="module", params=FILES)
def exported(request, digits, tmp_path_factory):
    """(folder of the exported file, its name, the --json document)."""
    folder = tmp_path_factory.mktemp(request.param)
    code, stdout, stderr = autoencoder("export", digits, "--to", request.param, "--output", folder, "--json")
    assert code == 0, stderr
    return folder, FILES[request.param], json.loads(stdout)


def test_all_images_were_replayed_with_the_same_scores_and_verdicts(exported):
    folder, name, document = exported
    assert Path(document["path"]) == folder / name
    assert document["images"] == document["same_verdicts"] == 100
    assert 0 < document["worst_difference"] < 1e-4
    assert document["size_bytes"] == sum(path.stat().st_size for path in folder.glob("model.*"))


def test_the_readmes_example_runs_and_gives_the_served_score(exported, digits, tmp_path):
    folder, _, _ = exported
    example = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    assert len(example.strip().splitlines()) <= 12
    (tmp_path / "example.py").write_text(example)
    image = tmp_path / "image.png"
    Image.fromarray((load_digits().images[7] / 16 * 255).astype("uint8")).resize((40, 30)).save(image)
    ran = subprocess.run(
        [sys.executable, tmp_path / "example.py", image], cwd=folder, capture_output=True, text=True, env=os.environ
    )
    assert ran.returncode == 0, ran.stderr
    verdict, score, _ = ran.stdout.split()
    [pushed] = (digits / "serving").iterdir()
    [expected] = served(pushed, [Stored("image.png", image.read_bytes())])
    assert float(score) == pytest.approx(expected["score"], rel=1e-4)
    assert verdict == ("anomaly" if expected["is_anomaly"] else "normal")


def test_score_gives_the_same_results_with_the_exported_file(exported, digits, sample_images, tmp_path):
    folder, name, _ = exported
    (tmp_path / "broken.png").write_bytes(b"no image")
    arguments = (*sorted(sample_images.rglob("*.jpg"))[:3], tmp_path / "broken.png", "--format", "jsonl")
    (code, ours, _), (_, theirs, _) = (
        autoencoder("score", *arguments, "--model", model) for model in (folder / name, digits)
    )
    assert code == 0
    rows, expected = ([json.loads(line) for line in lines.splitlines()] for lines in (ours, theirs))
    assert len(rows) == 4
    assert rows[3] == expected[3]
    for row, other in zip(rows[:3], expected[:3], strict=True):
        assert row["score"] == pytest.approx(other["score"], rel=1e-4)
        assert [row[key] for key in ("path", "verdict", "p_value")] == [
            other[key] for key in ("path", "verdict", "p_value")
        ]
        assert len(row["regions"]) == len(other["regions"])


def test_a_file_of_another_kind_is_no_model(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"")
    code, _, stderr = autoencoder("score", "sample_images", "--model", tmp_path / "model.pt")
    assert code == 2
    assert "model.pt: not an exported model: its name must end in .onnx, .tflite, .xml" in stderr


@pytest.mark.parametrize(("target", "precision"), [("onnx", "float16"), ("onnx", "int8"), ("litert", "int8"),
                                                   ("openvino", "float16")])  # fmt: skip
def test_other_precisions_are_measured_and_recalibrated(digits, tmp_path, target, precision):
    arguments = ("export", digits, "--to", target, "--precision", precision, "--output", tmp_path, "--json")
    code, stdout, stderr = autoencoder(*arguments)
    assert code == 0, stderr
    document = json.loads(stdout)
    assert document["images"] == 181
    assert document["is_recalibrated"]
    assert document["same_verdicts"] >= 0.95 * 181
    assert document["worst_difference"] < (0.01 if precision == "float16" else 0.5)


def test_what_a_target_lacks_is_refused_by_name(digits, tmp_path):
    arguments = ("export", digits, "--to", "openvino", "--precision", "int8", "--output", tmp_path / "new")
    code, _, stderr = autoencoder(*arguments)
    assert code == 2
    assert "openvino in int8 is not supported; use --precision float16" in stderr
    assert not (tmp_path / "new").exists()
