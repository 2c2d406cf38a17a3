#!/usr/bin/env bash
# Installs cpu.lock into an environment: install_cpu.sh .venv/bin/python
#
# torch comes first. cpu.lock is meant for its CPU build, which PyTorch's own index has and most other indexes do not:
# that index is asked once, briefly (TORCH_CPU_INDEX names it; empty leaves it out), then pip's own index and folders. A
# CUDA build from there works on a CPU too, but does not import without the NVIDIA libraries that gpu.lock pins. The CPU
# build has to be asked for by its name: pip prefers whichever file of a version an index gives the hash of.
set -euo pipefail
locks="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install() { "$python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes "$@"; }
has_torch() { "$python" -m pip freeze --disable-pip-version-check | grep -qE "^$torch(\+|$)"; }
torch_imports() { "$python" -c 'import torch' 2>/dev/null; }
# The packages of a lock whose lines begin so, with their hashes.
entries() { awk -v begins="^($2)" '/^[^ ]/ { kept = $0 ~ begins } kept' "$locks/$1"; }

entries cpu.lock torch== >"$work/torch"
torch=$(grep -oE '^torch==[^ ]+' "$work/torch")
sed 's/^torch==[^ ]*/&+cpu/' "$work/torch" >"$work/cpu_build"
if ! has_torch; then
  install ${TORCH_CPU_INDEX:+--index-url "$TORCH_CPU_INDEX" --timeout 5 --retries 0} -r "$work/cpu_build" 2>/dev/null ||
    install -r "$work/torch" || {
    echo "error: pip finds no $torch. Point PIP_INDEX_URL at a package index that is reachable from here, and" \
      "start again" >&2
    exit 1
  }
fi
install -r "$locks/cpu.lock"
if ! torch_imports; then
  echo "this torch is a CUDA build: adding the NVIDIA libraries that it needs (6 GB), since no index here has a CPU build"
  entries gpu.lock 'nvidia-|cuda-|triton==' >"$work/libraries"
  install -r "$work/libraries"
fi
if ! torch_imports; then
  echo "error: torch does not import: $("$python" -c 'import torch' 2>&1 | tail -1). Run 'make clean' and start again; if it" \
    "stays so, point TORCH_CPU_INDEX at an index of CPU wheels" >&2
  exit 1
fi
