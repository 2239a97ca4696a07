"""`python -m serving.smoke_check FOLDER`: does the version in this folder load and answer?

Loads it as the server does, replays its warm-up requests and, where the model scores images, scores one.
Prints one line of JSON; exit status 0 if all went well, 1 with `problem` if not.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from schema.signatures import IMAGE_BYTES, SCORE, SCORE_SIGNATURE
from serving.prediction import Predictor, Request
from serving.settings import ServerSettings
from serving.warmup import replay_warmup

PROBE_SIZE_PX = 64


def smoke_check(folder: Path) -> dict[str, Any]:
    """What was tried and found of the SavedModel in `folder`; raises whatever went wrong."""
    predictor = Predictor(folder, ServerSettings(model_base_path=folder))
    found: dict[str, Any] = {
        "signatures": sorted(predictor.signature_defs),
        "warmup_requests": replay_warmup(predictor, folder),
    }
    door = predictor.signature(SCORE_SIGNATURE)
    if door.inputs.keys() == {IMAGE_BYTES} and SCORE in door.outputs:
        inputs = {IMAGE_BYTES: np.array([_grey_png()], dtype=object)}
        score = float(predictor.predict(Request(inputs, SCORE_SIGNATURE))[SCORE][0])
        if not np.isfinite(score):
            raise ValueError(f"the score of a grey image is {score}")
        found["score_of_a_grey_image"] = score
    return found


def _grey_png() -> bytes:
    out = io.BytesIO()
    Image.new("L", (PROBE_SIZE_PX, PROBE_SIZE_PX), 128).save(out, format="PNG")
    return out.getvalue()


def main(argv: list[str]) -> int:
    """Check the folder named by `argv`; returns the exit status."""
    try:
        print(json.dumps(smoke_check(Path(argv[0]))))
    except Exception as error:
        print(json.dumps({"problem": f"{type(error).__name__}: {error}"}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
