#!/usr/bin/env bash
# Makes a base image with Python 3.11 from Debian's packages, where no container registry is reachable: base.sh NAME
#
# Needs root, buildah and debootstrap. DEBIAN_MIRROR names another mirror.
set -euo pipefail
name=$1
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT

# debootstrap does not look for python3-distutils by itself.
debootstrap --variant=minbase --include=ca-certificates,python3.11,python3.11-venv,python3-distutils \
  bookworm "$tree" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >/dev/null
rm -rf "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/* "$tree"/var/log/* "$tree"/usr/share/{doc,info,locale,man}

container=$(buildah from scratch)
buildah add --quiet "$container" "$tree" / >/dev/null
buildah commit --quiet --rm "$container" "$name" >/dev/null
