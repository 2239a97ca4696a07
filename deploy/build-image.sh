#!/bin/sh
# Build the targets of deploy/Dockerfile with docker or podman, as REGISTRY/autoencoder:cpu, :gpu and :serving; the
# registry is the argument. ENGINE=... selects an engine, TARGETS=cpu builds one target. See docs/kubeflow.md.
set -eu
cd "$(dirname "$0")/.."
registry=${1:-${REGISTRY:-localhost}}
answers() { command -v "$1" > /dev/null && "$1" info > /dev/null 2>&1; }
for engine in ${ENGINE:-docker podman} none; do
  if [ "$engine" = none ]; then
    echo "no container engine is running (tried: ${ENGINE:-docker podman}); start one, or set ENGINE." >&2
    echo "Without an engine, 'make test-image' runs the Dockerfile's steps in a folder (as root, on Debian 12)." >&2
    exit 1
  fi
  answers "$engine" && break
done
for target in ${TARGETS:-cpu gpu serving}; do
  # BuildKit finds deploy/Dockerfile.dockerignore by itself; podman needs an option.
  case $engine in *podman*) ignore="--ignorefile deploy/Dockerfile.dockerignore" ;; *) ignore="" ;; esac
  # shellcheck disable=SC2086 # no option, or two words
  DOCKER_BUILDKIT=1 "$engine" build $ignore -f deploy/Dockerfile --target "$target" -t "$registry/autoencoder:$target" .
done
echo "$registry/autoencoder: ${TARGETS:-cpu gpu serving}"
