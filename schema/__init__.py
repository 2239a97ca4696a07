"""What an example, an artifact and a model's signatures are called."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`schema.Calibration`: Kubeflow's entrypoint knows an artifact type of ours by a path of two parts only.

    Looked up when asked for, because TFX takes seconds to import.
    """
    if name in ("Analysis", "Calibration", "HtmlReport"):
        from schema import artifact_types

        return getattr(artifact_types, name)
    raise AttributeError(f"module 'schema' has no attribute {name!r}")
