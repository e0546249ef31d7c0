#!/usr/bin/env bash
# schemathesis against `tidegate serve` and its /openapi.json: does the API do what its document says, and nothing else?
#
#   tests/conformance/schemathesis.sh [OPTION…]     with options, which go to `schemathesis run` (such as --include-path /v1/push
#                                             or --phases fuzzing), one run; without, three: the calls that push and all
#                                             others side by side, then sequences of calls
#
# EXAMPLES=N            test cases of each operation in the fuzzing phase (default 10; 1000 is thorough)
# SEED=N                what is random follows from it (default 1: the same run each time)
# SCHEMATHESIS_BIN=PATH binary to test; default: a debug build of this tree
#
# Every check of schemathesis is on: status codes, media types, headers, schemas, acceptance of what is valid, refusal of
# what is not, keys, methods. What it cannot know from the document, and why, is in tests/conformance/openapi.
# Its environment (Python 3.10 or later, versions pinned in tests/conformance/openapi/requirements.txt, 150 MB) is made once
# under .cache/schemathesis. Without Python, venv or network there is none: the run is SKIPPED, which it says loudly, exit 0.
# Exit 0: no failure, or skipped; 1: failures; 2: could not run.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
home=$here/.cache/schemathesis
profile=$here/tests/conformance/openapi
scratch=$(mktemp -d)
server_pid=
swarm_pid=
part_pids=()

say() { printf '%s\n' "$*" >&2; }

die() {
  say "schemathesis: $*"
  exit 2
}

skip() {
  say "schemathesis: SKIPPED, the API was NOT checked against its document: $*"
  exit 0
}

# Ends what this script started, by its id, and nothing else.
end_children() {
  local pid
  for pid in "${part_pids[@]}" $swarm_pid $server_pid; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$scratch"
}
trap end_children EXIT
trap 'exit 130' INT TERM

# Makes the environment; the stamp is written last, so that a half-made one, or one of other versions, is made again.
prepare() {
  local stamp=$home/.ready python=${PYTHON:-python3}
  cmp -s "$profile/requirements.txt" "$stamp" && return
  command -v "$python" >/dev/null || skip "no python3 (apt-get install python3-venv, or name one by PYTHON=)"
  "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
    skip "$python is older than 3.10 or has no venv (apt-get install python3-venv)"
  say "schemathesis: preparing $home (once)"
  rm -rf "$home"
  mkdir -p "$home"
  { "$python" -m venv "$home" && "$home/bin/pip" install -q --disable-pip-version-check -r "$profile/requirements.txt"; } \
    >"$scratch/prepare.log" 2>&1 || skip "pip could not install it: $(tail -n 1 "$scratch/prepare.log")"
  cp "$profile/requirements.txt" "$stamp"
}

# Waits for a line of the server's and prints what matches in it.
wait_for() {
  local pattern=$1 log=$2 tries found
  for ((tries = 0; tries < 100; tries++)); do
    found=$(grep -oE "$pattern" "$log" | head -n 1 || true)
    if [ -n "$found" ]; then
      printf '%s\n' "$found"
      return
    fi
    kill -0 "$server_pid" 2>/dev/null || die "the server ended at once: $(tail -n 5 "$log")"
    sleep 0.1
  done
  die "no '$pattern' within 10 s in: $(tail -n 5 "$log")"
}

# Starts a node with one key that may do everything, and ten clients so that lists have rows.
start_server() {
  local binary=${SCHEMATHESIS_BIN:-$here/target/debug/tidegate} log=$scratch/server.log
  [ -n "${SCHEMATHESIS_BIN:-}" ] || (cd "$here" && "${CARGO:-cargo}" build --locked --quiet --bin tidegate)
  [ -x "$binary" ] || die "no binary at $binary"
  SCHEMATHESIS_KEY=$(od -An -tx1 -N16 /dev/urandom | tr -d ' \n')
  export SCHEMATHESIS_KEY
  cat "$profile/tidegate.toml" - >"$scratch/tidegate.toml" <<TOML
[[logic.keys]]
id = "schemathesis"
sha256 = "$(printf %s "$SCHEMATHESIS_KEY" | sha256sum | cut -d ' ' -f 1)"
scopes = ["push", "read", "admin"]
TOML
  : >"$log"
  "$binary" serve --config "$scratch/tidegate.toml" --listen 127.0.0.1:0 --api 127.0.0.1:0 >"$log" 2>&1 &
  server_pid=$!
  api=$(wait_for 'http://127[^ /]*' "$log") || exit 2
  "$binary" bench swarm --url "$(wait_for 'ws://127[^ ,]*' "$log")" --connections 10 --rooms lobby \
    --user-pattern 'user-{i%5}' --platform web --hold 3600s >"$scratch/swarm.log" 2>&1 &
  swarm_pid=$!
}

run() {
  "$home/bin/schemathesis" run "$api/openapi.json" --no-color --seed "${SEED:-1}" --generation-database none \
    --max-examples "${EXAMPLES:-10}" "$@"
}

# Python uses one core, so two halves take half the time; the calls that push have the largest schemas.
run_all() {
  local part status=0
  run --include-path-regex '^/v1/push' --phases examples,coverage,fuzzing >"$scratch/0.log" 2>&1 &
  part_pids+=($!)
  run --exclude-path-regex '^/v1/push' --phases examples,coverage,fuzzing >"$scratch/1.log" 2>&1 &
  part_pids+=($!)
  for part in 0 1; do
    wait "${part_pids[part]}" || status=1
    cat "$scratch/$part.log"
  done
  part_pids=()
  run --phases stateful || status=1
  return "$status"
}

prepare
start_server
cd "$profile"
status=0
if [ $# -gt 0 ]; then run "$@" || status=1; else run_all || status=1; fi
kill -0 "$server_pid" 2>/dev/null || die "the server did not live through it"
[ "$status" -eq 0 ]
