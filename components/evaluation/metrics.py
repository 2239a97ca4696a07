"""All metrics, computed from the outputs of the model's `examples` signature; most need no labels.

Reconstruction metrics describe the normal images (`is_anomaly` 0 or unknown), overall and per label; for a label that
only anomalous images have, they describe those. Detection metrics compare normal with anomalous images: for a label,
*all* normal images with the anomalous ones of that label.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score, roc_curve

from components.evaluation.accumulators import Columns, ImageGroup, SliceImages, Values
from components.evaluation.pixel_metrics import PixelCounts, pixel_auroc, region_overlap
from images.harmless_changes import STEADINESS
from schema.changes import ALARMS_AT
from schema.signatures import DEVIATION, ERROR, KL, NOISE_ERRORS, PIXEL_VARIANCE, SCORE, SHUFFLED_ERROR, SSIM, THRESHOLD

LOWER, HIGHER = "lower", "higher"
LABEL_SEPARATOR: Final = "@"
"""`auroc@scratch` is the AUROC of one label's anomalies, which TFMA computes in the slice of all images."""
SYNTHETIC_AUROC: Final = "synthetic_auroc"
ALARMS: Final = {name: f"{ALARMS_AT}{name}" for name in STEADINESS}
"""Harmless change -> the metric that tells how many normal images raise an alarm after it; of the candidate alone."""
_SMALLEST_ERROR = 1e-12
_NAN = float("nan")
_DEAD_BELOW = 1e-4


def psnr(columns: Columns) -> float:
    """Mean over images of the peak signal-to-noise ratio in dB, for a peak of 1; at most 120."""
    return float(np.mean(-10.0 * np.log10(np.maximum(columns[ERROR], _SMALLEST_ERROR))))


def explained_variance(columns: Columns) -> float:
    """1 - error / squared deviation from the mean training image: 1 is perfect, 0 no better than the mean image."""
    return float(1.0 - columns[ERROR].sum() / max(columns[DEVIATION].sum(), _SMALLEST_ERROR))


def share_of_alarms(columns: Columns) -> float:
    """Share of the images that raise an alarm at the calibrated threshold; NaN for a model without one."""
    return float(np.mean(_alarms(columns))) if np.isfinite(columns[THRESHOLD]).all() else _NAN


def noise_ratio(columns: Columns) -> float:
    """Error on images with shuffled pixels, as a multiple of the error on the original images."""
    probed = np.isfinite(columns[SHUFFLED_ERROR])
    if not probed.any():
        return _NAN
    return float(columns[SHUFFLED_ERROR][probed].mean() / max(columns[ERROR][probed].mean(), _SMALLEST_ERROR))


def noise_copied(columns: Columns) -> float:
    """Share of the variance of shuffled pixels that the model reproduces: 1 if it copies its input, else 0 or less."""
    probed = np.isfinite(columns[SHUFFLED_ERROR])
    if not probed.any():
        return _NAN
    variance = columns[PIXEL_VARIANCE][probed].mean()
    return float(1.0 - columns[SHUFFLED_ERROR][probed].mean() / max(variance, _SMALLEST_ERROR))


def dead_units(group: ImageGroup) -> float:
    """Share of latent units whose variance over the images is less than 1e-4 of the largest."""
    variances = np.diag(group.latents.covariance())
    return float(np.mean(variances < _DEAD_BELOW * max(variances.max(), _SMALLEST_ERROR)))


def effective_dimension(group: ImageGroup) -> float:
    """Effective number of directions in the latents: (sum of the covariance's eigenvalues)^2 / sum of their squares."""
    covariance = group.latents.covariance()
    return float(np.trace(covariance) ** 2 / max(np.sum(covariance**2), _SMALLEST_ERROR**2))


def f1(normal: Columns, anomalous: Columns) -> float:
    """F1 of anomaly detection at the calibrated threshold."""
    is_anomaly, columns = _joined(normal, anomalous)
    if not np.isfinite(columns[THRESHOLD]).all():
        return _NAN
    return float(f1_score(is_anomaly, _alarms(columns)))


def recall_at(rate: float, normal: Columns, anomalous: Columns) -> float:
    """Largest share of anomalies found at a false-alarm rate of at most `rate`, over all thresholds."""
    is_anomaly, columns = _joined(normal, anomalous)
    false_alarms, recall, _ = roc_curve(is_anomaly, columns[SCORE], drop_intermediate=False)
    return float(recall[false_alarms <= rate].max())


@dataclass(frozen=True)
class Metric:
    """One metric: at most one function that computes it, and which values are `better` (None: neither).

    Without a function, ModelAnalysis measures it apart from the others, on other images.
    """

    better: str | None
    of_columns: Callable[[Columns], float] | None = None
    of_group: Callable[[ImageGroup], float] | None = None
    of_detection: Callable[[Columns, Columns], float] | None = None
    of_pixels: Callable[[PixelCounts], float] | None = None
    of_normal_alone: bool = False
    """Whether it is undefined for anomalous images, even if there are no others."""

    @property
    def needs_anomalies(self) -> bool:
        """Whether it compares normal with anomalous images or pixels."""
        return self.of_detection is not None or self.of_pixels is not None

    def value(self, images: SliceImages, label: str | None = None) -> float:
        """The metric's value; NaN, which no bound accepts, if the images or the model's outputs do not suffice."""
        if self.needs_anomalies:
            return self._of_both(images, label)
        if self.of_group is None and self.of_columns is None:
            return _NAN
        is_normal = self.of_normal_alone or len(images.normal.columns[ERROR])
        group = images.normal if is_normal else images.anomalous_with(None)
        if self.of_group is not None:
            return self.of_group(group) if group.latents.count else _NAN
        assert self.of_columns is not None
        return self.of_columns(group.columns) if len(group.columns[ERROR]) else _NAN

    def _of_both(self, images: SliceImages, label: str | None) -> float:
        anomalous = images.anomalous_with(label)
        if self.of_pixels is not None:
            return self.of_pixels(images.normal.pixels + anomalous.pixels)
        assert self.of_detection is not None
        if not images.known_normal or not len(anomalous.columns[ERROR]):
            return _NAN
        scores = np.concatenate([images.normal.columns[SCORE], anomalous.columns[SCORE]])
        return self.of_detection(images.normal.columns, anomalous.columns) if np.isfinite(scores).all() else _NAN


def _alarms(columns: Columns) -> npt.NDArray[np.bool_]:
    """Whether each image counts as anomalous [N], as in the model's signatures: also if its score is not finite."""
    return (columns[SCORE] > columns[THRESHOLD]) | ~np.isfinite(columns[SCORE])


def _joined(normal: Columns, anomalous: Columns) -> tuple[Values, Columns]:
    """(is_anomaly [N], columns) of both groups."""
    is_anomaly = np.repeat([0, 1], [len(normal[ERROR]), len(anomalous[ERROR])])
    return is_anomaly, {name: np.concatenate([normal[name], anomalous[name]]) for name in normal}


def _quantile(quantile: float, columns: Columns) -> float:
    """Linear-interpolation quantile of the errors (NumPy's default)."""
    return float(np.quantile(columns[ERROR], quantile))


def _mean(name: str, columns: Columns) -> float:
    """Mean over the images whose number is finite."""
    known = columns[name][np.isfinite(columns[name])]
    return float(known.mean()) if len(known) else _NAN


METRICS: dict[str, Metric] = {
    "mean_error": Metric(LOWER, lambda columns: float(columns[ERROR].mean())),
    "median_error": Metric(LOWER, partial(_quantile, 0.5)),
    "p95_error": Metric(LOWER, partial(_quantile, 0.95)),
    "p99_error": Metric(LOWER, partial(_quantile, 0.99)),
    "max_error": Metric(LOWER, lambda columns: float(columns[ERROR].max())),
    "rmse": Metric(LOWER, lambda columns: float(np.sqrt(columns[ERROR].mean()))),
    "psnr": Metric(HIGHER, psnr),
    SSIM: Metric(HIGHER, partial(_mean, SSIM)),
    "explained_variance": Metric(HIGHER, explained_variance),
    "example_count": Metric(None, lambda columns: float(len(columns[ERROR]))),
    "false_alarm_rate": Metric(LOWER, share_of_alarms, of_normal_alone=True),
    "noise_ratio": Metric(HIGHER, noise_ratio),
    "noise_copied": Metric(LOWER, noise_copied),
    **{name: Metric(LOWER, partial(_mean, name)) for name in NOISE_ERRORS},
    "dead_units": Metric(LOWER, of_group=dead_units),
    "effective_dimension": Metric(HIGHER, of_group=effective_dimension),
    KL: Metric(None, partial(_mean, KL)),
    SYNTHETIC_AUROC: Metric(HIGHER),
    **{name: Metric(LOWER) for name in ALARMS.values()},
    "auroc": Metric(HIGHER, of_detection=lambda *both: _of_scores(roc_auc_score, *both)),
    "aupr": Metric(HIGHER, of_detection=lambda *both: _of_scores(average_precision_score, *both)),
    "f1": Metric(HIGHER, of_detection=f1),
    "recall": Metric(HIGHER, of_detection=lambda _, anomalous: share_of_alarms(anomalous)),
    "recall_at_1pct": Metric(HIGHER, of_detection=partial(recall_at, 0.01)),
    "recall_at_5pct": Metric(HIGHER, of_detection=partial(recall_at, 0.05)),
    "pixel_auroc": Metric(HIGHER, of_pixels=pixel_auroc),
    "region_overlap": Metric(HIGHER, of_pixels=region_overlap),
}


def _of_scores(function: Any, normal: Columns, anomalous: Columns) -> float:
    is_anomaly, columns = _joined(normal, anomalous)
    return float(function(is_anomaly, columns[SCORE]))
