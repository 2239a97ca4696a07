"""Check a SavedModel before it is pushed: `python -m serving.model.smoke_check FOLDER [PARITY]`.

Loads the model as the server does, replays its warm-up requests and, if the model scores images, scores one. PARITY
is the Evaluator's file of images and their errors, which the model must reproduce. Prints one line of JSON; exits
with 0 if all checks pass, with 1 and the key `problem` otherwise.
"""

import json
import sys
from pathlib import Path
from typing import Any

from images.stored import from_pixels
from runtime.imports import imported_for_good
from runtime.tfrecords import bytes_of, features_of, text_of
from schema import features
from schema.signatures import ERROR, IMAGE_BYTES, SCORE, SCORE_SIGNATURE

with imported_for_good():
    import numpy as np
    import tensorflow as tf

    from serving.model.prediction import Predictor, Request
    from serving.model.warmup import replay_warmup

PROBE_SIZE_PX = 64
PARITY_TOLERANCE = 0.01
"""Relative. A GPU's 19-bit products change an error by a few thousandths; wrong weights or pixels, by far more."""
NEGLIGIBLE_ERROR = 1e-6


def smoke_check(folder: Path, parity: Path | None = None) -> dict[str, Any]:
    """The results of all checks of the SavedModel in `folder`; raises the first failure."""
    predictor = Predictor(folder)
    found: dict[str, Any] = {
        "signatures": sorted(predictor.signature_defs),
        "warmup_requests": replay_warmup(predictor, folder),
    }
    signature = predictor.signature(SCORE_SIGNATURE)
    if signature.inputs.keys() == {IMAGE_BYTES} and SCORE in signature.outputs:
        grey = from_pixels(np.full((PROBE_SIZE_PX, PROBE_SIZE_PX), 128, np.uint8)).encoded
        inputs = {IMAGE_BYTES: np.array([grey], dtype=object)}
        score = float(predictor.predict(Request(inputs, SCORE_SIGNATURE))[SCORE][0])
        if not np.isfinite(score):
            raise ValueError(f"the score of a grey image is {score}")
        found["score_of_a_grey_image"] = score
    if parity is not None:
        found["images_with_the_evaluators_error"] = _replay_evaluation(predictor, parity)
    return found


def _replay_evaluation(predictor: Predictor, parity: Path) -> int:
    """The number of images compared; ValueError names the first whose error differs from the Evaluator's."""
    count = 0
    for index, record in enumerate(tf.data.TFRecordDataset(str(parity)).as_numpy_iterator()):
        known = features_of(record)
        image, image_id = bytes_of(known, features.IMAGE), text_of(known, features.IMAGE_ID)
        expected = known[ERROR].float_list.value[0]
        inputs = {IMAGE_BYTES: np.array([image], dtype=object)}
        error = float(predictor.predict(Request(inputs, SCORE_SIGNATURE, (ERROR,)))[ERROR][0])
        if not abs(error - expected) <= PARITY_TOLERANCE * expected + NEGLIGIBLE_ERROR:
            raise ValueError(
                f"test image {index} ({image_id}): "
                f"its error is {error:.6g} when served, but was {expected:.6g} in the Evaluator"
            )
        count += 1
    return count


def main(argv: list[str]) -> int:
    """Check the model named by `argv` and return the exit status."""
    try:
        print(json.dumps(smoke_check(*map(Path, argv))))
    except Exception as error:
        print(json.dumps({"problem": f"{type(error).__name__}: {error}"}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
