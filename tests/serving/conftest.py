"""Fixtures for this folder: small served models."""

from served_models import (
    anomalous_png,
    half_plus_two,
    image_model,
    image_server,
    normal_png,
    png,
    settings_for,
    write_half_plus,
    write_warmup,
)

__all__ = [
    "anomalous_png",
    "half_plus_two",
    "image_model",
    "image_server",
    "normal_png",
    "png",
    "settings_for",
    "write_half_plus",
    "write_warmup",
]
