"""Colours for anomaly maps: anchored at the pixel threshold, so that a sound image stays dark."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

HOTTEST: Final = 3.0
"""Multiple of the pixel threshold from which a map is white."""
LEGEND: Final = "dark: usual; red, yellow, white: 1, 2, 3 times the pixel threshold"
_STOPS: Final = (
    (0.0, (0, 0, 0)),
    (0.999, (22, 32, 74)),
    (1.0, (205, 26, 20)),
    (2.0, (255, 205, 40)),
    (HOTTEST, (255, 255, 255)),
)
"""(multiple of the threshold, colour); colours in between are interpolated. The server's page repeats them."""


def heat_colours(anomaly_map: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """An anomaly map [H, W], in multiples of the pixel threshold -> [H, W, 3]; values that are not finite are white."""
    finite = np.where(np.isfinite(anomaly_map), anomaly_map, HOTTEST)
    at, colours = np.array([stop for stop, _ in _STOPS]), np.array([colour for _, colour in _STOPS], np.float64)
    channels = [np.interp(finite, at, colours[:, channel]) for channel in range(3)]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def legend_strip(width_px: int, height_px: int) -> npt.NDArray[np.uint8]:
    """The colours from 0 to the hottest, left to right: [height_px, width_px, 3]."""
    values = np.linspace(0.0, HOTTEST, width_px)
    return heat_colours(np.broadcast_to(values, (height_px, width_px)))
