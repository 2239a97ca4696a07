#!/usr/bin/env bash
# Chooses a Python and the TFX that installs on it, and prints "TFX PYTHON"; why, on standard error.
#
#   choose-python.sh [PYTHON]
#
# TFX 1.21 has native libraries for glibc 2.39 and newer, on Python 3.11 to 3.13; TFX 1.16 also for older ones, on 3.10.
set -euo pipefail

runs_venv() { # PYTHON: whether it can make virtual environments
  "$1" -c 'import venv, ensurepip' 2>/dev/null
}

version_of() { # PYTHON -> 3.13
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'
}

is_new() { # whether a version of glibc is 2.39 or newer
  [ "$(printf '%s\n' 2.39 "$1" | sort -V | head -n 1)" = 2.39 ]
}

find_python() { # VERSION -> the path of a Python of this version
  local python
  # pyenv's commands work only for the versions selected in pyenv, so look into its folders too.
  for python in "python$1" "$HOME"/.pyenv/versions/"$1".*/bin/"python$1" "$(uv python find "$1" 2>/dev/null || true)"; do
    if [ -n "$python" ] && runs_venv "$python" && [ "$(version_of "$python")" = "$1" ]; then
      command -v "$python"
      return
    fi
  done
  return 1
}

choose() { # TFX PYTHON WHY
  echo "TFX $1 on Python $(version_of "$2") ($2): $3" >&2
  echo "$1 $2"
  exit 0
}

glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2) || true
if [ -n "${1:-}" ]; then # a Python may bring its own glibc
  if ! "$1" -c '' 2>/dev/null; then
    echo "$1, named with PYTHON=, does not start: give the path of a Python, or leave PYTHON out to have one found." >&2
    exit 1
  fi
  glibc=$("$1" -c 'import platform; print(platform.libc_ver()[1])')
fi
if [ -z "$glibc" ]; then
  echo "No glibc was found, and TensorFlow's packages need it: use Debian, Ubuntu, Fedora or another Linux with glibc." >&2
  exit 1
fi
if is_new "$glibc"; then
  tfx=1.21 wanted="3.13 3.12 3.11" why="glibc $glibc is 2.39 or newer"
else
  tfx=1.16 wanted="3.10" why="glibc $glibc is older than the 2.39 that TFX 1.21 needs"
fi

if [ -n "${1:-}" ]; then
  case "$(version_of "$1")" in
    3.1[123]) is_new "$glibc" && choose 1.21 "$1" "$why" ;;
    3.10) choose 1.16 "$1" "TFX 1.21 needs Python 3.11 to 3.13" ;;
  esac
  echo "$1 is Python $(version_of "$1"), but with glibc $glibc TFX $tfx needs Python ${wanted// / or }" >&2
  exit 1
fi

for version in $wanted; do
  python=$(find_python "$version") && choose "$tfx" "$python" "$why"
done
if [ "$tfx" = 1.21 ] && python=$(find_python 3.10); then
  choose 1.16 "$python" "no Python 3.11 to 3.13 with venv was found for TFX 1.21"
fi
newest=${wanted%% *}
if command -v uv >/dev/null; then
  echo "no Python ${wanted// / or } with venv was found: installing it with 'uv python install $newest'" >&2
  if uv python install --quiet "$newest" && python=$(find_python "$newest"); then
    choose "$tfx" "$python" "$why"
  fi
fi
for version in $wanted 3; do
  if command -v "python$version" >/dev/null && ! runs_venv "python$version"; then
    echo "python$version cannot make virtual environments; on Debian and Ubuntu: apt install python$version-venv" >&2
  fi
done
cat >&2 <<MESSAGE
Python ${wanted// / or } with venv was not found. It is needed because $why.
Install it:  apt install python$newest-venv  |  dnf install python$newest  |  uv python install $newest
or name it:  make setup PYTHON=/path/to/python$newest
MESSAGE
exit 1
