#!/usr/bin/env bash
# Installs cpu.lock into an environment: install_cpu.sh .venv/bin/python
#
# torch comes first. cpu.lock is meant for its CPU build, which PyTorch's own index has and most other indexes do not:
# that index is asked once, briefly (TORCH_CPU_INDEX names it; empty leaves it out), and then whatever index pip has. A
# CUDA build from there works on a CPU too, but does not import without the NVIDIA libraries that gpu.lock pins.
set -euo pipefail
locks="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python=$1
torch=$(grep '^torch==' "$locks/cpu.lock")

install() { "$python" -m pip install --quiet --disable-pip-version-check --no-deps "$@"; }
has_torch() { "$python" -m pip show --quiet --disable-pip-version-check torch 2>/dev/null; }
torch_imports() { "$python" -c 'import torch' 2>/dev/null; }

if [[ -n ${TORCH_CPU_INDEX:-} ]] && ! has_torch; then
  install --index-url "$TORCH_CPU_INDEX" --timeout 5 --retries 0 "$torch" 2>/dev/null || true
fi
if ! install "$torch"; then
  echo "error: pip finds no $torch. Point PIP_INDEX_URL at a package index that is reachable from here, and start again" >&2
  exit 1
fi
install -r "$locks/cpu.lock"
if ! torch_imports; then
  echo "this torch is a CUDA build: adding the NVIDIA libraries that it needs (6 GB), since no index here has a CPU build"
  libraries=$(mktemp)
  trap 'rm -f "$libraries"' EXIT
  grep -E '^(nvidia-|cuda-|triton==)' "$locks/gpu.lock" >"$libraries"
  install -r "$libraries"
fi
if ! torch_imports; then
  echo "error: torch does not import: $("$python" -c 'import torch' 2>&1 | tail -1). Run 'make clean' and start again; if it" \
    "stays so, point TORCH_CPU_INDEX at an index of CPU wheels" >&2
  exit 1
fi
