"""The deployment manifests use existing fields, health checks, limits and no privileges."""

import re
import subprocess
import urllib.request
from typing import Any

import pytest
import yaml
from repository import REPOSITORY
from urls import rest_url

from pipeline.commands.serve import serve
from schema.signatures import DEFAULT_GRPC_PORT, DEFAULT_MODEL_NAME, DEFAULT_REST_PORT
from serving.server.rest import LIVE_PATH, METRICS_PATH, READY_PATH
from serving.server.run import ServerAddress

models = pytest.importorskip("kubernetes.client.models")

DEPLOY = REPOSITORY / "deploy"
TF_SERVING = "2.16.1"
FLAGS = {
    f"--port={DEFAULT_GRPC_PORT}",
    f"--rest_api_port={DEFAULT_REST_PORT}",
    f"--model_name={DEFAULT_MODEL_NAME}",
    f"--model_base_path=/models/{DEFAULT_MODEL_NAME}",
}
# KServe adds these to a pod's and a container's fields (its v1beta1 PredictorSpec and ModelSpec).
KSERVE_PREDICTOR = {"minReplicas", "maxReplicas", "timeout", "model"}
KSERVE_MODEL = {"modelFormat", "runtimeVersion", "protocolVersion", "storageUri"}


def _documents(name: str) -> dict[str, dict[str, Any]]:
    """The manifests of a file by kind."""
    return {doc["kind"]: doc for doc in yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8"))}


def _invalid_fields(value: Any, kind: str, place: str = "") -> list[str]:
    """The fields of `value` that are unknown to the Kubernetes API's `kind` or of the wrong type."""
    if listed := re.fullmatch(r"list\[(.*)\]", kind):
        if not isinstance(value, list):
            return [f"{place}: not a list"]
        return [s for i, v in enumerate(value) for s in _invalid_fields(v, listed[1], f"{place}[{i}]")]
    if mapped := re.fullmatch(r"dict\(str, (.*)\)", kind):
        return [s for k, v in value.items() for s in _invalid_fields(v, mapped[1], f"{place}.{k}")]
    plain = {"str": str, "int": int, "bool": bool, "object": object}
    if kind in plain:
        return [] if isinstance(value, plain[kind]) else [f"{place}: {value!r} is not of type {kind}"]
    model = getattr(models, kind)
    types = {model.attribute_map[name]: type_ for name, type_ in model.openapi_types.items()}
    return [
        invalid
        for field, inner in value.items()
        for invalid in (
            _invalid_fields(inner, types[field], f"{place}.{field}") if field in types else [f"{place}.{field}"]
        )
    ]


def test_check_finds_invalid_fields() -> None:
    """A misspelt field, an object for a list, a string for a number."""
    pod = {"contaners": [], "volumes": {}, "priority": "high", "containers": [{"name": "a", "tty": 1}]}
    assert _invalid_fields(pod, "V1PodSpec") == [
        ".contaners",
        ".volumes: not a list",
        ".priority: 'high' is not of type int",
        ".containers[0].tty: 1 is not of type bool",
    ]


@pytest.mark.parametrize(
    ("name", "kind", "model"),
    [
        ("kubernetes/serving.yaml", "ConfigMap", "V1ConfigMap"),
        ("kubernetes/serving.yaml", "Deployment", "V1Deployment"),
        ("kubernetes/serving.yaml", "Service", "V1Service"),
        ("kubernetes/server.yaml", "Deployment", "V1Deployment"),
        ("kubernetes/server.yaml", "Service", "V1Service"),
        ("kubernetes/server.yaml", "PodDisruptionBudget", "V1PodDisruptionBudget"),
        ("kubernetes/server.yaml", "HorizontalPodAutoscaler", "V2HorizontalPodAutoscaler"),
    ],
)
def test_kubernetes_manifests_have_only_fields_that_exist(name: str, kind: str, model: str) -> None:
    """Against the API's own models."""
    assert _invalid_fields(_documents(name)[kind], model) == []


def test_kserve_manifest_has_only_fields_that_exist() -> None:
    """Its predictor is a pod and its model a container, each with a few extra fields."""
    predictor = _documents("kserve/inference_service.yaml")["InferenceService"]["spec"]["predictor"]
    model = predictor["model"]
    pod = {field: value for field, value in predictor.items() if field not in KSERVE_PREDICTOR}
    container = {field: value for field, value in model.items() if field not in KSERVE_MODEL}
    assert _invalid_fields(pod, "V1PodSpec") == []
    assert _invalid_fields(container, "V1Container") == []
    assert set(model) >= KSERVE_MODEL


def _assert_locked_down(pod: dict[str, Any], container: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    assert {"readinessProbe", "livenessProbe"} <= set(container)


def test_deployment_serves_this_model_locked_down() -> None:
    """Ports, name, image; probes, limits, no privileges, and only /tmp is writable."""
    documents = _documents("kubernetes/serving.yaml")
    template = documents["Deployment"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    _assert_locked_down(template["spec"], container)
    assert container["image"] == f"tensorflow/serving:{TF_SERVING}"
    assert set(container["args"]) >= FLAGS
    assert "--enable_batching=true" not in container["args"]
    assert [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")] == ["/tmp"]
    assert container["readinessProbe"]["httpGet"]["path"] == f"/v1/models/{DEFAULT_MODEL_NAME}/metadata"
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] == METRICS_PATH
    volumes = {volume["name"] for volume in template["spec"]["volumes"]}
    assert volumes == {mount["name"] for mount in container["volumeMounts"]}


def test_our_server_runs_locked_down_with_tls_and_tokens() -> None:
    """The arguments are those of `serve`; every file is mounted from a Secret, and only /tmp is writable."""
    template = _documents("kubernetes/server.yaml")["Deployment"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    _assert_locked_down(template["spec"], container)
    parsed = serve.make_context("serve", container["args"]).params
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    files = {name: str(parsed[name]) for name in ("tls_cert", "tls_key", "token_file")}
    assert files == {
        "tls_cert": f"{mounts['tls']}/tls.crt",
        "tls_key": f"{mounts['tls']}/tls.key",
        "token_file": f"{mounts['tokens']}/tokens",
    }
    assert [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")] == ["/tmp"]
    for probe, path in (("startupProbe", LIVE_PATH), ("readinessProbe", READY_PATH), ("livenessProbe", LIVE_PATH)):
        assert container[probe]["httpGet"] == {"path": path, "port": "https", "scheme": "HTTPS"}


def test_our_servers_autoscaler_uses_a_metric_that_it_has(image_server: ServerAddress) -> None:
    """And scales the Deployment that the budget protects."""
    documents = _documents("kubernetes/server.yaml")
    autoscaler = documents["HorizontalPodAutoscaler"]["spec"]
    [metric] = [metric["pods"]["metric"]["name"] for metric in autoscaler["metrics"]]
    with urllib.request.urlopen(f"{rest_url(image_server)}{METRICS_PATH}") as response:  # noqa: S310
        assert f"\n{metric} 0.0\n" in response.read().decode()
    assert autoscaler["scaleTargetRef"]["name"] == documents["Deployment"]["metadata"]["name"]
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert autoscaler["minReplicas"] > documents["PodDisruptionBudget"]["spec"]["minAvailable"]


@pytest.mark.parametrize("name", ["kubernetes/serving.yaml", "kubernetes/server.yaml"])
def test_service_selects_the_deployment(name: str) -> None:
    """Selector and labels match, as do port names and numbers."""
    documents = _documents(name)
    template = documents["Deployment"]["spec"]["template"]
    assert documents["Service"]["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert documents["Deployment"]["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    opened = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    assert set(opened.values()) == {DEFAULT_GRPC_PORT, DEFAULT_REST_PORT}
    for port in documents["Service"]["spec"]["ports"]:
        assert opened[port["targetPort"]] == port["port"]


def test_kserve_is_locked_down_and_uses_a_runtime_that_loads_the_model() -> None:
    """The default runtime, 2.6.2, cannot load it."""
    document = _documents("kserve/inference_service.yaml")["InferenceService"]
    predictor = document["spec"]["predictor"]
    assert document["apiVersion"] == "serving.kserve.io/v1beta1"
    assert document["metadata"]["name"] == DEFAULT_MODEL_NAME
    assert predictor["model"]["runtimeVersion"] == TF_SERVING
    assert predictor["model"]["modelFormat"] == {"name": "tensorflow"}
    _assert_locked_down(predictor, predictor["model"])


def test_compose_serves_this_model_on_loopback_locked_down() -> None:
    """Loopback ports; read-only, unprivileged, limited, with a health check."""
    document = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    service = document["services"]["serving"]
    assert service["image"] == f"tensorflow/serving:{TF_SERVING}"
    assert set(service["command"]) >= FLAGS
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert not service["user"].startswith(("0", "root"))
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(volume["read_only"] for volume in service["volumes"])
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert service["healthcheck"]["test"][0] == "CMD"
    assert {config["source"] for config in service["configs"]} == set(document["configs"])


def test_monitoring_configuration_is_consistent() -> None:
    """The scrape annotation names the configured path."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    documents = _documents("kubernetes/serving.yaml")
    config = documents["ConfigMap"]["data"]["monitoring.config"]
    assert compose["configs"]["monitoring"]["content"] == config
    path = documents["Deployment"]["spec"]["template"]["metadata"]["annotations"]["prometheus.io/path"]
    assert f'path: "{path}"' in config


def test_compose_health_check_detects_a_served_model(image_server: ServerAddress) -> None:
    """The command, run against our server: 0 if a version is served, otherwise not 0."""
    document = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    command = document["services"]["serving"]["healthcheck"]["test"][1:]

    def status(port: int | None) -> int:
        replaced = [word.replace(f"/{DEFAULT_REST_PORT} ", f"/{port} ") for word in command]
        return subprocess.run(replaced, capture_output=True, timeout=20, check=False).returncode

    assert status(image_server.rest_port) == 0
    assert status(1) != 0
