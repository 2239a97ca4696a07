"""The `kubeflow:` section."""

from pathlib import Path

import pytest

from pipeline.configuration.configuration import ConfigurationError
from pipeline.configuration.kubeflow import KubeflowSettings
from pipeline.configuration.loading import load_configuration


def test_unset_fields_of_a_pod_come_from_the_default() -> None:
    settings = KubeflowSettings.model_validate({"pods": {"default": {"cpu": 1, "memory_gb": 4}, "Trainer": {"cpu": 8}}})
    assert (settings.pod("Trainer").cpu, settings.pod("Trainer").memory_gb) == (8, 4)
    assert settings.pod("Pusher").cpu == 1


def test_a_pod_can_unset_a_field_of_the_default() -> None:
    settings = KubeflowSettings.model_validate({"pods": {"default": {"scratch": "1Gi"}, "Pusher": {"scratch": None}}})
    assert settings.pod("Pusher").scratch is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("kubeflow: {gpu: 1}", "unknown key 'kubeflow.gpu'; did you mean 'gpus'?"),
        ("kubeflow: {pods: {Trainer: {cpus: 1}}}", "'kubeflow.pods.Trainer.cpus'; did you mean 'cpu'?"),
        ("kubeflow: {pods: {Trainer: {scratch: 5 GB}}}", "'5 GB' is not a Kubernetes quantity"),
        ("kubeflow: {volumes: [{claim: images, mount_path: data}]}", "kubeflow.volumes.0.mount_path"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(path)
    assert reason in str(caught.value)
