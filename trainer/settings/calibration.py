"""The anomaly score and its threshold: what the Calibrator reads of the `evaluation:` section."""

from typing import Literal

from pydantic import Field, model_validator

from runtime.settings import Section

ScoreName = Literal[
    "error", "worst_pixels", "patch_max", "local_ssim", "weighted_error",
    "blurred_error", "cosine_distance", "latent_distance", "neighbour_distance", "ensemble", "standardised_patch",
]  # fmt: skip
FEW_IMAGES = 200
"""Training and held-out images below which families in closed form are calibrated by cross-fitting."""
GroupColumn = Literal["label", "group"]
ScoreChoice = Literal["auto", ScoreName]
LATENT_SCORES = frozenset[ScoreName]({"latent_distance", "neighbour_distance"})
LARGEST_LATENT = 4096
"""Numbers in the latent of an image that LATENT_SCORES support."""


class CalibrationSettings(Section):
    """The anomaly score, and how often it may raise a false alarm."""

    score: ScoreChoice = "auto"
    """Anomaly score that the threshold applies to; docs/scores.md compares them. `auto`: the one that best finds faint
    synthetic defects in held-out images, or `worst_pixels` if fewer than 200 images leave none held out."""
    score_members: tuple[ScoreName, ...] = ("error", "patch_max", "local_ssim")
    """Scores that `ensemble` combines."""
    worst_percent: float = Field(3.0, gt=0, le=100)
    """For `worst_pixels` and `local_ssim`: percentage of an image's pixels, the worst ones, that the score averages."""
    patch_px: int | None = Field(None, ge=1)
    """For `patch_max`: side of a square patch in pixels. null: an eighth of the image's shorter side, at least 3."""
    blur_px: float | None = Field(None, ge=0)
    """For `blurred_error` and `cosine_distance`: standard deviation of the Gaussian blur in pixels. null: a twentieth
    of the image's shorter side."""
    false_alarm_rate: float = Field(0.01, gt=0, lt=1)
    """Share of new normal images that may raise an alarm."""
    groups: GroupColumn | None = None
    """Variants of a product, each with its own threshold: normal images with different values of this column of the
    manifest (or, for `label`, in different folders). The model recognises the variant of a new image. null: one
    threshold for all."""
    pixel_false_alarm_rate: float | None = Field(None, gt=0, lt=1)
    """Share of new normal images that may show any pixel as anomalous. null: as `false_alarm_rate`."""
    smallest_region_percent: float | None = Field(None, ge=0, le=100)
    """Area, in per cent of the image, below which a region of anomalous pixels does not count. null: the median of
    those that held-out normal images show, at most 0.1."""

    @model_validator(mode="after")
    def _check_members(self) -> "CalibrationSettings":
        if not self.score_members or "ensemble" in self.score_members:
            raise ValueError(
                f"evaluation.score_members {list(self.score_members)}: name one or more scores other than 'ensemble'"
            )
        return self

    def patch_side_px(self, height_px: int, width_px: int) -> int:
        """Side of a patch for images of this size, in pixels."""
        shorter = min(height_px, width_px)
        return min(self.patch_px or max(3, round(shorter / 8)), shorter)

    def blur_deviation_px(self, height_px: int, width_px: int) -> float:
        """Standard deviation of the blur for images of this size, in pixels."""
        return min(height_px, width_px) / 20 if self.blur_px is None else self.blur_px
