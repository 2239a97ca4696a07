"""The README beside an exported file: its input, its outputs, and examples."""

from typing import Any, Final

from schema import signatures
from serving.exporting.proof import Comparison
from serving.exporting.runtimes import Precision, Target

README_FILE: Final = "README.md"
_RUNTIMES: Final[dict[Target, str]] = {"onnx": "ONNX Runtime", "litert": "LiteRT", "openvino": "OpenVINO"}
_MEANINGS: Final = {
    signatures.SCORE: "how strange the image is; higher is stranger",
    signatures.THRESHOLD: "scores above it are anomalies",
    signatures.P_VALUE: "share of normal images that score as high",
    signatures.IS_ANOMALY: "1 if the score exceeds the threshold",
    signatures.ANOMALY_MAP: "where the image is anomalous, in multiples of the pixel threshold",
    signatures.ANOMALY_MASK: "1 where the anomaly map exceeds 1",
    signatures.ERROR: "mean squared error of the reconstruction",
    signatures.ERROR_MAP: "error of each pixel",
    signatures.RECONSTRUCTION: "the decoder's image, in [0, 1]",
    signatures.LATENT: "the bottleneck vector",
    signatures.IS_PADDED: "1 if images are padded to the map's aspect ratio, 0 if they are stretched",
    signatures.SMALLEST_REGION: "share of the image's area below which a region of the mask does not count",
}
_LOAD: Final[dict[Target, str]] = {
    "onnx": """import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("{file}")
names = [output.name for output in session.get_outputs()]
{pixels}
outputs = dict(zip(names, session.run(names, {{"image": pixels}})))""",
    "litert": """from ai_edge_litert.interpreter import Interpreter
from PIL import Image

run = Interpreter("{file}").get_signature_runner()
{pixels}
outputs = run(image=pixels)""",
    "openvino": """import openvino
from PIL import Image

model = openvino.Core().compile_model("{file}", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
{pixels}
outputs = {{name: values for output, values in model([pixels]).items() for name in output.get_names()}}""",
}
_PACKAGES: Final[dict[Target, str]] = {"onnx": "onnxruntime", "litert": "ai-edge-litert", "openvino": "openvino"}
_PAGE: Final = """# {file}

The whole decision of an image autoencoder in one file for {runtime}, with weights in {precision}: pixels in; score,
threshold, p-value, map and mask out. {images} images were replayed in {runtime} before it was written: scores differ
from the SavedModel's by at most {worst:.1e} of their value, and {same} of {images} verdicts are the same.

## Input

`image`: {kind} [1, height, width, {channels}], the pixels of one image of any size, {colour}. The file resizes and
normalises them as the pipeline does; do neither yourself.

## Outputs

| name | type | shape | meaning |
|---|---|---|---|
{rows}

## Python

`pip install {package} numpy pillow`, then `python example.py image.png` in this folder:

```python
{example}
```
"""


def readme(function: Any, file: str, *, target: Target, precision: Precision, comparison: Comparison) -> str:
    """The page for the exported `file` of `function`, from `decision_of`."""
    [given] = function.input_signature
    outputs = function.get_concrete_function().structured_outputs
    rows = [
        f"| `{name}` | {values.dtype.name} | {list(values.shape)} | {_MEANINGS.get(name, '')} |"
        for name, values in sorted(outputs.items())
    ]
    channels = given.shape[-1]
    return _PAGE.format(
        file=file,
        precision=precision,
        runtime=_RUNTIMES[target],
        images=comparison.images,
        worst=comparison.worst_difference,
        same=comparison.same_verdicts,
        kind=given.dtype.name,
        channels=channels,
        colour="grey" if channels == 1 else "RGB",
        rows="\n".join(rows),
        package=_PACKAGES[target],
        example=_example(file, target, given.dtype.name, channels),
    )


def _example(file: str, target: Target, kind: str, channels: int) -> str:
    mode = "RGB" if channels == 3 else "L" if kind == "uint8" else "I;16"
    axes = "None, ..., None" if channels == 1 else "None"
    pixels = f'pixels = np.asarray(Image.open(sys.argv[1]).convert("{mode}"), np.{kind})[{axes}]'
    return "\n".join(
        [
            "import sys",
            "",
            "import numpy as np",
            _LOAD[target].format(file=file, pixels=pixels),
            'print("anomaly" if outputs["is_anomaly"][0] else "normal", outputs["score"][0], outputs["p_value"][0])',
        ]
    )
