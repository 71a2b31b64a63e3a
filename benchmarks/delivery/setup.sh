#!/bin/sh
# Installs the peers of the delivery benchmark: programs through apt, gooseBit into a virtual environment of its own.
# Usage: benchmarks/delivery/setup.sh [FOLDER]; FOLDER keeps the environment and downloaded packages between runs.
set -eu

CACHE=${1:-${FLAGSHIP_BENCH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flagship-bench}}
GOOSEBIT=0.2.12
PROGRAMS='nginx xdelta3 casync cpio zstd curl mkfs.ext4 openssl mosquitto'
PACKAGES='nginx-light xdelta3 casync cpio zstd curl e2fsprogs openssl mosquitto'

PATH=$PATH:/usr/sbin:/sbin
SUDO=$([ "$(id -u)" = 0 ] || echo sudo)
missing=
for program in $PROGRAMS; do
  command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
if [ -n "$missing" ]; then
  echo "set-up: installing$missing"
  $SUDO env DEBIAN_FRONTEND=noninteractive apt-get update -q >/dev/null
  # The services of these packages are not wanted: the benchmark starts its own.
  # shellcheck disable=SC2086
  $SUDO env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -q -y --no-install-recommends $PACKAGES >/dev/null
fi

mkdir -p "$CACHE"
if [ ! -x "$CACHE/goosebit/bin/aerich" ]; then
  echo "set-up: installing gooseBit $GOOSEBIT"
  rm -rf "$CACHE/goosebit"
  python3 -m venv "$CACHE/goosebit"
  "$CACHE/goosebit/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "goosebit==$GOOSEBIT"
fi
