#!/bin/bash
# Smoke test on a small real Kubeflow: creates a kind cluster, installs Kubeflow Pipelines, builds the image, compiles
# a package and runs it. Needs docker, kind, kubectl, `make setup`, 12 GB of memory and at most an hour.
# Not tested yet: no container engine was available.
#   deploy/kind-smoke.sh [--keep]        --keep leaves the cluster: kind delete cluster --name autoencoder
set -euo pipefail
cd "$(dirname "$0")/.."
KEEP=${1:-}
CLUSTER=autoencoder
PIPELINE_VERSION=${PIPELINE_VERSION:-2.4.0}
IMAGE=localhost/autoencoder:cpu
PORT=${PORT:-8888}
MANIFESTS=github.com/kubeflow/pipelines/manifests/kustomize
WORK=$(mktemp -d)
forward=

leave() {
  local status=$?
  [ -z "$forward" ] || kill "$forward" 2> /dev/null || true
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
forward=$!
for _ in $(seq 60); do curl -fsS "http://localhost:$PORT/apis/v2beta1/healthz" > /dev/null 2>&1 && break; sleep 2; done
submitted=$(.venv/bin/autoencoder submit "$WORK/pipeline.yaml" --host "http://localhost:$PORT" --experiment smoke)
echo "$submitted"
state=
for _ in $(seq 240); do
  state=$(curl -fsS "http://localhost:$PORT/apis/v2beta1/runs/${submitted##*/}" |
    .venv/bin/python -c 'import json, sys; print(json.load(sys.stdin).get("state", "PENDING"))')
  case $state in SUCCEEDED | FAILED | CANCELED) break ;; esac
  sleep 10
done
echo "state of the run: ${state:-unknown}"
[ "$state" = SUCCEEDED ]

echo "--- pushed model"
kubectl -n kubeflow exec deploy/minio -- ls -R /data/mlpipeline/v2/artifacts/digits-kubeflow/serving | tee "$WORK/pushed"
grep -q saved_model.pb "$WORK/pushed"
echo "passed"
