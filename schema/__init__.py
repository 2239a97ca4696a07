"""Names of features, artifacts and signatures, and the records that components share."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Import an artifact type, such as `schema.Calibration`, on first use, because TFX takes seconds to import.

    Kubeflow's entrypoint can import artifact types only from a top-level package.
    """
    if name in ("Analysis", "Calibration", "HtmlReport"):
        from schema import artifact_types

        return getattr(artifact_types, name)
    raise AttributeError(f"module 'schema' has no attribute {name!r}")
