#!/bin/sh
# Put a device back to what left the factory. Its agent must not run meanwhile; cut off, it may be run again.
#
#   factory-reset.sh HOME FACTORY VERSION
#
# What stays is who the device is, how it reaches its fleet, its floors, and the number of its last session. Without the
# floors it would believe old metadata and run old software again; without the number its reports would be replays.
set -eu
fail() { echo "factory-reset: $2" >&2; exit "$1"; }

[ $# -eq 3 ] || fail 2 "expected HOME FACTORY VERSION"
[ -f "$1/device.toml" ] || fail 3 "$1: no device here; name the folder of device.toml"
[ -e "$2" ] || fail 3 "$2: not there; name what the factory installed"
command -v flagship-device >/dev/null || fail 3 "flagship-device is not on the PATH"
if flagship-device status --home "$1" >/dev/null 2>&1; then fail 5 "$1: its agent runs; stop it first"; fi

rm -rf "$1/current" "$1/releases" "$1/staging" "$1/trust" "$1/run" "$1/approvals"
find "$1/state" -type f ! -name floors-a.json ! -name floors-b.json ! -name session ! -name lock -exec rm -f {} +
flagship-device enrol --home "$1" --installed "$2" --version "$3" >/dev/null
