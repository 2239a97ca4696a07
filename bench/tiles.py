"""Large images in tiles: peak memory and time of scoring one, in a process of its own.

`python -m bench.tiles FOLDER FILE` loads the SavedModel in FOLDER, scores FILE, and prints what that took.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.comparison import Comparison

_AREA: Final = "tiles"
_SIDES_PX: Final = {"tiny": (256, 512), "small": (1000, 2000), "full": (1000, 4000)}
_TILE_PX: Final = 256
_WARM_UP: Final = 1
_MAX_OF_FLOATS: Final = 2.5
"""Memory for one more pixel as a multiple of that of its three channels as 32-bit floats."""
_MAX_OF_PIXELS: Final = 1.5
"""Time of the larger image as a multiple of the smaller one's, per tile."""


def compare(size: str, repetitions: int) -> list[Comparison]:
    """Two sizes of image: what more memory the larger one takes, and how the time grows."""
    with tempfile.TemporaryDirectory() as folder:
        measured = [_of_side(Path(folder) / str(side_px), side_px, repetitions) for side_px in _SIDES_PX[size]]
    (small, few), (large, many) = measured
    megapixels = (_SIDES_PX[size][1] ** 2 - _SIDES_PX[size][0] ** 2) / 1e6
    floats_mb = 3 * 4 * megapixels * 1e6 / 2**20
    more_mb = tuple(max(0.1, b["scoring_mb"] - a["scoring_mb"]) for a, b in zip(small, large, strict=True))
    return [
        Comparison(_AREA, f"memory for {megapixels:.1f} million more pixels", "these pixels as 32-bit floats",
                   more_mb, (floats_mb,) * repetitions, _MAX_OF_FLOATS, unit="MB"),
        Comparison(_AREA, f"time per tile, {many} tiles", f"{few} tiles",
                   tuple(one["seconds"] / many for one in large), tuple(one["seconds"] / few for one in small),
                   _MAX_OF_PIXELS),
    ]  # fmt: skip


def _of_side(folder: Path, side_px: int, repetitions: int) -> tuple[list[dict[str, float]], int]:
    """(measurements of scoring an image with sides of `side_px`, its number of tiles)."""
    from images.png import encode_png

    tiles = _write_model(folder / "model", side_px)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (side_px // 8, side_px // 8, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    file = folder / "image.png"
    file.write_bytes(next(encode_png(pixels[np.newaxis])))
    command = [sys.executable, "-m", "bench.tiles", str(folder / "model"), str(file)]
    printed = [subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout for _ in range(repetitions)]
    return [json.loads(line) for line in printed], tiles


def _write_model(folder: Path, side_px: int) -> int:
    """A calibrated model with random weights, whose score is the mean of the worst pixels; returns its tiles."""
    import tensorflow as tf
    import tf_keras as keras

    from schema.calibration_record import CalibrationRecord
    from schema.features import IMAGE, NORMALISED
    from trainer.data.dataset import PixelConstants
    from trainer.export.signatures import ServedModel, export_served
    from trainer.export.trained_model import TrainedModel, export_trained, write_record
    from trainer.families.registry import build_autoencoder
    from trainer.preprocessing import decode_images
    from trainer.scoring.scores import FittedScore
    from trainer.settings.calibration import CalibrationSettings
    from trainer.settings.image import ImageSettings
    from trainer.settings.trainer import TrainerSettings

    tile = {"height_px": min(_TILE_PX, side_px // 2), "width_px": min(_TILE_PX, side_px // 2)}
    image = ImageSettings.model_validate({"height_px": side_px, "width_px": side_px, "channels": 3, "tiles": tile})
    keras.utils.set_random_seed(0)
    autoencoder = build_autoencoder(image, TrainerSettings.model_validate({"preset": "residual", "latent_dim": 32}))
    model = TrainedModel(
        autoencoder,
        transform_layer=lambda encoded: {NORMALISED: decode_images(encoded[IMAGE], image)},
        constants=PixelConstants(np.zeros(3, np.float32), np.ones(3, np.float32)),
        mean_image=np.zeros(image.shape, np.float32),
        image=image,
    )
    latent_dim = image.tile_count * autoencoder.latent_dim
    record = {"image": image.model_dump(mode="json"), "latent_dim": latent_dim}
    export_trained(model, f"{folder}-trained", record=record)
    scores = np.linspace(0.1, 1.0, 20, dtype=np.float32)
    calibration = CalibrationRecord(
        score="worst_pixels", threshold=1.0, false_alarm_rate=0.05, pixel_threshold=1.0, pixel_false_alarm_rate=0.05,
        images=len(scores), scores=tuple(map(float, scores)), source_fingerprint="",
    )  # fmt: skip
    served = ServedModel(
        tf.saved_model.load(f"{folder}-trained"),
        latent_dim=latent_dim,
        image=image,
        score=FittedScore("worst_pixels", CalibrationSettings(), {}),
        calibration=calibration,
        held_out_scores=[scores],
    )
    export_served(served, str(folder), warmup_image=b"")
    write_record(str(folder), {**record, "calibration": calibration.to_json()})
    return image.tile_count


def _peak_mb() -> float:
    """Largest resident memory of this program; resource.getrusage would include that of the program that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    [peak] = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak) / 1024


def _measure(folder: Path, file: Path) -> dict[str, Any]:
    from serving.scoring import local_scorer

    score = local_scorer(folder, with_maps=True)
    loaded_mb, content = _peak_mb(), file.read_bytes()
    for _ in range(_WARM_UP):
        score([content])
    started = time.process_time()
    score([content])
    return {"loaded_mb": loaded_mb, "scoring_mb": _peak_mb() - loaded_mb, "seconds": time.process_time() - started}


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]), Path(sys.argv[2]))))
