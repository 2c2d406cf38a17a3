#!/usr/bin/env bash
# Regenerates the locks from pyproject.toml and the *.in files; needs `pip install uv`. Run it as `make lock`.
#
# Versions stay as they are in gpu.lock and dev.lock; `lock.sh --upgrade` takes the newest. All locks have hashes, which pip checks.
# gpu.lock is resolved for Linux x86-64 and Python 3.11. cpu.lock is gpu.lock without the CUDA libraries, and with
# fbgemm-gpu-cpu in place of fbgemm-gpu, which provides the same module but does not import on a CPU build of torch;
# TorchRec requires fbgemm-gpu by name, so cpu.lock can only be installed with `pip install --no-deps -r`. Its torch may
# be PyPI's or PyTorch's CPU build, which has a hash of its own: TORCH_CPU_INDEX or PIP_FIND_LINKS must have that one.
# dev.lock holds what only tests and checks need, on top of either.
# serve.lock and beam.lock are the parts of gpu.lock that the images without torch need, build.lock and
# sbom.lock what makes images.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

resolve() {
  uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header --no-annotate \
    --generate-hashes "$@"
}
pins() { grep -oE '^[a-z0-9][^ ]*==[^ ]+' "$1"; }

resolve ../pyproject.toml --extra complete-journey --extra stores --constraints constraints.txt "$@" \
  --output-file gpu.lock
pins gpu.lock >"$work/gpu"
cat gpu.lock dev.lock >"$work/all.lock"
# Where there is no GPU, the tests run the Triton kernel in Triton's interpreter.
resolve ../pyproject.toml --extra complete-journey --extra stores --extra dev --constraints "$work/gpu" "$@" \
  --output-file "$work/all.lock"
{ pins "$work/all.lock" | grep -vxFf "$work/gpu" && grep '^triton==' "$work/gpu"; } >"$work/dev"
resolve "$work/dev" --no-deps --output-file dev.lock
for part in serve beam build sbom; do
  resolve $part.in --constraints "$work/gpu" --output-file $part.lock
done

grep -vE '^(nvidia-|cuda-|triton==)' "$work/gpu" | sed 's/^fbgemm-gpu==/fbgemm-gpu-cpu==/' >"$work/cpu"
resolve "$work/cpu" --no-deps --output-file "$work/cpu.lock"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" \
  --python-version 3.11 --platform manylinux_2_28_x86_64 ${TORCH_CPU_INDEX:+--extra-index-url "$TORCH_CPU_INDEX"} \
  "$(grep '^torch==' "$work/cpu")+cpu"
sha256sum "$work"/torch-*.whl | sed 's/ .*//; s/.*/    --hash=sha256:& \\/' >"$work/hash"
sed "/^torch==/r $work/hash" "$work/cpu.lock" >cpu.lock
grep -c '==' ./*.lock
