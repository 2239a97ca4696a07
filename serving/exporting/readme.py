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
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("{file}")
names = [output.name for output in session.get_outputs()]
{pixels}
outputs = dict(zip(names, session.run(names, {{"image": pixels}})))""",
    "litert": """from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

run = Interpreter("{file}").get_signature_runner()
{pixels}
outputs = run(image=pixels)""",
    "openvino": """import openvino
from PIL import Image, ImageOps

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

`pip install {package} numpy pillow`, save this as `example.py` in this folder, then `python example.py image.png`. It
turns the image as its EXIF orientation says, like the pipeline, but ignores transparency, which the pipeline lays over
white.

```python
{example}
```
"""
_CPLUSPLUS: Final = """
## C++

Save this as `example.cpp` in this folder, then `g++ -std=c++17 example.cpp -o example -I HEADERS -L LIBRARY
-lonnxruntime` with the folders of ONNX Runtime's headers and library, and `./example image.{suffix}`. Instead of a
file's pixels, pass your camera's: row by row, from left to right{order}.

```cpp
#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

int main(int, char** arguments) {{
  std::ifstream file(arguments[1], std::ios::binary);  // a binary {format}: convert image.png image.{suffix}
  std::string kind;
  int64_t width, height, largest;
  file >> kind >> width >> height >> largest;
  file.get();
  std::vector<{type}> pixels(width * height * {channels});
  file.read(reinterpret_cast<char*>(pixels.data()), pixels.size() * sizeof pixels[0]);
{swap}
  Ort::Env environment;
  Ort::Session session(environment, "{file}", Ort::SessionOptions());
  const int64_t shape[] = {{1, height, width, {channels}}};
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto image = Ort::Value::CreateTensor<{type}>(memory, pixels.data(), pixels.size(), shape, 4);
  const char* input = "image";
  const char* outputs[] = {{"is_anomaly", "score", "p_value"}};
  auto found = session.Run(Ort::RunOptions(), &input, &image, 1, outputs, 3);
  std::cout << (*found[0].GetTensorData<int64_t>() ? "anomaly " : "normal ") << *found[1].GetTensorData<float>() << " "
            << *found[2].GetTensorData<float>() << std::endl;
}}
```
"""
_SWAP: Final = """  for (auto& level : pixels) level = level >> 8 | level << 8;  // the file has the higher byte first
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
    page = _PAGE.format(
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
    return page + _cplusplus_example(file, given.dtype.name, channels) if target == "onnx" else page


def _example(file: str, target: Target, kind: str, channels: int) -> str:
    mode = "RGB" if channels == 3 else "L" if kind == "uint8" else "I;16"
    axes = "None, ..., None" if channels == 1 else "None"
    pixels = (
        f'pixels = np.asarray(ImageOps.exif_transpose(Image.open(sys.argv[1])).convert("{mode}"), np.{kind})[{axes}]'
    )
    return "\n".join(
        [
            "import sys",
            "",
            "import numpy as np",
            _LOAD[target].format(file=file, pixels=pixels),
            'print("anomaly" if outputs["is_anomaly"][0] else "normal", outputs["score"][0], outputs["p_value"][0])',
        ]
    )


def _cplusplus_example(file: str, kind: str, channels: int) -> str:
    return _CPLUSPLUS.format(
        file=file,
        type=f"{kind}_t",
        channels=channels,
        suffix="ppm" if channels == 3 else "pgm",
        format="PPM" if channels == 3 else "PGM",
        order=", red, green and blue of each pixel together" if channels == 3 else "",
        swap=_SWAP if kind == "uint16" else "",
    )
