"""The README's C++ example, compiled against ONNX Runtime's headers, gives the served score."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from exportable_models import images, write_examples, write_model
from PIL import Image

from serving.exporting.export import export_model
from serving.exporting.proof import images_of, served

HEADERS = Path(os.environ.get("ONNXRUNTIME_HEADERS", "/usr/include/onnxruntime"))
LIBRARY = next(iter(sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))), None)

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler, g++"),
    pytest.mark.skipif(
        not (HEADERS / "onnxruntime_cxx_api.h").exists(),
        reason=f"needs ONNX Runtime's headers in {HEADERS} (Debian 13's package libonnxruntime-dev), or in the folder "
        "that ONNXRUNTIME_HEADERS names",
    ),
    pytest.mark.skipif(LIBRARY is None, reason="the package onnxruntime has no shared library"),
]


def write_pnm(path: Path, levels: np.ndarray) -> None:
    """[H, W] or [H, W, 3] as binary PGM or PPM, whose 16-bit levels have the higher byte first."""
    kind, largest = ("P6" if levels.ndim == 3 else "P5"), np.iinfo(levels.dtype).max
    head = f"{kind}\n{levels.shape[1]} {levels.shape[0]}\n{largest}\n".encode()
    path.write_bytes(head + levels.astype(levels.dtype.newbyteorder(">")).tobytes())


@pytest.mark.parametrize(
    ("settings", "levels_of"),
    [
        ({}, lambda grey: grey),
        ({"channels": 3}, lambda grey: grey[..., None].repeat(3, axis=2)),
        ({"depth": 16}, lambda grey: grey.astype(np.uint16) * 257),
    ],
    ids=["grey", "RGB", "16 bits"],
)
def test_the_readmes_example_compiles_and_gives_the_served_score(settings, levels_of, tmp_path):
    contents = images(10, 5)
    splits = dict.fromkeys(("parity", "held_out", "test"), write_examples(tmp_path / "images", contents))
    model = write_model(tmp_path / "model", image=settings)
    export_model(model, tmp_path, target="onnx", precision="float32", **splits)
    source = re.search(r"```cpp\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)[1]
    (tmp_path / "example.cpp").write_text(source)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (tmp_path / name).symlink_to(LIBRARY)
    command = [
        "g++",
        "-std=c++17",
        "-Wall",
        "-Werror",
        "example.cpp",
        "-o",
        "example",
        "-I",
        HEADERS,
        "-L.",
        "-lonnxruntime",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    for content, expected in zip(contents, served(model, images_of(splits["test"])), strict=True):
        (tmp_path / "image.png").write_bytes(content)
        write_pnm(tmp_path / "image.pnm", levels_of(np.asarray(Image.open(tmp_path / "image.png"))))
        ran = subprocess.run(
            ["./example", "image.pnm"],
            cwd=tmp_path,
            env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        verdict, score, p_value = ran.stdout.split()
        assert float(score) == pytest.approx(expected["score"], rel=1e-4)
        assert verdict == ("anomaly" if expected["is_anomaly"] else "normal")
        assert 0.0 < float(p_value) <= 1.0
