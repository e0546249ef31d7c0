#!/usr/bin/env bash
# Holds what one delivery costs in user-space instructions to bench/baselines/walk.json, within 10 % either way.
# Instructions, not time: the machine may be busy. The difference of two runs of gateway/examples/walk.rs, so that neither
# the start nor the handshakes count. `--write` makes what it finds the new baseline, to be committed with its reason.
set -euo pipefail
cd "$(dirname "$0")/.."

BASELINE=bench/baselines/walk.json
BAND_PERCENT=10
FEW=20
MANY=120

if ! command -v valgrind >/dev/null; then
	echo "instructions per delivery NOT checked: valgrind is not installed (apt-get install valgrind)"
	exit 0
fi

# The cryptography is no part of a delivery, and half of the time this would take from nothing.
"${CARGO:-cargo}" build --release --locked --package tidegate-gateway --example walk \
	--config "profile.release.package.aws-lc-sys.opt-level=0" --config "profile.release.debug=0"
walk=${CARGO_TARGET_DIR:-target}/release/examples/walk
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Instructions of a run with $1 pushes; its deliveries go to $scratch/$1.deliveries.
instructions() {
	valgrind --quiet --tool=callgrind --callgrind-out-file="$scratch/$1.callgrind" "$walk" "$1" \
		>"$scratch/$1.deliveries" 2>"$scratch/$1.log" || { cat "$scratch/$1.log" >&2; return 1; }
	sed -n 's/^totals: //p' "$scratch/$1.callgrind"
}

few=$(instructions $FEW)
many=$(instructions $MANY)
deliveries=$(($(cat "$scratch/$MANY.deliveries") - $(cat "$scratch/$FEW.deliveries")))
found=$(((many - few) / deliveries))

if [ "${1-}" = --write ]; then
	cat >"$BASELINE" <<-END
		{
		  "instructions_per_delivery": $found,
		  "connections": 1000,
		  "pushes": $((MANY - FEW)),
		  "message_bytes": 100,
		  "machine": "$(uname -m)",
		  "rustc": "$(rustc --version)",
		  "valgrind": "$(valgrind --version)"
		}
	END
	echo "$BASELINE: $found instructions per delivery"
	exit 0
fi

baseline=$(sed -n 's/.*"instructions_per_delivery": \([0-9]*\).*/\1/p' "$BASELINE")
machine=$(sed -n 's/.*"machine": "\([^"]*\)".*/\1/p' "$BASELINE")
if [ "$machine" != "$(uname -m)" ]; then
	echo "instructions per delivery NOT checked: the baseline is of $machine, this is $(uname -m); found $found"
	exit 0
fi
echo "instructions per delivery: $found, baseline $baseline, band ±$BAND_PERCENT %"
if [ $((found * 100)) -gt $((baseline * (100 + BAND_PERCENT))) ]; then
	echo "a delivery has become dearer: find out why, or commit a new baseline with the reason (bench/guard.sh --write)" >&2
	exit 1
fi
if [ $((found * 100)) -lt $((baseline * (100 - BAND_PERCENT))) ]; then
	echo "a delivery has become cheaper: commit the new baseline, so that it stays so (bench/guard.sh --write)" >&2
	exit 1
fi
