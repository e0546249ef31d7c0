#!/usr/bin/env bash
# What is too long for `make test`: Autobahn, the page in a browser, the API against its own document, tests of clients'
# behaviour behind nginx and HAProxy, the developers' documentation, and the instructions of a delivery (the guard, which builds
# for release).
# Installs what that needs where it can (root and apt-get; pyenv for Python 2).
#
#   tests/conformance/verify.sh [STEP…]      autobahn, page, openapi, proxied, doc, guard; default: all
#
# EXAMPLES=N            test cases of each operation of the API (default 100)
# LOGS=DIR              where each step's output goes as well (default: target/verify)
#
# What cannot be installed is SKIPPED, and said so at the end too. Exit 0: nothing failed; 1: something did.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

logs=${LOGS:-target/verify}
steps=("$@")
((${#steps[@]})) || steps=(autobahn page openapi proxied doc guard)
# Every test that looks at what clients and services see, and at no socket.
behind_proxies="push chat authorization rooms fleet gopush compat presence agents tokens"
verdicts=()
failed=0

say() { printf '%s\n' "$*"; }

# install PACKAGE…: Debian packages, for root. Says why not.
install() {
  if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
    say "not installed: $* (that takes root and apt-get)"
    return 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; } >/dev/null 2>&1 ||
    { say "not installed: $* (apt-get failed)"; return 1; }
}

has() { PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" >/dev/null; }

# Whether there is a CPython 2.7, where autobahn.sh looks for one.
has_python2() {
  local candidate
  for candidate in "${PYTHON27:-}" python2.7 "$HOME"/.pyenv/versions/2.7.*/bin/python2.7 /usr/local/bin/python2.7; do
    [ -n "$candidate" ] && "$candidate" -c 'import ssl, zlib' 2>/dev/null && return
  done
  return 1
}

# What a step needs; fails where it cannot be had.
prepare() {
  case $1 in
    autobahn)
      has_python2 || install python2.7 ||
        { has pyenv && say "building Python 2.7.18" && pyenv install --skip-existing 2.7.18 >/dev/null 2>&1; } ||
        { say "no CPython 2.7 to be had"; return 1; }
      ;;
    page)
      has node || install nodejs || return 1
      [ -n "${CHROMIUM:-}" ] || has chromium || has chromium-browser || has google-chrome || install chromium
      ;;
    openapi) has python3 || install python3-venv ;;
    proxied) deploy/install ;;
    guard) has valgrind || install valgrind ;;
  esac
}

step() {
  case $1 in
    autobahn) tests/conformance/autobahn.sh ;;
    page) tests/conformance/page.sh ;;
    openapi) EXAMPLES=${EXAMPLES:-100} make --no-print-directory openapi ;;
    proxied) make --no-print-directory test-proxied PROXIED="$behind_proxies" ;;
    doc) make --no-print-directory doc ;;
    guard) bench/guard.sh ;;
  esac
}

mkdir -p "$logs"
for name in "${steps[@]}"; do
  case $name in autobahn | page | openapi | proxied | doc | guard) ;; *) say "unknown step $name; see the head of $0"; exit 1 ;; esac
  say "== $name"
  log=$logs/$name.log
  began=$SECONDS
  if ! prepare "$name" 2>&1 | tee "$log"; then
    verdict="SKIPPED, NOT checked: $(tail -n 1 "$log")"
  elif ! step "$name" 2>&1 | tee "$log"; then
    verdict="FAILED, see $log"
    failed=1
  elif grep -q 'SKIPPED\|NOT checked' "$log"; then
    # The scripts themselves say what they could not do.
    verdict="SKIPPED in part or whole: $(grep -m 1 'SKIPPED\|NOT checked' "$log")"
  else
    verdict="passed"
  fi
  verdicts+=("$(printf '%-9s %5d s  %s' "$name" $((SECONDS - began)) "$verdict")")
done

say "== verify"
printf '%s\n' "${verdicts[@]}"
exit "$failed"
