#!/usr/bin/env bash
# Makes an environment of Python 3.11, unless it is there: make_venv.sh PYTHON .venv
#
# Where PYTHON is another version, uv brings 3.11 if it is installed.
set -euo pipefail
python=$1
venv=$2

[[ -x $venv/bin/python ]] && exit 0
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo none)
if [[ $version != 3.11 ]]; then
  if command -v uv >/dev/null; then
    echo "Python 3.11 is needed, python3 is $version: uv makes the environment"
    exec uv venv --quiet --seed --python 3.11 "$venv"
  fi
  echo "error: Python 3.11 is needed, python3 here is $version. Install it, or let uv bring it: pip install uv" >&2
  exit 1
fi
if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
  rm -rf "$venv"
  echo "error: $python cannot make a virtual environment; on Debian and Ubuntu: apt install python3.11-venv" >&2
  exit 1
fi
