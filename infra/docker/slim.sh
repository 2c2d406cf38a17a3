#!/usr/bin/env bash
# Ends an image's environment: slim.sh /opt/afterclick
#
# Takes out what no step needs: installers, tests, debug symbols, Arrow's Flight, AWS services other than storage, and
# ONNX Runtime's CUDA provider where the CUDA libraries that it loads are not installed. Writes sbom.cdx.json.
set -euo pipefail
environment=$1
packages=$environment/lib/python3.11/site-packages

installers=(pip)
# torch looks for setuptools when it compiles.
[[ -d $packages/torch ]] || installers+=(setuptools)
"$environment/bin/python" -m pip uninstall --quiet --yes "${installers[@]}"

/sbom/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
  --output-file "$environment/sbom.cdx.json" "$environment/bin/python"

cd "$packages"
shopt -s nullglob
# Some packages import their tests; these do not.
find . -regextype egrep -type d -regex './(networkx|numpy|onnx|pandas|pyarrow|scipy|sklearn|sympy|torch)/(.*/)?tests?' \
  -prune -exec rm -rf {} +
find . -path './apache_beam/*_test.py' -delete
# Only these have symbols to speak of; a library that was patched after it was linked may not survive `strip`.
find . -path './apache_beam/*.so' -o -path './fastavro/*.so' -o -path './zstandard/*.so' | xargs --no-run-if-empty strip
find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name 's3*' ! -name 'sso*' ! -name 'sts' ! -name 'signin' \
  -exec rm -rf {} +
rm -rf pyarrow/{include,src} pyarrow/*flight*
if [[ -d torch ]]; then
  find torch/bin -mindepth 1 ! -name torch_shm_manager -delete
fi
# Triton and torch compile with their headers where there is a GPU.
if [[ ! -d nvidia ]]; then
  rm -rf torch/include onnxruntime/capi/libonnxruntime_providers_{cuda,tensorrt}.so
fi
# Pods cannot write beside the sources. Anew, and checked by nothing, since copying from stage to stage changes times;
# some sources are for newer Pythons and fail.
"$environment/bin/python" -m compileall -f -qq --invalidation-mode unchecked-hash "$environment/lib" || true
