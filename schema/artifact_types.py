"""The artifact types that we add to TFX's; `schema/__init__.py` must know each, and its TYPE_NAME says so.

They declare no PROPERTIES, which TFX can compile for Kubeflow in its own types only: custom properties serve as well.
"""

from tfx.types import artifact

from schema.artifacts import REPORT_TYPE

Artifacts = dict[str, list[artifact.Artifact]]
"""What TFX hands an executor: by input's or output's key, its artifacts."""


class Calibration(artifact.Artifact):
    """`calibration.json`: the score, the threshold, the rate that it keeps, and the held-out scores behind it.

    Custom properties: threshold, false_alarm_rate and images (how many were held out).
    """

    TYPE_NAME = "schema.Calibration"


class Analysis(artifact.Artifact):
    """What was measured of a model: TFMA's results, `controls.json`, and images with their errors to replay."""

    TYPE_NAME = "schema.Analysis"


class HtmlReport(artifact.Artifact):
    """`report.html`, and `synthetic_defects.json`."""

    TYPE_NAME = REPORT_TYPE
