#!/usr/bin/env bash
# Begins an image's environment: install.sh /opt/afterclick beam.lock
#
# /sbom is what lists its packages in the end.
set -euo pipefail
environment=$1
lock=$2
pip_install() { "$1/bin/python" -m pip install --quiet --require-hashes --no-deps -r "requirements/$2"; }

# `strip`, for slim.sh.
export DEBCONF_NOWARNINGS=yes
apt-get update -qq
apt-get install -qq --yes --no-install-recommends binutils >/dev/null
python3.11 -m venv /sbom
pip_install /sbom sbom.lock
python3.11 -m venv "$environment"
pip_install "$environment" build.lock
if [[ $lock == cpu.lock ]]; then
  requirements/install_cpu.sh "$environment/bin/python"
else
  pip_install "$environment" "$lock"
fi
