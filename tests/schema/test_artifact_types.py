"""Kubeflow's entrypoint can import our artifact types, and importing `schema` does not import TFX."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from tfx.orchestration.kubeflow.v2 import compiler_utils

import schema
from schema import artifact_types

TYPES = [
    value for value in vars(artifact_types).values() if getattr(value, "__module__", "") == artifact_types.__name__
]


@pytest.mark.parametrize("artifact_type", TYPES)
def test_the_type_name_is_the_import_path(artifact_type):
    module, _, name = artifact_type.TYPE_NAME.rpartition(".")
    assert getattr(importlib.import_module(module), name) is artifact_type
    assert f"title: {artifact_type.TYPE_NAME}" in compiler_utils.get_artifact_schema(artifact_type)


def test_an_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Calibrations'"):
        schema.Calibrations  # noqa: B018


def test_feature_names_are_imported_without_tfx():
    program = "import sys; from schema import features, signatures; sys.exit('tfx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(schema.__file__).parents[1]).returncode == 0
