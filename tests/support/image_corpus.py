"""Compares what a folder of image files shows through ingestion, score, REST and gRPC with Pillow: make test-corpus.

Every file goes through the real source, a real SavedModel and a real server. The model's score is a random projection
of the decoded pixels, so that it differs if any pixel does. The summary counts files by outcome; the exit status is 1
if two interfaces disagree, or if pixels differ from the oracle's.
"""

import contextlib
import io
import os
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from components.settings import DataSettings
from components.sources.plan import Reject
from components.sources.registry import plan_source
from images.formats import MAX_PIXELS
from serving.image_files import image_files
from serving.scoring import Scorer, local_scorer, score_files, server_scorer
from serving.server.run import running_server
from serving.server.settings import ServerSettings
from trainer.data.decoding import decode_images
from trainer.settings.image import ImageSettings

SIDE_PX = 64
TOLERANCE_LEVELS = 1
"""Blending transparency is rounded differently."""
SHOWN_PER_OUTCOME = 5
WHITE_IS_ZERO, PHOTOMETRIC = 0, 262


class Projection(tf.Module):
    """A model whose score is a fixed random projection of the image, which it returns as its reconstruction."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = ImageSettings(height_px=SIDE_PX, width_px=SIDE_PX, channels=3)
        weights = np.random.default_rng(0).normal(size=self.settings.shape)
        self.weights = tf.constant(weights, tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def score(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        score = tf.reduce_mean(decode_images(image_bytes, self.settings) * self.weights, axis=[1, 2, 3])
        zero = tf.zeros_like(score)
        return {"error": score, "score": score, "threshold": zero, "is_anomaly": tf.cast(zero, tf.int64)}


def by_pillow(content: bytes) -> np.ndarray[Any, Any] | str:
    """[H, W, 3] over white, or why Pillow shows nothing that could be compared."""
    try:
        image = Image.open(io.BytesIO(content))
        if image.width * image.height > MAX_PIXELS:
            return "too large"
        image.load()
        is_inverted = image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO  # type: ignore[attr-defined]
        with contextlib.suppress(Exception):  # damaged metadata
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I;16", "I;12")):
            wide = np.asarray(image).astype(np.uint16)
            grey = (65535 - wide if is_inverted else wide) >> 8
            if isinstance(level := image.info.get("transparency"), int):
                grey[wide == level] = 255  # Pillow ignores it: PNG specification, section 11.3.1.1
            return np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8)
        if image.mode in ("I", "F"):
            return f"mode {image.mode}, which has no fixed scale"
        rgba = np.asarray(image.convert("RGBA")).astype(float)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:80]}"
    share = rgba[:, :, 3:] / 255
    return np.round(rgba[:, :, :3] * share + 255 * (1 - share)).astype(np.uint8)


def ingested(folder: Path) -> Iterator[tuple[str, bytes | str]]:
    """(path below the folder, stored image or reason) of every file."""
    settings = DataSettings(source="folder", path=str(folder), follow_links=True)
    for shard in plan_source(settings).shards:
        for image in shard.read():
            yield unquote(image.image_id), image.reason if isinstance(image, Reject) else image.stored.encoded


def scored(paths: list[Path], scorer: Scorer) -> dict[Path, float | str]:
    results = score_files(paths, scorer)
    return {result.path: result.problem if result.score is None else result.score.score for result in results}


def compared(folder: Path) -> dict[str, list[str]]:
    """The files, with details, by outcome."""
    outcomes: defaultdict[str, list[str]] = defaultdict(list)
    paths = {str(path.relative_to(folder)): path for path in image_files([str(folder)])}
    with tempfile.TemporaryDirectory() as place:
        module = Projection()
        tf.saved_model.save(module, f"{place}/1", signatures={"serving_default": module.score})
        settings = ServerSettings(model_base_path=Path(place), grpc_port=0, rest_port=0, request_timeout_s=300)
        with running_server(settings) as address:
            scorers = {
                "score": local_scorer(Path(place, "1")),
                "REST": server_scorer(f"http://{address.host}:{address.rest_port}"),
                "gRPC": server_scorer(f"grpc://{address.host}:{address.grpc_port}"),
            }
            scores = {name: scored(list(paths.values()), scorer) for name, scorer in scorers.items()}
        for name, stored in ingested(folder):
            by_interface = {interface: of_path[paths[name]] for interface, of_path in scores.items() if name in paths}
            outcome, detail = _outcome(paths[name].read_bytes(), stored, by_interface, module)
            outcomes[outcome].append(f"{name}: {detail}" if detail else name)
    return outcomes


def _outcome(
    content: bytes, stored: bytes | str, scores: dict[str, float | str], module: Projection
) -> tuple[str, str]:
    expected = by_pillow(content)
    if isinstance(stored, str):
        if any(score != stored for score in scores.values()):
            return "INTERFACES DISAGREE", f"ingestion: {stored}; {scores}"
        return ("refused, as by pillow", stored) if isinstance(expected, str) else ("refused, read by pillow", stored)
    own = float(module.score(tf.constant([stored]))["score"][0])
    if any(isinstance(score, str) or abs(score - own) > 1e-6 for score in scores.values()):
        return "INTERFACES DISAGREE", f"ingestion: {own:.7f}; {scores}"
    if isinstance(expected, str):
        return "read, not by pillow", expected
    seen = tf.io.decode_image(stored, expand_animations=False).numpy()
    if tf.io.is_jpeg(stored):
        seen = tf.io.decode_jpeg(stored, dct_method="INTEGER_ACCURATE").numpy()
    if seen.shape[:2] != expected.shape[:2]:
        return "PIXELS DIFFER", f"{seen.shape} instead of {expected.shape}"
    difference = np.abs(seen.astype(int) - expected.astype(int)).max()
    return ("same pixels", "") if difference <= TOLERANCE_LEVELS else ("PIXELS DIFFER", f"by {difference} levels")


def main(folder: Path) -> int:
    """Print the summary; returns the exit status."""
    warnings.filterwarnings("ignore")
    Image.MAX_IMAGE_PIXELS = None
    started = time.monotonic()
    outcomes = compared(folder)
    for outcome, files in sorted(outcomes.items(), key=lambda item: -len(item[1])):
        print(f"{len(files):6,} {outcome}")
        if outcome != "same pixels":
            for file in files[:SHOWN_PER_OUTCOME] if outcome.islower() else files:
                print(f"         {file}")
    total = sum(map(len, outcomes.values()))
    wrong = sum(len(files) for outcome, files in outcomes.items() if outcome.isupper())
    print(
        f"{total:6,} files in {time.monotonic() - started:.0f} s; {wrong} differ between interfaces or from the oracle"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
