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
"""Of the first images: how long it takes again, since a runtime may prepare itself for each size of image."""
TIMED = 100


def main(path: str, folder: str) -> None:
    """Print the outputs for each image of `folder`."""
    model = ExportedModel(Path(path))
    for number, image in enumerate(sorted(Path(folder).iterdir())):
        content = image.read_bytes()
        outputs = model(content)
        numbers = {name: float(outputs[name][0]) for name in NUMBERS} | {PEAK: float(outputs[ANOMALY_MAP].max())}
        if number < TIMED:
            started_s = time.perf_counter()
            model(content)
            numbers[MILLISECONDS] = 1000.0 * (time.perf_counter() - started_s)
        print(json.dumps(numbers))


if __name__ == "__main__":
    main(*sys.argv[1:])
