"""The `data:` and `evaluation:` sections of the configuration."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from runtime.settings import Section

MetricName = Literal[
    "mean_error", "median_error", "p95_error", "p99_error", "max_error", "rmse", "psnr", "ssim",
    "explained_variance", "example_count", "false_alarm_rate", "noise_ratio", "noise_copied",
    "error_at_noise_5", "error_at_noise_10", "error_at_noise_20", "error_at_noise_40",
    "dead_units", "effective_dimension", "kl",
    "auroc", "aupr", "f1", "recall_at_1pct", "recall_at_5pct", "pixel_auroc", "region_overlap",
]  # fmt: skip
_WITHOUT_REGRESSION = ("example_count", "kl", "noise_copied")
"""Neither more nor less of it is better, or it may be negative, so that a fraction of it means nothing."""
SourceName = Literal["digits", "mnist", "fashion_mnist", "idx", "folder", "numpy", "tfrecord", "csv"]
DriftFeature = Literal["label", "height_px", "width_px", "channels", "mean_intensity", "contrast"]
_PATH_IS = {
    "idx": "the folder that holds the IDX files",
    "folder": "the folder that holds the images",
    "numpy": "the .npy or .npz file",
    "tfrecord": "a TFRecord file, or a folder of them",
    "csv": "the manifest that lists the images",
}


class DriftSettings(Section):
    """What happens when images differ from those that the newest pushed model was trained on."""

    action: Literal["stop", "warn", "ignore"] = "stop"
    """`stop` the run before training, `warn` in the log, or do not look."""
    limits: dict[DriftFeature, Annotated[float, Field(ge=0, le=1)]] = {}
    """Jensen-Shannon divergence (0 alike, 1 nothing in common) to tolerate; what is not named: schema.pbtxt's."""


class DataSettings(Section):
    """Source, splits and limits; every field but `drift` is part of ImageExampleGen's cache key."""

    source: SourceName = "digits"
    path: str | None = None
    """Folder of the images, IDX files or TFRecords, or the one file; null downloads mnist and fashion_mnist."""
    image_feature: str | None = None
    """tfrecord: the feature that holds the encoded image; null takes `image`, else `image/encoded`."""
    label_feature: str | None = None
    """tfrecord: the feature that holds the label; null takes `label`, else `image/class/label`."""
    eval_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of images held out for early stopping and calibration."""
    test_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of images never seen in training or calibration; ignored where the data name their own test split."""
    normal_labels: tuple[Annotated[str, Field(coerce_numbers_to_str=True)], ...] = ()
    """Labels that count as normal; images of any other label are anomalies and go to `test`. Empty: all unknown."""
    training_anomalies: Literal["test", "leave_out"] = "test"
    """What becomes of anomalies in a split that the data name `train` or `eval`: tested too, or not used at all."""
    max_images: int | None = Field(None, ge=1)
    """Use only the first so many images of each file or folder listing, for trials."""
    max_reject_fraction: float = Field(0.05, ge=0, le=1)
    """More unreadable images than this share stop the run before training."""
    follow_links: bool = False
    """Read files that symbolic links find outside of the data folder; without, data cannot name other files."""
    images_per_shard: int = Field(10_000, ge=1)
    """One unit of Beam work, and one TFRecord file per split."""
    drift: DriftSettings = DriftSettings()

    @model_validator(mode="after")
    def _check_path_and_fractions(self) -> "DataSettings":
        if self.source in _PATH_IS and not self.path:
            raise ValueError(f"data.path is required for source '{self.source}': {_PATH_IS[self.source]}")
        for name in ("image_feature", "label_feature"):
            if self.source != "tfrecord" and getattr(self, name):
                raise ValueError(f"data.{name} has no meaning for source '{self.source}', only for 'tfrecord'")
        if self.source == "digits" and self.path:
            raise ValueError(
                "data.path has no meaning for source 'digits' (it is bundled); set data.source to 'folder'"
            )
        if self.eval_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"data.eval_fraction {self.eval_fraction} + data.test_fraction {self.test_fraction} leave no images "
                "to train on: make their sum less than 1"
            )
        return self


class Threshold(Section):
    """A demand of the gate on `metric`, over all images or those of one `label`.

    It must lie in [min, max], and be worse than the latest blessed model's by at most the fraction `max_regression`.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    metric: MetricName
    min: float | None = None
    max: float | None = None
    max_regression: float | None = Field(None, ge=0)
    label: str | None = None

    @model_validator(mode="after")
    def _check_bounds(self) -> "Threshold":
        if self.min is None and self.max is None and self.max_regression is None:
            raise ValueError(f"the threshold on {self.metric} needs min, max or max_regression")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"the threshold on {self.metric} has min {self.min} above max {self.max}: none can pass")
        if self.max_regression is not None and self.metric in _WITHOUT_REGRESSION:
            raise ValueError(f"the threshold on {self.metric} can have no max_regression: give min or max")
        return self


class GateSettings(Section):
    """The part of `evaluation:` that the Evaluator reads: the gate that decides whether a model may be pushed."""

    model_config = ConfigDict(allow_inf_nan=False)

    max_pca_ratio: float | None = Field(1.0, gt=0)
    """Mean error allowed, as a multiple of PCA's with as many components as the latent has numbers; null waives it."""
    max_noise_copied: float | None = Field(0.2, gt=0)
    """Share allowed of the variance of shuffled pixels that the model reproduces; null waives it.

    A model that copies whatever it is shown has 1, one that has learnt its own images about 0.
    """
    min_auroc: float | None = Field(0.5, ge=0, le=1)
    """Where it is known which test images are anomalous: how well the score sets them apart; null waives it."""
    max_regression: float | None = Field(0.05, ge=0)
    """How much worse than the latest blessed model the mean error may be, as a fraction; null waives it."""
    thresholds: tuple[Threshold, ...] = ()
