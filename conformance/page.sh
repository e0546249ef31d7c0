#!/usr/bin/env bash
# The page in a real browser: people name themselves, join a room, chat in it and with one another, see an image and who
# comes and goes, ask an agent; and, at a gateway that wants tokens, are asked for one. Headless Chromium, driven by
# conformance/page/chat.mjs over its own protocol.
#
#   conformance/page.sh
#
# PAGE_BIN=PATH       binary to test; default: a debug build of this tree
# CHROMIUM=PATH       browser; default: chromium, chromium-browser or google-chrome, whichever there is
# SHOTS=DIR           keep a picture of each page there
#
# Needs node 18 or later and a Chromium; no packages. Exit 0: all steps passed; 1: one failed; 2: could not run.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scratch=$(mktemp -d)
children=()

die() {
  printf 'page: %s\n' "$*" >&2
  exit 2
}

# Ends what this script started, by its id, and nothing else.
end_children() {
  local pid
  for pid in "${children[@]}"; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$scratch"
}
trap end_children EXIT
trap 'exit 130' INT TERM

find_browser() {
  local candidate
  for candidate in ${CHROMIUM:-} chromium chromium-browser google-chrome; do
    command -v "$candidate" && return
  done
  die "no Chromium (apt-get install chromium, or name one by CHROMIUM=)"
}

# Waits until a log has what matches and prints it.
wait_for() {
  local pattern=$1 log=$2 tries found
  for ((tries = 0; tries < 100; tries++)); do
    found=$(grep -oE "$pattern" "$log" | head -n 1 || true)
    if [ -n "$found" ]; then
      printf '%s\n' "$found"
      return
    fi
    sleep 0.1
  done
  die "no '$pattern' within 10 s in: $(tail -n 5 "$log")"
}

# The binary to test.
find_binary() {
  binary=${PAGE_BIN:-$here/target/debug/tidegate}
  [ -n "${PAGE_BIN:-}" ] || (cd "$here" && "${CARGO:-cargo}" build --locked --quiet --bin tidegate)
  [ -x "$binary" ] || die "no binary at $binary"
}

# start NAME OPTION…: starts a node and sets `page` to where its page is.
start() {
  local log=$scratch/$1.log
  shift
  "$binary" serve --listen 127.0.0.1:0 --api 127.0.0.1:0 --set 'gateway.presence.rooms=["tea"]' \
    --set gateway.presence.interval_ms=100 "$@" >"$log" 2>&1 &
  children+=($!)
  page="$(wait_for 'http://127[^ /]*' "$log")/" || exit 2
}

command -v node >/dev/null || die "no node (apt-get install nodejs)"
browser=$(find_browser) || exit 2
find_binary
start open
open=$page
cat >"$scratch/tokens.toml" <<TOML
[gateway.auth]
mode = "jwt"
deadline_ms = 500
[[gateway.auth.keys]]
algorithm = "HS256"
secret = "$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')"
TOML
start tokens --config "$scratch/tokens.toml"
token=$("$binary" token mint --config "$scratch/tokens.toml" --sub alice --rooms 'tea*' --speak tea) || die "cannot mint a token"
node "$here/conformance/page/chat.mjs" "$browser" "$scratch/profile" "$open" "$page" "$token"
