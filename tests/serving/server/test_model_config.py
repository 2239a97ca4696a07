"""TensorFlow Serving's text format for several models: what it says is served, and what is not supported is refused."""

from pathlib import Path

import pytest

from serving.model.versions import VersionFolder
from serving.server.model_config import ModelConfigError, VersionPolicy, read_model_config

TEXT = """
# A comment, as TensorFlow Serving allows.
model_config_list {
  config {
    name: 'cap'
    base_path: '/models/cap'
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 42 versions: 43 } }
    version_labels { key: 'stable' value: 42 }
    version_labels { key: 'canary' value: 43 }
  }
  config: {
    name: "lid", base_path: "/models/lid", model_type: TENSORFLOW, model_version_policy: { latest: { num_versions: 2 } }
  }
  config {
    name: "box"
    base_path: "/models/box"
    model_version_policy { all {} }
    logging_config { sampling_config { sampling_rate: 0.1 } }
  }
  config { name: "pin" base_path: "/models/pin" }
}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "models.config"


def test_every_part_of_the_format_is_read(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    config.write_text(TEXT)
    with caplog.at_level("INFO", logger="serving"):
        cap, lid, box, pin = read_model_config(config)
    assert (cap.name, cap.base_path, dict(cap.labels)) == ("cap", Path("/models/cap"), {"stable": 42, "canary": 43})
    assert cap.policy == VersionPolicy(at_most=None, only=frozenset({42, 43}))
    assert [model.policy.at_most for model in (lid, box, pin)] == [2, None, 1]
    assert [r.fields for r in caplog.records] == [{"model": "box", "field": "logging_config"}]


def test_a_policy_chooses_among_the_versions() -> None:
    folders = [VersionFolder(number, Path(str(number))) for number in (43, 42, 41)]
    assert [folder.number for folder in VersionPolicy(only=frozenset({41, 43, 99})).candidates(folders)] == [43, 41]
    assert VersionPolicy().candidates(folders) == folders


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no model"),
        ("model_config_list {}", "names no model"),
        (
            "model_config_list { config { nme: 'a' } }",
            'line 1:30 : Message type "tensorflow.serving.ModelConfig" has no',
        ),
        ("model_config_list { config { name: 'a' ", "line 1"),
        ("custom_model_config {}", "custom_model_config is not supported"),
        ("model_config_list { config { base_path: '/a' } }", "must not be empty"),
        ("model_config_list { config { name: 'a/b' base_path: '/a' } }", "'a/b': must not be empty, '.' or '..', or"),
        ("model_config_list { config { name: '..' base_path: '/a' } }", "'..': must not be empty, '.' or '..'"),
        ("model_config_list { config { name: 'a' } }", "model 'a': base_path is missing"),
        ("model_config_list { config { name: 'a' base_path: 'a' } }", "base_path 'a': must be absolute, as in '/"),
        ("model_config_list { config { name: 'a' base_path: 's3://b/a' } }", "only local folders are served"),
        ("model_config_list { config { name: 'a' base_path: '/a' model_platform: 'onnx' } }", "only model_platform"),
        (
            "model_config_list { config { name: 'a' base_path: '/a' model_version_policy { specific {} } } }",
            "specific names no version",
        ),
        ("model_config_list {" + 2 * " config { name: 'a' base_path: '/a' }" + "}", "model 'a' is listed twice"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_file_and_the_reason(config: Path, text: str, message: str) -> None:
    config.write_text(text)
    with pytest.raises(ModelConfigError) as refusal:
        read_model_config(config)
    assert str(config) in str(refusal.value)
    assert message in str(refusal.value)


def test_a_missing_file_is_refused(config: Path) -> None:
    with pytest.raises(ModelConfigError, match=r"models\.config: cannot be read: No such file"):
        read_model_config(config)
