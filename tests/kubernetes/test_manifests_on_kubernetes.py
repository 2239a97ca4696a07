"""The manifests of deploy/ and our images on a real Kubernetes: programs of one node, built from source.

Pods cannot pull images here, so TensorFlow Serving's own image is not tested.
"""

import json

import pytest
from kubernetes_cluster import Cluster
from kubernetes_objects import DEPLOY, IMAGE, end_of_pod, manifests, start_pod, volume

from pipeline.kubeflow.names import USER_ID

pytestmark = pytest.mark.kubernetes


def test_every_manifest_is_accepted(cluster: Cluster) -> None:
    """Applied for real; kinds of operators that are not installed here are left out by name."""
    accepted, foreign = [], []
    cluster.kubectl("create", "namespace", "accepted")
    for path in sorted([*DEPLOY.glob("*.yaml"), *DEPLOY.glob("kubernetes/*.yaml"), *DEPLOY.glob("kserve/*.yaml")]):
        for manifest in manifests(str(path.relative_to(DEPLOY))):
            if "kind" not in manifest:
                continue  # compose.yaml
            if manifest["apiVersion"].partition("/")[0] in ("kubeflow.org", "serving.kserve.io"):
                foreign.append(manifest["kind"])
                continue
            create = ["create", "--namespace=accepted", "--validate=strict", "-f", "-"]
            assert "created" in cluster.kubectl(*create, stdin=json.dumps(manifest))
            accepted.append(manifest["kind"])
    cluster.kubectl("delete", "namespace", "accepted", "--wait=false")
    assert sorted(foreign) == ["InferenceService", "TFJob"]
    assert len(accepted) >= 12


def test_the_images_user_has_a_group_of_its_own(cluster: Cluster) -> None:
    """Also without a securityContext, as in Kubeflow's pods."""
    start_pod(cluster, "identity", IMAGE, ["id"])
    log = end_of_pod(cluster, "identity")["log"].strip()
    assert log == f"uid={USER_ID}(autoencoder) gid={USER_ID}(autoencoder) groups={USER_ID}(autoencoder)"


def test_a_volume_that_belongs_to_root_is_writable_with_fsgroup(cluster: Cluster) -> None:
    """The security settings of a training job's pods."""
    volume(cluster, "of-root")
    [claim] = [m for m in manifests("kubeflow-storage.yaml") if m["metadata"]["name"] == "training"]
    cluster.apply({**claim, "metadata": {"name": "of-root"}})
    security = manifests("tfjob.yaml")[0]["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]["securityContext"]
    volumes = [{"name": "training", "persistentVolumeClaim": {"claimName": "of-root"}}]
    mounted = {"volumeMounts": [{"name": "training", "mountPath": "/training"}]}
    write = ["sh", "-c", "echo 1 > /training/a && cat /training/a"]
    start_pod(cluster, "no-group", IMAGE, write, container=mounted, volumes=volumes)
    assert "Permission denied" in end_of_pod(cluster, "no-group")["log"]
    start_pod(cluster, "group", IMAGE, write, container=mounted, volumes=volumes, securityContext=security)
    status = end_of_pod(cluster, "group")
    assert (status["phase"], status["log"].strip()) == ("Succeeded", "1")


def test_a_pod_that_needs_more_memory_than_its_limit_is_killed_for_it(cluster: Cluster) -> None:
    """What Kubernetes reports, which docs/kubeflow.md explains."""
    command = ["autoencoder", "run", "/tmp/digits.yaml", "--set", "root=/tmp/runs", "--set", "trainer.epochs=1"]
    script = f"echo 'name: digits' > /tmp/digits.yaml; exec {' '.join(command)}"
    limited = {"resources": {"limits": {"memory": "250Mi"}}}
    start_pod(cluster, "hungry", IMAGE, ["sh", "-c", script], container=limited)
    [container] = end_of_pod(cluster, "hungry")["containerStatuses"]
    assert container["state"]["terminated"]["reason"] == "OOMKilled"
    assert container["state"]["terminated"]["exitCode"] == 137
