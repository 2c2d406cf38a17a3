#!/usr/bin/env bash
# Regenerates the locks from pyproject.toml and serve.in; needs `pip install uv`. Run it as `make lock`.
#
# gpu.lock is resolved for Linux x86-64 and Python 3.11. cpu.lock is gpu.lock without the CUDA libraries, and with
# fbgemm-gpu-cpu in place of fbgemm-gpu, which provides the same module but does not import on a CPU build of torch;
# TorchRec requires fbgemm-gpu by name, so cpu.lock can only be installed with `pip install --no-deps -r`.
# dev.lock holds what only tests and checks need, on top of either.
# serve.lock is the part of gpu.lock that the servers' image needs: no torch, no CUDA.
set -euo pipefail
cd "$(dirname "$0")"

resolve() {
  uv pip compile ../pyproject.toml --quiet --upgrade --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --no-header --no-annotate --constraints constraints.txt "$@"
}

resolve --extra complete-journey --output-file gpu.lock
grep -vE '^(nvidia-|cuda-|triton==)' gpu.lock | sed 's/^fbgemm-gpu==/fbgemm-gpu-cpu==/' >cpu.lock
resolve --extra complete-journey --extra dev --constraints gpu.lock --output-file all.tmp
grep -vxFf gpu.lock all.tmp >dev.lock
# The tests run the Triton kernel in Triton's interpreter where there is no GPU.
grep '^triton==' gpu.lock >>dev.lock
rm all.tmp
uv pip compile serve.in --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
  --no-header --no-annotate --constraints gpu.lock --output-file serve.lock
wc -l ./*.lock
