"""The configurations that the benchmark runs, which are its own: an edited preset must not change what is measured."""

import json
from pathlib import Path
from typing import Any, Final

from bench.timing import COMMAND_LINE, REPOSITORY, seconds_of_command
from runtime.errors import DONE

Settings = dict[str, Any]

OPEN_GATE: Final[Settings] = {
    "purpose": "reconstruct",
    "max_pca_ratio": None,
    "max_noise_copied": None,
    "min_auroc": None,
    "max_regression": None,
    "thresholds": [{"metric": "explained_variance", "min": 0.02}],
}
"""`evaluation:` for every model that has learnt anything, since its quality is irrelevant here; a gate that would bless
a model without any knowledge stops the run."""
_EPOCHS_OF_DIGITS: Final = {"tiny": 5, "small": 60, "full": 60}


def dense_on(images: Path, *, root: str | Path, epochs: int, **trainer: Any) -> Settings:
    """784-32-784 on 28x28 images in MNIST's file format."""
    return {
        "name": "bench",
        "root": str(root),
        "data": {"source": "idx", "path": str(images)},
        "image": {"height_px": 28, "width_px": 28},
        "trainer": {"preset": "dense", "epochs": epochs, **trainer},
        "evaluation": OPEN_GATE,
    }


def digits(size: str, *, root: str | Path) -> Settings:
    """The 1,797 digits of scikit-learn, 64-128-8-128-64, as `bench.plain_digits` trains them."""
    return {
        "name": "bench",
        "root": str(root),
        "data": {"source": "digits"},
        "image": {"height_px": 8, "width_px": 8},
        "trainer": {
            "preset": "deep",
            "latent_dim": 8,
            "hidden_units": [128],
            "loss": "mse",
            "batch_size": 32,
            "epochs": _EPOCHS_OF_DIGITS[size],
        },
        "evaluation": OPEN_GATE,
    }


def buttons(*, root: str | Path, push_to: Path) -> Settings:
    """A model of the sample images that is so fast that its own time does not hide the server's."""
    return {
        "name": "bench",
        "root": str(root),
        "data": {"source": "folder", "path": str(REPOSITORY / "sample_images")},
        "image": {"height_px": 48, "width_px": 48, "channels": 3},
        "trainer": {"preset": "deep", "hidden_units": [512, 128], "latent_dim": 16, "loss": "mse", "epochs": 30},
        "evaluation": OPEN_GATE,
        "push": {"destination": str(push_to)},
    }


def folder_of(settings: Settings) -> Path:
    """The folder of the run, with its metadata store."""
    return Path(settings["root"], settings["name"])


def seconds_of_run(settings: Settings) -> float:
    """Wall-clock seconds of `autoencoder run`, with its imports. Raises BenchmarkError unless the model is pushed."""
    file = Path(settings["root"], "bench.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings), encoding="utf-8")
    return seconds_of_command([*COMMAND_LINE, "run", str(file)], exit_code=DONE)
