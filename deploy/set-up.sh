#!/usr/bin/env bash
# Makes or updates a virtual environment from the locks of the TFX that installs here; `make setup` calls it.
#
#   set-up.sh FOLDER [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1
chosen=$(deploy/choose-python.sh "${2:-}")
tfx=${chosen%% *} python=${chosen#* }
locks=(requirements-uv.lock requirements.lock requirements-dev.lock)
[ "$tfx" = 1.21 ] || locks=(requirements-uv.lock "requirements-tfx$tfx.lock" "requirements-tfx$tfx-dev.lock")

print_version='import sys; print("%d.%d" % sys.version_info[:2])'
if [ -e "$folder/bin/python" ] && [ "$("$folder/bin/python" -c "$print_version" 2>&1)" != "$("$python" -c "$print_version")" ]; then
  rm -rf "$folder"
fi
echo "setting up $folder: 4 GB; a minute, or several on a slow machine, without further output"
"$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
"$folder/bin/uv" pip sync --quiet --compile-bytecode --python "$folder/bin/python" --require-hashes "${locks[@]}"
"$folder/bin/uv" pip install --quiet --python "$folder/bin/python" --no-deps --no-build-isolation --editable .
