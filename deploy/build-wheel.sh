#!/bin/sh
# Build the last commit's wheel into the folder $1 with the interpreter $2. The build is reproducible: times are the
# commit's, modes do not depend on the umask, and uncommitted files are left out.
set -eu
output=$(mkdir -p "$1" && cd "$1" && pwd)
python=$2
umask 022
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
git archive HEAD | tar -x --no-same-permissions -C "$source"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) "$python" -m build --wheel --no-isolation --outdir "$output" "$source"
