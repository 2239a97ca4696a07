"""The `data:` and `evaluation:` sections of the configuration."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, model_validator
from typing_extensions import Self

from runtime.settings import Section
from schema.changes import ALARMS_AT

MetricName = Literal[
    "mean_error", "median_error", "p95_error", "p99_error", "max_error", "rmse", "psnr", "ssim",
    "explained_variance", "example_count", "false_alarm_rate", "noise_ratio", "noise_copied",
    "error_at_noise_5", "error_at_noise_10", "error_at_noise_20", "error_at_noise_40",
    "dead_units", "effective_dimension", "kl", "synthetic_auroc",
    "auroc", "aupr", "f1", "recall_at_1pct", "recall_at_5pct", "pixel_auroc", "region_overlap",
    "alarms_at_darker_10", "alarms_at_brighter_10", "alarms_at_darker_20", "alarms_at_brighter_20",
    "alarms_at_gamma_90", "alarms_at_gamma_110", "alarms_at_shading", "alarms_at_warmer",
    "alarms_at_shift_1", "alarms_at_rotation_1", "alarms_at_jpeg_85", "alarms_at_noise_2", "alarms_at_blur",
]  # fmt: skip
_WITHOUT_REGRESSION = ("example_count", "kl", "noise_copied")
"""For these metrics neither more nor less is better, or they may be negative, so a relative change is meaningless.

Nor is there one for the alarms at changes, which are measured for the candidate only."""
Purpose = Literal["detect", "reconstruct"]
_RECONSTRUCTING_PRESETS = ("denoising", "super_resolution")
_TUTORIAL_SOURCES = ("digits", "mnist", "fashion_mnist")
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
    """What to do when images differ from those that the newest pushed model was trained on."""

    action: Literal["stop", "warn", "ignore"] = "stop"
    """`stop` the run before training, `warn` in the log, or `ignore` the difference without measuring it."""
    limits: dict[DriftFeature, Annotated[float, Field(ge=0, le=1)]] = {}
    """Tolerated Jensen-Shannon divergence (0 alike, 1 nothing in common); for other features schema.pbtxt's limit."""


CHANGE_NO_EXAMPLE: Final = frozenset({"drift", "workers"})
"""Fields of DataSettings that are not part of ImageExampleGen's cache key."""


class DataSettings(Section):
    """Source, splits and limits; every field but `drift` and `workers` is part of ImageExampleGen's cache key."""

    source: SourceName = "digits"
    """Kind of data; docs/data.md describes each."""
    path: str | None = None
    """The folder of images, IDX files or TFRecords, or a single file; null downloads mnist and fashion_mnist."""
    image_feature: str | None = None
    """tfrecord: the feature with the encoded image; null uses `image` or `image/encoded`."""
    label_feature: str | None = None
    """tfrecord: the feature with the label; null uses `label` or `image/class/label`."""
    eval_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of images held out for early stopping and calibration."""
    test_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of images never seen in training or calibration; ignored if the data names its own test split."""
    normal_labels: tuple[Annotated[str, Field(coerce_numbers_to_str=True)], ...] = ()
    """Labels of normal images; images with any other label are anomalies and go to `test`. If empty, only the source
    tells which images are anomalies."""
    training_anomalies: Literal["test", "leave_out"] = "test"
    """Whether anomalies in a split that the data names `train` or `eval` are tested or left out."""
    max_images: int | None = Field(None, ge=1)
    """Use only this many images, the first of each file or folder listing; for trials."""
    max_reject_fraction: float = Field(0.05, ge=0, le=1)
    """A larger share of unreadable images stops the run before training."""
    follow_links: bool = False
    """Follow symbolic links to files outside the data folder; otherwise such files are rejected."""
    exclude: str | None = None
    """A text file that names images to leave out, one per line, such as suspects that a person confirmed."""
    reviewed: str | None = "auto"
    """A manifest of reviewed images, which replace the same images in the data; docs/review.md describes it. `auto`:
    what `autoencoder review` wrote into the run's folder, if anything; null: none."""
    reviewed_normals: Literal["calibrate", "train"] = "calibrate"
    """What the half of the reviewed normal images that is not tested with does: calibrate the threshold, or train."""
    images_per_shard: int = Field(10_000, ge=1)
    """Images in one unit of Beam work, which writes one TFRecord file per split."""
    workers: int | None = Field(None, ge=1)
    """Files or records that are decoded at a time; null: as many as the process may use cores."""
    drift: DriftSettings = Field(default_factory=DriftSettings)

    @model_validator(mode="after")
    def _check_path_and_fractions(self) -> "DataSettings":
        if self.source in _PATH_IS and not self.path:
            raise ValueError(f"data.path is required for source '{self.source}': {_PATH_IS[self.source]}")
        for name in ("image_feature", "label_feature"):
            if self.source != "tfrecord" and getattr(self, name):
                raise ValueError(f"data.{name} applies only to source 'tfrecord', not to '{self.source}'; remove it")
        if self.source == "digits" and self.path:
            raise ValueError(
                "data.path does not apply to source 'digits', which is bundled; set data.source to 'folder'"
            )
        if self.eval_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"data.eval_fraction {self.eval_fraction} + data.test_fraction {self.test_fraction} leave no images "
                "to train on; make their sum less than 1"
            )
        return self


class Threshold(Section):
    """A bound that the gate puts on `metric`, over all images or those with one `label`.

    The metric must be in [min, max], and at most the fraction `max_regression` worse than the latest blessed model's.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    metric: MetricName
    """Metric to bound; docs/scores.md describes each."""
    min: float | None = None
    """Smallest value allowed."""
    max: float | None = None
    """Largest value allowed."""
    max_regression: float | None = Field(None, ge=0)
    """Largest fraction by which it may be worse than the latest blessed model's."""
    label: str | None = None
    """Only images with this label; null: all images."""

    @model_validator(mode="after")
    def _check_bounds(self) -> "Threshold":
        if self.min is None and self.max is None and self.max_regression is None:
            raise ValueError(f"the threshold on {self.metric} has no bound; set min, max or max_regression")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(
                f"the threshold on {self.metric} has min {self.min} above max {self.max}: no model can pass"
            )
        is_alarm_share = self.metric.startswith(ALARMS_AT)
        if self.max_regression is not None and (self.metric in _WITHOUT_REGRESSION or is_alarm_share):
            raise ValueError(f"the threshold on {self.metric} cannot have max_regression; set min or max")
        if self.label is not None and is_alarm_share:
            raise ValueError(f"the threshold on {self.metric} cannot have a label; it describes images of all labels")
        return self


class GateSettings(Section):
    """The part of `evaluation:` for the Evaluator, whose gate decides whether a model may be pushed."""

    model_config = ConfigDict(allow_inf_nan=False)

    purpose: Purpose | None = None
    """What the model is for, which decides the floor that it must reach. `detect`: find faint synthetic defects, and
    labelled anomalies if there are any, better than by chance and at least as well as PCA and nearest neighbours do;
    `reconstruct`: reach PCA's error. null: `reconstruct` for the sources `digits`, `mnist` and `fashion_mnist` and the
    presets `denoising` and `super_resolution`, otherwise `detect`."""
    max_pca_ratio: float | None = Field(1.0, gt=0)
    """For `reconstruct`: highest mean error, as a multiple of that of PCA with `latent_dim` components; null waives
    it."""
    max_noise_copied: float | None = Field(0.2, gt=0)
    """Highest share of the variance of shuffled pixels that the model may reproduce; null waives it.

    A model that copies any input has 1, a model that has learnt its own images about 0.
    """
    min_auroc: float | None = Field(0.5, ge=0, le=1)
    """Lowest AUROC of the score, if anomalies among the test images are known; null waives it."""
    max_regression: float | None = Field(0.05, ge=0)
    """How much worse than the latest blessed model's the mean error (for `detect`, `synthetic_auroc`) may be, as a
    fraction; null waives it."""
    thresholds: tuple[Threshold, ...] = ()

    def with_purpose(self, *, preset: str, source: str) -> Self:
        """The settings with a purpose: the configured one, or the one that follows from these two settings."""
        if self.purpose is not None:
            return self
        reconstructs = preset in _RECONSTRUCTING_PRESETS or source in _TUTORIAL_SOURCES
        return self.model_copy(update={"purpose": "reconstruct" if reconstructs else "detect"})
