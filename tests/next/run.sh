#!/usr/bin/env bash
# Runs types, quick tests, one whole run and a cross-check of both stacks on TFX 1.21, where the machine's own glibc is too
# old for it. Elsewhere `make test` runs on TFX 1.21 itself.
set -euo pipefail
cd "$(dirname "$0")/../.."
own=$(deploy/choose-python.sh "${PYTHON:-}")
if [ "${own%% *}" = 1.21 ]; then
  echo "make test runs on TFX 1.21 here"
  exit
fi
folder=${XDG_CACHE_HOME:-$HOME/.cache}/tfx-image-autoencoder/next
mkdir -p "$folder"
exec 9> "$folder/lock"
flock 9 # its environment refers to one checkout at a time
python=$(tests/next/prepare.sh "$folder") || {
  status=$?
  [ "$status" = 75 ] && exit 0
  exit "$status"
}
bin=$(dirname "$python")
export PATH=$bin:$PATH ONNXRUNTIME_HEADERS=$folder/debian/usr/include/onnxruntime
"$bin/mypy"
"$python" -m pytest -m "not slow" "$@"
"$python" -m pytest tests/whole_runs/test_local_runs.py -k first_run
"$python" -m pytest tests/whole_runs/test_kubeflow_whole_graph.py
"$python" tests/next/cross_check.py .venv/bin/python
