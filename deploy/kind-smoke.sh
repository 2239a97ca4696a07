#!/bin/bash
# Smoke test on a small real Kubeflow: creates a kind cluster, installs Kubeflow Pipelines 2.17, builds the image, compiles
# a package, follows its run to the verdict, and looks for the pushed model. Needs docker, kind, kubectl, `make setup`,
# 12 GB of memory and at most an hour. docs/kubeflow.md says how far it was tested.
#   deploy/kind-smoke.sh [--keep]        --keep leaves the cluster: kind delete cluster --name autoencoder
set -euo pipefail
cd "$(dirname "$0")/.."
KEEP=${1:-}
CLUSTER=autoencoder
PIPELINE_VERSION=${PIPELINE_VERSION:-2.17.0}
IMAGE=localhost/autoencoder:cpu
PORT=${PORT:-8888}
STORE_PORT=${STORE_PORT:-9000}
MANIFESTS=github.com/kubeflow/pipelines/manifests/kustomize
WORK=$(mktemp -d)
forwards=()

leave() {
  local status=$?
  kill "${forwards[@]}" 2> /dev/null || true
  if [ "$status" -ne 0 ] && kubectl --context "kind-$CLUSTER" get nodes > /dev/null 2>&1; then
    echo "--- state of the cluster" >&2
    kubectl --context "kind-$CLUSTER" -n kubeflow get pods >&2 || true
    kubectl --context "kind-$CLUSTER" -n kubeflow logs --tail=40 --prefix --all-containers \
      -l pipelines.kubeflow.org/v2_component=true >&2 || true
  fi
  [ "$KEEP" = --keep ] || kind delete cluster --name "$CLUSTER" || true
  rm -rf "$WORK"
  exit "$status"
}

for tool in docker kind kubectl .venv/bin/autoencoder; do
  command -v "$tool" > /dev/null || { echo "$tool was not found; install it" >&2; exit 2; }
done
docker info > /dev/null 2>&1 || { echo "docker is not running; start it" >&2; exit 2; }
if kind get clusters 2> /dev/null | grep -qx "$CLUSTER"; then
  echo "a kind cluster '$CLUSTER' already exists; delete it with: kind delete cluster --name $CLUSTER" >&2
  exit 2
fi
trap leave EXIT

echo "--- cluster"
kind create cluster --name "$CLUSTER" --wait 120s
kubectl config use-context "kind-$CLUSTER"

echo "--- Kubeflow Pipelines $PIPELINE_VERSION"
kubectl apply -k "$MANIFESTS/cluster-scoped-resources?ref=$PIPELINE_VERSION"
kubectl wait --for condition=established --timeout=60s crd/applications.app.k8s.io
kubectl apply -k "$MANIFESTS/env/platform-agnostic?ref=$PIPELINE_VERSION"
kubectl -n kubeflow wait --for=condition=available --timeout=1200s deployment --all

echo "--- image"
TARGETS=cpu ENGINE=docker deploy/build-image.sh localhost
kind load docker-image --name "$CLUSTER" "$IMAGE"

echo "--- package"
# A tag is safe here: the new cluster's cache is empty.
.venv/bin/autoencoder compile configs/kubeflow.yaml --set trainer.epochs=30 \
  --set evaluation.thresholds='[{metric: mean_error, max: 0.03}]' \
  --image "$IMAGE" --allow-tag --root minio://mlpipeline/v2/artifacts -o "$WORK/pipeline.yaml"

echo "--- run"
kubectl -n kubeflow port-forward service/ml-pipeline "$PORT:8888" > /dev/null &
forwards+=($!)
# The object store, by the service that the package names: pods and this machine reach the same one.
store=$(sed -n 's|.*AWS_ENDPOINT_URL: "http://\([a-z-]*\)\.kubeflow:.*|\1|p' configs/kubeflow.yaml)
kubectl -n kubeflow port-forward "service/$store" "$STORE_PORT:9000" > /dev/null &
forwards+=($!)
secret() { kubectl -n kubeflow get secret mlpipeline-minio-artifact -o "jsonpath={.data.$1}" | base64 -d; }
AWS_ACCESS_KEY_ID=$(secret accesskey)
AWS_SECRET_ACCESS_KEY=$(secret secretkey)
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_ENDPOINT_URL="http://localhost:$STORE_PORT"
for _ in $(seq 60); do curl -fsS "http://localhost:$PORT/apis/v2beta1/healthz" > /dev/null 2>&1 && break; sleep 2; done
.venv/bin/autoencoder submit "$WORK/pipeline.yaml" --host "http://localhost:$PORT" --experiment smoke --watch

echo "--- verdict and pushed model"
.venv/bin/autoencoder runs --host "http://localhost:$PORT" --json | tee "$WORK/runs"
pushed=$(.venv/bin/python -c 'import json, sys; print(json.load(sys.stdin)["digits-kubeflow"][0]["pushed"])' < "$WORK/runs")
.venv/bin/python -c 'import sys; from runtime.object_store import RemotePath
assert (RemotePath(sys.argv[1]) / "saved_model.pb").exists(), sys.argv[1]' "$pushed"
echo "passed: $pushed"
