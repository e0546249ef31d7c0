#!/usr/bin/env bash
# The page in a real browser, three ways. chat.mjs: people join a room, chat, see an image and who comes and goes, ask an
# agent. manners.mjs: what the page says and where the focus stays, with keys, with tokens, behind nginx with TLS. looks.mjs:
# all of these at 390, 820 and 1,280 px, light and dark: nothing sticks out, nothing is cut, and axe finds nothing.
#
#   tests/conformance/page.sh [--shots DIR]     with --shots, a picture of each page there
#
# PAGE_BIN=PATH       binary to test; default: a debug build of this tree
# CHROMIUM=PATH       browser; default: chromium, chromium-browser or google-chrome, whichever there is
#
# Needs node 18 or later, a Chromium, nginx, openssl, and axe-core from npm (version pinned below, under .cache/page). What is
# not there is installed where that is possible (apt-get as root, npm). What cannot be is SKIPPED, which it says loudly, exit 0.
# Exit 0: all steps passed, or skipped; 1: one failed; 2: could not run.
set -euo pipefail

axe_version=4.14.1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
home=$here/.cache/page
scratch=$(mktemp -d)
shots=
children=()
export PATH=$PATH:/usr/sbin:/usr/local/sbin

say() { printf '%s\n' "$*" >&2; }

die() {
  say "page: $*"
  exit 2
}

skip() {
  say "page: SKIPPED, the page was NOT looked at: $*"
  exit 0
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
  return 1
}

install_browser() {
  ((EUID == 0)) && command -v apt-get >/dev/null || return 1
  say "page: installing chromium"
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1
}

# Sets `axe` to the script of axe-core, or to nothing.
find_axe() {
  axe=$home/node_modules/axe-core/axe.min.js
  if ! grep -qs "\"version\": \"$axe_version\"" "$home/node_modules/axe-core/package.json"; then
    mkdir -p "$home"
    npm install --silent --no-audit --no-fund --no-save --prefix "$home" "axe-core@$axe_version" >/dev/null 2>&1 || true
  fi
  [ -f "$axe" ] && return
  say "page: SKIPPED axe: axe-core $axe_version cannot be installed (npm, a network)"
  axe=
}

# Waits until a log has what matches and prints it.
wait_for() {
  local pattern=$1 log=$2 tries found
  for ((tries = 0; tries < 300; tries++)); do
    found=$(grep -oE "$pattern" "$log" | head -n 1 || true)
    if [ -n "$found" ]; then
      printf '%s\n' "$found"
      return
    fi
    sleep 0.1
  done
  die "no '$pattern' within 30 s in: $(tail -n 5 "$log")"
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
  : >"$log"
  "$binary" serve --listen 127.0.0.1:0 --api 127.0.0.1:0 --set 'gateway.presence.rooms=["tea"]' \
    --set gateway.presence.interval_ms=100 "$@" >"$log" 2>&1 &
  children+=($!)
  page="$(wait_for 'http://127[^ /]*' "$log")/" || exit 2
}

# Writes the configurations and mints what opens them: `key` and `token`.
make_keys() {
  key=$(od -An -tx1 -N24 /dev/urandom | tr -d ' \n')
  cat >"$scratch/keys.toml" <<TOML
[[logic.keys]]
id = "page"
sha256 = "$(printf %s "$key" | sha256sum | cut -d ' ' -f 1)"
scopes = ["push", "read"]
TOML
  cat >"$scratch/tokens.toml" <<TOML
[gateway.auth]
mode = "jwt"
deadline_ms = 3000
[[gateway.auth.keys]]
algorithm = "HS256"
secret = "$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')"
TOML
  token=$("$binary" token mint --config "$scratch/tokens.toml" --sub alice --rooms 'tea*' --speak tea) || die "cannot mint a token"
}

# A port that is free now.
free_port() {
  node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })'
}

# deploy/nginx.conf with a certificate and the page under the same name; sets `proxied`. Nothing where there is no nginx.
start_proxied() {
  local port clients api conf=$scratch/nginx.conf
  proxied=
  command -v nginx >/dev/null || "$here/deploy/install" || true
  if ! command -v nginx >/dev/null || ! command -v openssl >/dev/null; then
    say "page: SKIPPED behind nginx: nginx or openssl is not installed (deploy/install)"
    return
  fi
  port=$(free_port)
  start proxied --demo --set 'gateway.proxy.trusted=["127.0.0.1"]' --set gateway.proxy.forwarded=true \
    --set "gateway.allowed_origins=[\"https://localhost:$port\"]"
  clients=$(wait_for 'ws://[^ /]*' "$scratch/proxied.log")
  api=${page#http://}
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
    -keyout "$scratch/key.pem" -out "$scratch/cert.pem" 2>/dev/null
  sed -e "s|server 10.0.0.5:8000|server ${clients#ws://}|" -e '/server 10.0.0.6:8000/d' -e "s|10.0.0.7:8001|${api%/}|" \
    -e "s|listen 0.0.0.0:8080;|listen 127.0.0.1:$port ssl;|" -e "s|# ssl_certificate .*|ssl_certificate $scratch/cert.pem;|" \
    -e "s|# ssl_certificate_key .*|ssl_certificate_key $scratch/key.pem;|" -e "s|127.0.0.1:8081|unix:$scratch/api|" \
    -e '/location \/ {/,/}/{/return 404;/d; s|# proxy_|proxy_|}' -e 's|262144|4096|; s|65536;|512;|; s|worker_processes auto|worker_processes 1|' \
    -e "s|^http {|http {\nclient_body_temp_path $scratch/a; proxy_temp_path $scratch/b; fastcgi_temp_path $scratch/c; uwsgi_temp_path $scratch/d; scgi_temp_path $scratch/e;|" \
    "$here/deploy/nginx.conf" >"$conf"
  nginx -c "$conf" -e stderr -g "daemon off; master_process off; pid $scratch/pid;" 2>"$scratch/nginx.log" &
  children+=($!)
  proxied=https://localhost:$port/
  local tries
  for ((tries = 0; tries < 100; tries++)); do
    if node -e "fetch('$proxied').then(() => process.exit(0), () => process.exit(1))" 2>/dev/null; then return; fi
    kill -0 "${children[-1]}" 2>/dev/null || die "nginx ended: $(tail -n 5 "$scratch/nginx.log")"
    sleep 0.1
  done
  die "nginx does not answer: $(tail -n 5 "$scratch/nginx.log")"
}

while (($#)); do
  case $1 in
  --shots)
    shots=${2:?--shots DIR}
    mkdir -p "$shots"
    shift
    ;;
  -h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
  *) die "unknown option $1 (--help)" ;;
  esac
  shift
done

command -v node >/dev/null || skip "no node (apt-get install nodejs)"
browser=$(find_browser) || { install_browser && browser=$(find_browser); } ||
  skip "no Chromium (apt-get install chromium, or name one by CHROMIUM=)"
find_axe
find_binary
make_keys
start plain
plain=$page
start demo --demo
demo=$page
start keys --config "$scratch/keys.toml"
keys=$page
start tokens --config "$scratch/tokens.toml"
tokens=$page
start lost --set logic.page.ws_url=ws://127.0.0.1:1/ws
lost=$page
tokens_gateway=$(wait_for 'ws://[^ ,]*' "$scratch/tokens.log")
export NODE_TLS_REJECT_UNAUTHORIZED=0 NODE_NO_WARNINGS=1
start_proxied
cat >"$scratch/stands.json" <<JSON
{"browser": "$browser", "profile": "$scratch/profile", "axe": "$axe", "shots": "$shots", "key": "$key", "token": "$token",
 "plain": "$plain", "demo": "$demo", "keys": "$keys", "tokens": "$tokens", "lost": "$lost", "tokens_gateway": "$tokens_gateway",
 "proxied": "$proxied"}
JSON
failed=0
for part in chat manners looks; do
  node "$here/tests/conformance/page/$part.mjs" "$scratch/stands.json" || failed=1
done
((failed == 0))
