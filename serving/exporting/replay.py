"""Scores the images in a folder with an exported file: `python -m serving.exporting.replay FILE FOLDER`.

Runs in a process of its own, without TensorFlow, as on the machine that the file is for. Prints a line of JSON for each
image, in the order of their names.
"""

import json
import sys
import time
from pathlib import Path

from schema.signatures import ANOMALY_MAP, ERROR, IS_ANOMALY, P_VALUE, SCORE, THRESHOLD
from serving.exporting.runtimes import ExportedModel

NUMBERS = (ERROR, SCORE, THRESHOLD, P_VALUE, IS_ANOMALY)
PEAK = "peak"
"""The largest value of the anomaly map."""
MILLISECONDS = "milliseconds"


def main(path: str, folder: str) -> None:
    """Print the outputs for each image of `folder`."""
    model = ExportedModel(Path(path))
    for image in sorted(Path(folder).iterdir()):
        content = image.read_bytes()
        started_s = time.perf_counter()
        outputs = model(content)
        taken_s = time.perf_counter() - started_s
        numbers = {name: float(outputs[name][0]) for name in NUMBERS}
        print(json.dumps({**numbers, PEAK: float(outputs[ANOMALY_MAP].max()), MILLISECONDS: 1000.0 * taken_s}))


if __name__ == "__main__":
    main(*sys.argv[1:])
