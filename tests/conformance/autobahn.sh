#!/usr/bin/env bash
# Autobahn|Testsuite, unported, against `tidegate gateway --echo`: RFC 6455 and RFC 7692 judged by somebody else's code.
#
#   tests/conformance/autobahn.sh [CASES]     CASES: "1.*" "7.1.5,7.7.*" … ; default: all 517,
#                                      some minutes on two cores (the 216 alone took 4, as two halves side by side),
#                                      nearly all of it for the 216 of sections 12 and 13 (compression)
#
# AUTOBAHN_BIN=PATH     binary to test; default: a release build of this tree
# AUTOBAHN_TARGET=URL   a server that already runs; nothing is built or started. Without it `unimplemented` fails as well:
#                       the gateway takes up every offer of compression that the suite makes
#
# The suite is Python 2 and pins its dependencies; its environment (74 MB) is made once under target/conformance.
# Prints one line with the counts and the failing cases; exit 0: none failed,
# 1: some failed or (our own server) were declined, 2: could not run.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
home=$here/target/conformance
cases=${1:-all}
server_pid=
suite_pid=

say() { printf '%s\n' "$*" >&2; }

die() {
  say "autobahn: $*"
  exit 2
}

# Ends what this script started, by its id, and nothing else.
end_children() {
  local pid
  for pid in $suite_pid $server_pid; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
}
trap end_children EXIT
trap 'exit 130' INT TERM

# Prints the path of a CPython 2.7 that runs.
find_python() {
  local candidate
  for candidate in "${PYTHON27:-}" python2.7 "$HOME"/.pyenv/versions/2.7.*/bin/python2.7 \
    /usr/local/bin/python2.7 /opt/python2.7/bin/python2.7; do
    [ -n "$candidate" ] || continue
    # A pyenv shim exists on the PATH but refuses unless its version is chosen; so each candidate is run, not looked up.
    if "$candidate" -c 'import sys, ssl, zlib; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  die "no CPython 2.7 with ssl and zlib. Install one with 'pyenv install 2.7.18' (needs a C compiler, make and the
headers of OpenSSL, zlib and libffi) or 'apt-get install python2.7' where the system still has it, then run this
again; a Python elsewhere is named by PYTHON27=/path/to/python2.7."
}

# Makes the suite's environment; the stamp is written last, so that a half-made one is made again.
prepare() {
  local python stamp=$home/py27/.ready-autobahntestsuite-25.10.1
  [ -e "$stamp" ] && return
  python=$(find_python) || exit 2
  say "autobahn: preparing $home/py27 with $python (once)"
  rm -rf "$home/py27" "$home/ve27"
  mkdir -p "$home"
  {
    "$python" -m pip install -q 'virtualenv<20.22' --target "$home/ve27" &&
      PYTHONPATH=$home/ve27 "$python" -m virtualenv -q "$home/py27" &&
      "$home/py27/bin/pip" install -q 'setuptools==44.0.0' 'wheel==0.36.2' &&
      # incremental before Twisted: later releases no longer build on Python 2.
      "$home/py27/bin/pip" install -q 'incremental==16.10.1' &&
      "$home/py27/bin/pip" install -q --no-build-isolation 'Twisted==19.10.0' 'zope.interface==4.6.0' &&
      "$home/py27/bin/pip" install -q --no-build-isolation 'autobahntestsuite==25.10.1'
  } >"$home/prepare.log" 2>&1 || die "preparing failed, see $home/prepare.log"
  touch "$stamp"
}

# Starts the gateway in its conformance profile and sets `url`. The suite sends messages of 16 MiB, 65,536 fragments
# a message and bursts of pings, all far above the production limits, which answer 1009 and 3504 there.
start_gateway() {
  local binary=${AUTOBAHN_BIN:-$here/target/release/tidegate} log=$home/gateway.log tries
  [ -n "${AUTOBAHN_BIN:-}" ] || (cd "$here" && cargo build --release --locked --quiet --bin tidegate)
  [ -x "$binary" ] || die "no binary at $binary"
  : >"$log"
  TIDEGATE_GATEWAY__LIMITS__MESSAGE_BYTES=16777216 \
    TIDEGATE_GATEWAY__LIMITS__FRAGMENTS=1048576 \
    TIDEGATE_GATEWAY__LIMITS__CONTROL_PER_S=1000000 \
    TIDEGATE_GATEWAY__PENDING__BYTES=67108864 \
    TIDEGATE_GATEWAY__PENDING__AGE_MS=60000 \
    "$binary" gateway --echo --listen 127.0.0.1:0 --backplane 127.0.0.1:0 --ops 127.0.0.1:0 >"$log" 2>&1 &
  server_pid=$!
  for ((tries = 0; tries < 100; tries++)); do
    url=$(sed -n 's|.*clients \(ws://[^ /]*/ws\).*|\1|p' "$log" | head -n 1)
    [ -n "$url" ] && return
    kill -0 "$server_pid" 2>/dev/null || die "the gateway ended at once: $(tail -n 5 "$log")"
    sleep 0.1
  done
  die "no start line 'clients ws://ADDR/ws' within 10 s, see $log"
}

# Writes the suite's specification, runs it and waits; its index appears only at the end.
run_suite() {
  local selected='"*"'
  [ "$cases" = all ] || selected="\"${cases//,/\",\"}\""
  rm -rf "$home/report"
  cat >"$home/fuzzingclient.json" <<JSON
{"outdir": "$home/report",
 "servers": [{"agent": "tidegate", "url": "$url", "options": {"version": 18}}],
 "cases": [$selected], "exclude-cases": [], "exclude-agent-cases": {}}
JSON
  (cd "$home" && exec py27/bin/wstest -m fuzzingclient -s fuzzingclient.json) >"$home/wstest.log" 2>&1 &
  suite_pid=$!
  wait "$suite_pid" || die "wstest failed, see $home/wstest.log"
  suite_pid=
  [ -s "$home/report/index.json" ] || die "wstest wrote no report, see $home/wstest.log"
}

# Counts verdicts. A case is as good as the worse of its behaviour and its closing; INFORMATIONAL judges nothing, and
# UNIMPLEMENTED says that an offer of compression was declined, which ours never does: there it is broken negotiation.
report() {
  "$home/py27/bin/python" - "$home/report/index.json" "$cases" "${AUTOBAHN_TARGET:-}" <<'PY'
import json, sys

index = json.load(open(sys.argv[1]))
counts = {"OK": 0, "NON-STRICT": 0, "INFORMATIONAL": 0, "UNIMPLEMENTED": 0}
failed = []
total = 0
for agent in index.values():
    for case, verdict in agent.items():
        total += 1
        both = (verdict["behavior"], verdict["behaviorClose"])
        bad = [v for v in both if v not in counts]
        if bad:
            failed.append((case, " / ".join(both)))
        elif both[0] == "OK" and both[1] == "NON-STRICT":
            counts["NON-STRICT"] += 1
        else:
            counts[both[0]] += 1
print("%d cases: %d ok, %d non-strict, %d informational, %d unimplemented, %d failed" % (
    total, counts["OK"], counts["NON-STRICT"], counts["INFORMATIONAL"], counts["UNIMPLEMENTED"], len(failed)))
for case, why in sorted(failed, key=lambda f: [int(n) for n in f[0].split(".")]):
    print("%s %s" % (case, why))
if total == 0 or (sys.argv[2] == "all" and total != 517):
    print("expected 517 cases, the suite ran %d" % total)
    sys.exit(1)
if counts["UNIMPLEMENTED"] and not sys.argv[3]:
    print("our own server declined compression in %d cases: its negotiation is broken" % counts["UNIMPLEMENTED"])
    sys.exit(1)
sys.exit(1 if failed else 0)
PY
}

mkdir -p "$home"
prepare
if [ -n "${AUTOBAHN_TARGET:-}" ]; then
  url=$AUTOBAHN_TARGET
else
  start_gateway
fi
run_suite
report
