"""Reconstruction metrics for TFMA, over the outputs of the model's `examples` signature; no label is needed.

Overall and per slice they describe the normal images (`is_anomaly` 0 or unknown); a slice that holds only
anomalous images is described by these.
"""

from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
from tensorflow_model_analysis.metrics import metric_types

Values = npt.NDArray[np.float64]
_COLUMNS = ("error", "ssim", "deviation")
_ACCUMULATED = "_reconstruction_values"
_SMALLEST_ERROR = 1e-12


def mean_error(values: Values) -> float:
    """Mean over images of the mean squared error, in [0, 1] units."""
    return float(values[:, 0].mean())


def quantile_error(values: Values, quantile: float) -> float:
    """Linear-interpolation quantile of the errors (NumPy's default)."""
    return float(np.quantile(values[:, 0], quantile))


def psnr(values: Values) -> float:
    """Mean over images of the peak signal-to-noise ratio in dB, for a peak of 1; at most 120."""
    return float(np.mean(-10.0 * np.log10(np.maximum(values[:, 0], _SMALLEST_ERROR))))


def explained_variance(values: Values) -> float:
    """1 - error / deviation from the training mean image: 1 perfect, 0 no better than the mean image."""
    return float(1.0 - values[:, 0].sum() / max(values[:, 2].sum(), _SMALLEST_ERROR))


METRICS: dict[str, Callable[[Values], float]] = {
    "mean_error": mean_error,
    "median_error": lambda values: quantile_error(values, 0.5),
    "p95_error": lambda values: quantile_error(values, 0.95),
    "p99_error": lambda values: quantile_error(values, 0.99),
    "max_error": lambda values: float(values[:, 0].max()),
    "rmse": lambda values: float(np.sqrt(values[:, 0].mean())),
    "psnr": psnr,
    "ssim": lambda values: float(values[:, 1].mean()),
    "explained_variance": explained_variance,
    "example_count": lambda values: float(len(values)),
}
"""Name -> function of [N, 3] rows of (error, SSIM, deviation)."""


class ReconstructionMetric(metric_types.Metric):
    """One of METRICS by its name; all of them share a single pass over the predictions."""

    def __init__(self, name: str) -> None:
        super().__init__(_computations, name=name)


metric_types.register_metric(ReconstructionMetric)


def _computations(
    name: str,
    model_names: list[str] | None = None,
    output_names: list[str] | None = None,
    sub_keys: list[Any] | None = None,
    example_weighted: bool = False,
) -> list[Any]:
    computations: list[Any] = []
    for model_name in model_names or [""]:
        collected = metric_types.MetricKey(name=_ACCUMULATED, model_name=model_name)
        key = metric_types.MetricKey(name=name, model_name=model_name)
        computations.append(
            metric_types.MetricComputation(
                keys=[collected], preprocessors=None, combiner=_CollectValues(collected, model_name)
            )
        )
        computations.append(
            metric_types.DerivedMetricComputation(keys=[key], result=_Derive(key=key, collected=collected))
        )
    return computations


class _Derive:
    """The value of one metric from the collected rows; NaN where there are none, which no bound accepts."""

    def __init__(self, key: Any, collected: Any) -> None:
        self._key = key
        self._collected = collected

    def __call__(self, computed: dict[Any, Any]) -> dict[Any, float]:
        normal, anomalous = computed[self._collected]
        values = normal if len(normal) else anomalous
        if self._key.name == "example_count":
            return {self._key: float(len(values))}
        return {self._key: METRICS[self._key.name](values) if len(values) else float("nan")}


class _CollectValues(beam.CombineFn):
    """Gathers (error, SSIM, deviation) of each image: 24 bytes an image, normal and anomalous apart."""

    def __init__(self, key: Any, model_name: str) -> None:
        self._key = key
        self._model_name = model_name

    def create_accumulator(self) -> tuple[list[Values], list[Values]]:
        return [], []

    def add_input(self, accumulator: tuple[list[Values], list[Values]], element: Any) -> Any:
        predictions = element.predictions
        if self._model_name and self._model_name in predictions:
            predictions = predictions[self._model_name]
        columns = [np.asarray(predictions[name], np.float64).reshape(-1) for name in _COLUMNS]
        is_anomaly = int(np.asarray(predictions["is_anomaly"]).reshape(-1)[0]) == 1
        accumulator[is_anomaly].append(np.stack(columns, axis=1))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Any]) -> Any:
        normal, anomalous = self.create_accumulator()
        for accumulator in accumulators:
            normal += accumulator[0]
            anomalous += accumulator[1]
        return self.compact((normal, anomalous))

    def compact(self, accumulator: Any) -> Any:
        return tuple([np.concatenate(rows)] if rows else [] for rows in accumulator)

    def extract_output(self, accumulator: Any) -> dict[Any, tuple[Values, Values]]:
        empty = np.zeros((0, len(_COLUMNS)))
        normal, anomalous = (np.concatenate(rows) if rows else empty for rows in accumulator)
        return {self._key: (normal, anomalous)}
