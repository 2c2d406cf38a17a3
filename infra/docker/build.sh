#!/usr/bin/env bash
# Builds images, checks what they import and prints their sizes: infra/docker/build.sh [beam] [train] [serve]
#
# With docker or, where there is none, buildah. Settings, as variables:
#   BUILDER=docker|buildah   PREFIX=afterclick, of names   VERSION=0.1.0, their tag   SOURCE=URL, a label
#   BASE=IMAGE with Python 3.11 and apt; where buildah can pull none, one is made of Debian's packages
#   LOCK=gpu.lock or cpu.lock, of train   TORCH_CPU_INDEX=URL of CPU builds of torch   WHEELS=FOLDER beside pip's index
#   CERTIFICATES=FILE, of whom pip trusts   PIP_CONF=FILE, pip's settings; neither is kept in an image
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILDER=${BUILDER:-$(docker info >/dev/null 2>&1 && echo docker || echo buildah)}
PREFIX=${PREFIX:-afterclick}
VERSION=${VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)}
LOCK=${LOCK:-gpu.lock}
WHEELS=${WHEELS:-${PIP_FIND_LINKS:-}}
CERTIFICATES=${CERTIFICATES:-${SSL_CERT_FILE:-}}
PIP_CONF=${PIP_CONF:-${PIP_CONFIG_FILE:-}}
BASE=${BASE:-docker.io/library/python:3.11-slim-bookworm}

arguments=(--build-arg "VERSION=$VERSION" --build-arg "SOURCE=${SOURCE:-unknown}"
  --build-arg "REVISION=$(git rev-parse HEAD)$(git diff --quiet HEAD || echo -dirty)"
  ${WHEELS:+--build-context "wheels=$WHEELS"} ${PIP_CONF:+--secret "id=pip,src=$PIP_CONF"}
  ${CERTIFICATES:+--secret "id=certificates,src=$CERTIFICATES"})

if [[ $BUILDER == buildah ]]; then
  # Chroots need neither a daemon nor user namespaces.
  isolation=(--isolation chroot --network host)
  own_base=localhost/afterclick-base:bookworm
  if ! buildah pull --quiet --policy ifmissing "$BASE" >/dev/null 2>&1; then
    echo "no $BASE here: making $own_base"
    BASE=$own_base
    buildah pull --quiet --policy never "$BASE" >/dev/null 2>&1 || infra/docker/base.sh "$BASE"
  fi
fi

build() {
  if [[ $BUILDER == docker ]]; then
    docker build --quiet "$@" . >/dev/null
  else
    buildah bud --quiet "${isolation[@]}" "$@" . >/dev/null
  fi
}

# in_image IMAGE PROGRAM [ARGUMENT...]
in_image() {
  if [[ $BUILDER == docker ]]; then
    docker run --rm --interactive --user 0 --entrypoint "$2" "$1" "${@:3}"
    return
  fi
  local container
  container=$(buildah from --pull-never "$1")
  buildah run "${isolation[@]}" --user 0 "$container" -- "${@:2}" || { buildah rm "$container" >/dev/null; return 1; }
  buildah rm "$container" >/dev/null
}

mkdir -p build/images
[[ $# -gt 0 ]] || set -- beam train serve
for name; do
  case $name in
    beam) absent=torch,triton,nvidia modules="components.schedule.run components.make_logs.run components.join.run components.collect_edges.run
      data_validation.run pipelines.work pipelines.deploy cli.main data_validation.logs.data_docs data_validation.logs.expectations great_expectations
      data_validation.examples.statistics_page kfp.dsl.executor_main" ;;
    train) absent=pip modules="pipelines.work pipelines.train_jobs components.train.run components.evaluate.run components.gate.run components.export.run
      components.publish.run components.serve.run components.report.run components.pretrain.run components.tables.lazy_adam kfp.dsl.executor_main" ;;
    serve) absent=torch,triton,nvidia,apache_beam modules="components.serve.protocol components.serve.ranker_server
      components.serve.embedding_server components.serve.rollout cli.serve" ;;
    *) echo "error: no image $name; there are beam, train and serve" >&2; exit 2 ;;
  esac
  tag=$PREFIX/$name:$VERSION
  label=$name
  if [[ $name == train ]]; then
    build_arguments=(--build-arg "LOCK=$LOCK" --build-arg "TORCH_CPU_INDEX=${TORCH_CPU_INDEX:-}")
    label=train_${LOCK%.lock}
  else
    build_arguments=()
  fi
  begun=$SECONDS
  build --file "infra/docker/$name.Dockerfile" --tag "$tag" --build-arg "BASE=$BASE" "${arguments[@]}" "${build_arguments[@]}"
  echo "image.${label}_seconds: $((SECONDS - begun))"
  # shellcheck disable=SC2086
  checked=$(in_image "$tag" python - "$absent" s3fs gcsfs $modules <infra/docker/check_imports.py)
  echo "image.${label}_imports: $checked"
  size=$(in_image "$tag" du -sxm / 2>/dev/null)
  echo "image.${label}_mb: ${size%%[!0-9]*}"
  in_image "$tag" cat /opt/afterclick/sbom.cdx.json >"build/images/$label.cdx.json"
done
