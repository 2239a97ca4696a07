#!/usr/bin/env bash
# Runs types, quick tests, a whole graph of Kubeflow and a cross-check of both stacks, with whole runs, on TFX 1.21, where
# the machine's own glibc is too old for it. Elsewhere `make test` runs on TFX 1.21 itself.
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
# What checks texts, scripts and files of the repository, or only the benchmark's references, is the same on every stack.
same_on_every_stack=(tests/bench/detection tests/image tests/test_{affected_tests,architecture,choose_python,documentation}.py
  tests/test_{troubleshooting,wheel}.py)
"$python" -m pytest -m "not slow" "${same_on_every_stack[@]/#/--ignore=}" "$@"
"$python" -m pytest tests/whole_runs/test_kubeflow_whole_graph.py &
"$python" tests/next/cross_check.py .venv/bin/python || failed=1
wait $! || failed=1
exit "${failed:-0}"
