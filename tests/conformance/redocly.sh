#!/usr/bin/env bash
# redocly's linter over the /openapi.json of `tidegate serve`: is it OpenAPI, do its examples fit its schemas, is all that it
# defines used? One warning is a failure. That the API does what the document says is schemathesis' affair.
#
#   tests/conformance/redocly.sh
#
# REDOCLY_BIN=PATH   binary to ask for its document; default: a debug build of this tree
#
# The linter (version below, 15 MB) is installed once by npm under .cache/redocly. Without node, npm or network there is none:
# the run is SKIPPED, which it says loudly, exit 0. Exit 0: no finding, or skipped; 1: findings; 2: could not run.
set -euo pipefail

version=2.77.0
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
home=$here/.cache/redocly
scratch=$(mktemp -d)
server_pid=
export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true

say() { printf 'redocly: %s\n' "$*" >&2; }

die() {
  say "$*"
  exit 2
}

skip() {
  say "SKIPPED, the OpenAPI document was NOT linted: $*"
  exit 0
}

# Ends what this script started, by its id, and nothing else.
end_children() {
  if [ -n "$server_pid" ]; then
    kill "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
  fi
  rm -rf "$scratch"
}
trap end_children EXIT
trap 'exit 130' INT TERM

# The stamp is written last, so that a half-made installation, or one of another version, is made again.
prepare() {
  [ "$(cat "$home/.ready" 2>/dev/null)" = "$version" ] && return
  command -v npm >/dev/null || skip "no npm (apt-get install npm)"
  say "preparing $home (once)"
  rm -rf "$home"
  mkdir -p "$home"
  npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$home" "@redocly/cli@$version" >"$scratch/npm.log" 2>&1 ||
    skip "npm could not install it: $(tail -n 1 "$scratch/npm.log")"
  printf '%s' "$version" >"$home/.ready"
}

# Asks a node on loopback for its document.
fetch() {
  local binary=${REDOCLY_BIN:-$here/target/debug/tidegate} log=$scratch/server.log api tries
  [ -n "${REDOCLY_BIN:-}" ] || (cd "$here" && "${CARGO:-cargo}" build --locked --quiet --bin tidegate)
  [ -x "$binary" ] || die "no binary at $binary"
  : >"$log"
  "$binary" serve --listen 127.0.0.1:0 --api 127.0.0.1:0 >"$log" 2>&1 &
  server_pid=$!
  for ((tries = 0; tries < 100; tries++)); do
    api=$(grep -oE 'http://127[^ /]*' "$log" | head -n 1 || true)
    [ -z "$api" ] || break
    kill -0 "$server_pid" 2>/dev/null || die "the server ended at once: $(tail -n 5 "$log")"
    sleep 0.1
  done
  [ -n "$api" ] || die "the server names no address: $(tail -n 5 "$log")"
  node -e 'fetch(process.argv[1]).then((a) => a.text()).then((t) => require("fs").writeFileSync(process.argv[2], t))' \
    "$api/openapi.json" "$scratch/openapi.json" || die "no document at $api/openapi.json"
}

prepare
fetch
cd "$scratch"
"$home/node_modules/.bin/redocly" lint openapi.json --format=json --max-problems=1000 >report.json 2>lint.log ||
  [ -s report.json ] || die "the linter failed: $(tail -n 5 lint.log)"
# shellcheck disable=SC2016 # what stands in the quotes is JavaScript
node -e '
  const { totals, problems } = JSON.parse(require("fs").readFileSync("report.json", "utf8"));
  for (const p of problems) console.error(`${p.severity} ${p.ruleId} at ${p.location?.[0]?.pointer}: ${p.message}`);
  console.error(`redocly: ${totals.errors} errors, ${totals.warnings} warnings`);
  process.exit(totals.errors + totals.warnings > 0 ? 1 : 0);
'
