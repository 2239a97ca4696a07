"""The package that a configuration compiles to."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubernetes
import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from repository import REPOSITORY

from pipeline.configuration.configuration import Configuration, ConfigurationError
from pipeline.kubeflow.compile.package import (
    check_components,
    check_for_cluster,
    check_image,
    check_pods,
    check_root,
    compile_package,
    write_package,
)
from pipeline.kubeflow.simulator.platform import pod_patches
from pipeline.kubeflow.specification import RefusedError, load_package

CONFIGS = REPOSITORY / "configs"
DIGEST = "registry.example/autoencoder@sha256:" + "4f" * 32
GPU_DIGEST = "registry.example/autoencoder-gpu@sha256:" + "a0" * 32
CONFIGURATION = {
    "name": "digits",
    "data": {"source": "folder", "path": "/data/images"},
    "trainer": {"preset": "deep", "latent_dim": 8, "hidden_units": [32], "epochs": 7},
    "kubeflow": {
        "pods": {
            "default": {"cpu": 1, "memory_gb": 4},
            "Trainer": {
                "memory_gb": 32,
                "memory_limit_gb": 64,
                "shared_memory": "8Gi",
                "scratch": "50Gi",
                "node_selector": {"accelerator": "h200"},
                "tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
            },
        },
        "volumes": [{"claim": "images", "mount_path": "/data"}],
        "secret_variables": [{"secret": "store", "key": "accesskey", "variable": "AWS_ACCESS_KEY_ID"}],
        "secret_folders": [{"secret": "gcp", "mount_path": "/secrets/gcp"}],
        "variables": {"AWS_ENDPOINT_URL": "http://seaweedfs.kubeflow:9000"},
        "retries": {"count": 3, "backoff_s": 30},
    },
}


def _compile() -> list[dict[str, Any]]:
    return compile_package(
        Configuration.model_validate(CONFIGURATION),
        image=DIGEST,
        trainer_image=GPU_DIGEST,
        root="s3://bucket/prefix/",
        gpus=2,
    )


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    return _compile()


@pytest.fixture(scope="module")
def spec(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return documents[0]


def _container(spec: dict[str, Any], task: str) -> dict[str, Any]:
    executor = spec["deploymentSpec"]["executors"][spec["components"][task]["executorLabel"]]
    container: dict[str, Any] = executor["container"]
    return container


def test_kubeflow_can_load_the_package(documents: list[dict[str, Any]], tmp_path: Path) -> None:
    write_package(documents, tmp_path / "pipeline.yaml")
    loaded = load_package(tmp_path / "pipeline.yaml")
    assert loaded["schemaVersion"] == "2.1.0"
    assert loaded["defaultPipelineRoot"] == "s3://bucket/prefix"
    json_format.ParseDict(documents[1], pipeline_spec_pb2.PlatformSpec())


def test_the_package_contains_every_component(spec: dict[str, Any]) -> None:
    assert set(spec["root"]["dag"]["tasks"]) == {
        "data-version",
        "ImageExampleGen",
        "StatisticsGen",
        "CuratedSchemaGen",
        "ExampleValidator",
        "Transform",
        "Trainer",
        "Calibrator",
        "latest-blessed-model",
        "ModelAnalysis",
        "Evaluator",
        "Report",
        "Pusher",
        "verdict",
        "fail-when-refused",
    }


def test_only_the_trainer_has_gpus_and_its_own_image(spec: dict[str, Any]) -> None:
    for task in spec["components"]:
        accelerator = _container(spec, task)["resources"].get("accelerator")
        is_trainer = task == "Trainer"
        assert accelerator == ({"type": "nvidia.com/gpu", "count": "2"} if is_trainer else None)
        assert _container(spec, task)["image"] == (GPU_DIGEST if is_trainer else DIGEST)


def test_every_task_requests_cpu_and_memory_and_is_retried(spec: dict[str, Any]) -> None:
    for name, task in spec["root"]["dag"]["tasks"].items():
        assert {"cpuRequest", "memoryRequest"} <= _container(spec, name)["resources"].keys()
        if name == "fail-when-refused":
            assert "retryPolicy" not in task
            continue
        assert task["retryPolicy"] == {
            "maxRetryCount": 3,
            "backoffDuration": "30s",
            "backoffFactor": 2.0,
            "backoffMaxDuration": "604800s",  # Argo takes a missing one for 0, and retries nothing
        }
    assert _container(spec, "Trainer")["resources"]["memoryLimit"] == 64.0


def test_parameters_default_to_the_configuration(spec: dict[str, Any]) -> None:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: p["defaultValue"] for name, p in parameters.items()} == {
        "data_root": "/data/images",
        "data_version": "",
        "epochs": 7.0,
        "fail_when_refused": "schedules",
    }


def test_only_our_own_tasks_are_never_cached(spec: dict[str, Any]) -> None:
    tasks = spec["root"]["dag"]["tasks"]
    uncached = [n for n, task in tasks.items() if not task.get("cachingOptions", {}).get("enableCache")]
    assert sorted(uncached) == ["data-version", "fail-when-refused", "verdict"]


def test_the_last_task_waits_for_everything_that_a_refused_model_must_not_lose(spec: dict[str, Any]) -> None:
    tasks = spec["root"]["dag"]["tasks"]
    assert tasks["fail-when-refused"]["dependentTasks"] == ["verdict"]
    assert tasks["verdict"]["dependentTasks"] == ["Evaluator", "Pusher", "Report"]
    assert not [name for name, task in tasks.items() if "fail-when-refused" in task.get("dependentTasks", [])]


def test_kubeflows_page_of_a_run_shows_the_report(spec: dict[str, Any]) -> None:
    outputs = spec["components"]["verdict"]["outputDefinitions"]["artifacts"]
    assert outputs["page"]["artifactType"]["schemaTitle"] == "system.HTML"


def test_the_data_version_is_computed_with_the_reading_of_the_task_that_reads_the_data(spec: dict[str, Any]) -> None:
    tasks = spec["root"]["dag"]["tasks"]
    version, examples = (tasks[name]["inputs"]["parameters"] for name in ("data-version", "ImageExampleGen"))
    assert version["reading"] == examples["reading"]
    assert "{{$.inputs.parameters['reading']}}" in _container(spec, "data-version")["args"]


def test_the_data_version_is_an_input_of_the_task_that_reads_the_data(spec: dict[str, Any]) -> None:
    source = spec["root"]["dag"]["tasks"]["ImageExampleGen"]["inputs"]["parameters"]["data_fingerprint"]
    assert source["taskOutputParameter"] == {
        "producerTask": "data-version",
        "outputParameterKey": "fingerprint",
    }


def test_the_entrypoints_argument_includes_the_added_inputs(spec: dict[str, Any]) -> None:
    arguments = _container(spec, "Trainer")["args"]
    described = json.loads(arguments[arguments.index("--json_serialized_inputs_spec_args") + 1])
    assert described["parameters"] == spec["components"]["Trainer"]["inputDefinitions"]["parameters"]
    assert "override--custom_config--trainer--epochs" in described["parameters"]


def test_the_entrypoints_arguments_have_tfx_types_and_the_package_has_kubeflows(spec: dict[str, Any]) -> None:
    arguments = _container(spec, "Trainer")["args"]
    inputs = json.loads(arguments[arguments.index("--json_serialized_inputs_spec_args") + 1])["artifacts"]
    assert inputs["transform_graph"]["artifactType"]["instanceSchema"].startswith("title: tfx.TransformGraph")
    outputs = json.loads(arguments[arguments.index("--json_serialized_outputs_spec_args") + 1])
    assert {key: type_["instanceSchema"].splitlines()[0] for key, type_ in outputs.items()} == {
        "model": "title: tfx.Model",
        "model_run": "title: tfx.ModelRun",
    }
    # Releases of Kubeflow Pipelines without ML Metadata accept only their own types.
    assert {
        artifact["artifactType"]["schemaTitle"]
        for component in spec["components"].values()
        for side in ("inputDefinitions", "outputDefinitions")
        for artifact in component.get(side, {}).get("artifacts", {}).values()
    } == {"system.Artifact", "system.HTML"}


@pytest.mark.parametrize("task", ["ModelAnalysis", "Evaluator"])
def test_the_baseline_model_is_optional(spec: dict[str, Any], task: str) -> None:
    artifacts = spec["components"][task]["inputDefinitions"]["artifacts"]
    assert [key for key, artifact in artifacts.items() if artifact.get("isOptional")] == ["baseline_model"]


def test_models_are_pushed_to_the_object_store_by_default(spec: dict[str, Any]) -> None:
    for task in ("Pusher", "latest-blessed-model"):
        parameters = spec["root"]["dag"]["tasks"][task]["inputs"]["parameters"]
        assert "s3://bucket/prefix/digits/serving" in json.dumps(parameters["push_destination"])


def test_the_second_document_contains_the_kubernetes_settings(documents: list[dict[str, Any]]) -> None:
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    shared = {
        "pvcMount": [{"constant": "images", "mountPath": "/data"}],
        "secretAsEnv": [
            {
                "secretName": "store",
                "keyToEnv": [{"secretKey": "accesskey", "envVar": "AWS_ACCESS_KEY_ID"}],
            }
        ],
        "secretAsVolume": [{"secretName": "gcp", "mountPath": "/secrets/gcp"}],
    }
    assert executors["Pusher_executor"] == shared
    trainer = executors["Trainer_executor"]
    assert trainer["nodeSelector"] == {"labels": {"accelerator": "h200"}}
    assert trainer["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    variables = _container(documents[0], "Trainer")["env"]
    assert {"name": "TMPDIR", "value": "/scratch"} in variables


def test_kubeflows_driver_turns_the_second_document_into_a_pod_that_kubernetes_knows(
    documents: list[dict[str, Any]],
) -> None:
    patch = pod_patches(documents[1])["Trainer_executor"]
    client = kubernetes.client.ApiClient()
    parsed = client.deserialize(SimpleNamespace(data=json.dumps(patch)), "V1PodSpec")
    assert client.sanitize_for_serialization(parsed) == patch
    mounts = {mount["name"]: mount["mountPath"] for mount in patch["containers"][0]["volumeMounts"]}
    assert mounts == {"images": "/data", "gcp": "/secrets/gcp", "shared-memory": "/dev/shm", "scratch": "/scratch"}
    volumes = {volume.pop("name"): volume for volume in patch["volumes"]}
    assert volumes["shared-memory"] == {"emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}
    assert volumes["scratch"] == {"emptyDir": {"sizeLimit": "50Gi"}}
    assert volumes["images"] == {"persistentVolumeClaim": {"claimName": "images"}}


@pytest.mark.parametrize(
    ("section", "ignored"),
    [
        ({"enabledSharedMemory": {"volumeName": "shared-memory", "size": "8Gi"}}, "enabledSharedMemory"),
        ({"emptyDirMounts": [{"volumeName": "scratch", "mountPath": "/scratch", "size": "8Gi"}]}, "size"),
    ],
)
def test_a_setting_that_kubeflows_driver_does_not_read_is_refused(section: dict[str, Any], ignored: str) -> None:
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"Trainer_executor": section}}}}}
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())  # kfp's messages do not detect it
    with pytest.raises(RefusedError, match=f"Trainer_executor: Kubeflow's driver does not read {ignored}"):
        pod_patches(platform)


def test_the_same_configuration_compiles_to_the_same_bytes(documents: list[dict[str, Any]], tmp_path: Path) -> None:
    write_package(documents, tmp_path / "a.yaml")
    write_package(_compile(), tmp_path / "b.yaml")
    assert (tmp_path / "a.yaml").read_bytes() == (tmp_path / "b.yaml").read_bytes()
    assert "&id" not in (tmp_path / "a.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("registry.example/autoencoder:1.0", "is a tag"),
        ("registry.example:5000/autoencoder", "must look like REGISTRY/NAME@sha256"),
        ("registry.example/autoencoder@sha256:4f", "must look like REGISTRY/NAME@sha256"),
    ],
)
def test_an_image_without_a_digest_is_refused(image: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        check_image(image, allow_tag=False)


def test_allow_tag_accepts_a_tag() -> None:
    check_image("registry.example:5000/autoencoder:1.0", allow_tag=True)
    check_image(DIGEST, allow_tag=False)


@pytest.mark.parametrize("root", ["file:///tmp/x", "/tmp/x", "runs", "s3://", "https://bucket"])
def test_a_root_that_pods_do_not_share_is_refused(root: str) -> None:
    with pytest.raises(ConfigurationError, match="must be an object store"):
        check_root(root)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "my_digits"}, "has an underscore"),
        (
            {"data": {"source": "folder", "path": "/home/me/images"}},
            "data.path: /home/me/images is on this machine",
        ),
        (
            {"data": {"source": "folder", "path": "s3://bucket/images", "exclude": "suspects.txt"}},
            "data.exclude: suspects.txt is on this machine",
        ),
        (
            {"data": {"source": "digits", "reviewed": "review/reviewed.csv"}},
            "data.reviewed: review/reviewed.csv is on this machine",
        ),
        ({"push": {"destination": "/models"}}, "push.destination: /models is on this machine"),
        ({"trainer": {"warm_start": True}}, "cannot query past models"),
    ],
)
def test_settings_that_cannot_work_in_pods_are_refused(change: dict[str, Any], reason: str) -> None:
    configuration = Configuration.model_validate({**CONFIGURATION, **change})
    with pytest.raises(ConfigurationError, match=reason):
        check_for_cluster(configuration)


def test_settings_of_an_unknown_component_are_refused() -> None:
    configuration = Configuration.model_validate({"kubeflow": {"pods": {"Trainr": {"cpu": 1}}}})
    with pytest.raises(ConfigurationError, match="'Trainr'; did you mean 'Trainer'?"):
        check_pods(configuration, ["Trainer", "Pusher"])


def test_components_that_kubeflow_cannot_run_are_refused_with_the_reason() -> None:
    from tfx.components import CsvExampleGen, InfraValidator
    from tfx.proto import infra_validator_pb2
    from tfx.types import Channel, standard_artifacts

    from components.resolvers.latest_blessed_model import latest_blessed_model

    model = Channel(type=standard_artifacts.Model)
    nodes = [
        CsvExampleGen(input_base="/data"),
        InfraValidator(model=model, serving_spec=infra_validator_pb2.ServingSpec()),
        latest_blessed_model(model).with_id("baseline"),
    ]
    with pytest.raises(ConfigurationError) as caught:
        check_components(nodes)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["CsvExampleGen", "InfraValidator", "baseline"]
    assert "cannot run a Resolver: its backend cannot query past artifacts" in lines[2]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("kubeflow*.yaml")))
def test_the_example_configuration_compiles(path: Path) -> None:
    configuration = Configuration.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    [spec, platform] = compile_package(
        configuration, image=DIGEST, trainer_image=None, root="minio://mlpipeline/v2", gpus=0
    )
    assert spec["pipelineInfo"]["name"] == configuration.name
    assert platform["platforms"]


def test_the_example_of_a_first_run_fits_beside_kubeflow_on_a_laptop() -> None:
    """A pod has a half to one of 4 CPUs and 1.5 of 8 GB; that no pod needs more memory is measured in a whole run."""
    values = yaml.safe_load((CONFIGS / "kubeflow.yaml").read_text(encoding="utf-8"))
    spec, _ = compile_package(
        Configuration.model_validate(values), image=DIGEST, trainer_image=None, root="minio://mlpipeline/v2", gpus=0
    )
    for name, executor in spec["deploymentSpec"]["executors"].items():
        requested = executor["container"]["resources"]
        assert requested["cpuRequest"] <= 1, name
        assert requested["memoryRequest"] <= 1.5, name
        assert "cpuLimit" not in requested


def test_the_claims_have_only_fields_that_kubernetes_knows() -> None:
    claims = list(yaml.safe_load_all((CONFIGS.parent / "deploy" / "kubeflow-storage.yaml").read_text(encoding="utf-8")))
    client = kubernetes.client.ApiClient()
    for claim in claims:
        parsed = client.deserialize(SimpleNamespace(data=json.dumps(claim)), "V1PersistentVolumeClaim")
        assert client.sanitize_for_serialization(parsed) == claim
    assert [claim["metadata"]["name"] for claim in claims] == ["images", "training"]


def test_a_tuner_has_the_trainers_resources_and_passes_its_result_to_it() -> None:
    values = {**CONFIGURATION, "tuner": {"enabled": True, "search_space": {"latent_dim": [4, 8]}}}
    [spec, _] = compile_package(
        Configuration.model_validate(values), image=DIGEST, trainer_image=GPU_DIGEST, root="s3://bucket/prefix", gpus=1
    )
    for task in ("Tuner", "Trainer"):
        assert _container(spec, task)["image"] == GPU_DIGEST
        assert _container(spec, task)["resources"]["accelerator"]["count"] == "1"
    chosen = spec["root"]["dag"]["tasks"]["Trainer"]["inputs"]["artifacts"]["hyperparameters"]
    assert chosen["taskOutputArtifact"]["producerTask"] == "Tuner"
