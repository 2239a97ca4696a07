"""Our artifact types. Each must be listed in `schema/__init__.py`, and its TYPE_NAME is the path of that attribute.

They have custom properties instead of PROPERTIES, because TFX compiles PROPERTIES for Kubeflow only for its own types.
"""

from tfx.types import artifact

from schema.artifacts import REPORT_TYPE

Artifacts = dict[str, list[artifact.Artifact]]
"""What TFX passes to an executor: key of an input or output -> artifacts."""


class Calibration(artifact.Artifact):
    """`calibration.json`: the score, the threshold, its false-alarm rate, and the held-out scores it was computed from;
    `suspects.jsonl` and `suspect_maps.npy`: the training images that the model explains worst.

    Custom properties: threshold, false_alarm_rate and images (the number of held-out images).
    """

    TYPE_NAME = "schema.Calibration"


class Analysis(artifact.Artifact):
    """Measurements of a model: TFMA's results, `controls.json`, and images with their errors for replay."""

    TYPE_NAME = "schema.Analysis"


class HtmlReport(artifact.Artifact):
    """`report.html`, `synthetic_defects.json` and `suspects.jsonl`."""

    TYPE_NAME = REPORT_TYPE
