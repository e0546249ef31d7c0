#!/usr/bin/env bash
# All tests many times in a row while every core is kept busy by other work: a test that fails now and then fails here.
#
#   tests/flaky.sh [RUNS]      default: 10
#
# LOGS=DIR              where each run's output goes (default: target/flaky); that of a run that failed is named
# FLAKY_TESTS="…"       arguments of `cargo test` instead of --workspace, such as "--package tidegate-gateway --test hook"
#
# The other work is one loop a core, of this script's own, ended by its id. It runs at the tests' own priority, so that a
# test gets about half of a core. Everything is built first, without it.
# Prints a line for each run and the names of what failed; at the end "10 of 10". Exit 0: all runs passed; 1: not all;
# 2: the tests could not be built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

runs=${1:-10}
cargo=${CARGO:-cargo}
logs=${LOGS:-target/flaky}
read -ra tests <<<"${FLAKY_TESTS:---workspace}"
cores=$(nproc)
loops=()

say() { printf '%s\n' "$*"; }

# Ends the other work, by the ids of its processes.
end_loops() {
  local pid
  for pid in "${loops[@]}"; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  loops=()
}
trap end_loops EXIT
trap 'exit 130' INT TERM HUP

# One core's other work. It ends by itself when this script is gone, also if that was killed.
keep_busy() {
  local script=$1 turn
  while kill -0 "$script" 2>/dev/null; do
    for ((turn = 0; turn < 1000000; turn++)); do :; done
  done
}

# Names what failed in a log of cargo's: the tests of each binary, and binaries that ended in another way (a panic aborts).
failures() {
  awk '
    { gsub(/\r|\033\[[0-9;]*m/, "") }
    $1 == "Running" { binary = $0; sub(/^ *Running /, "", binary); sub(/ \(.*$/, "", binary) }
    $1 == "Doc-tests" { binary = "doc-tests of " $2 }
    /^test .* \.\.\. FAILED/ { sub(/^test /, ""); sub(/ \.\.\. FAILED.*/, ""); print "    " binary "::" $0 }
    /\(signal: / { print "    " binary " was ended: " $0 }
    /^error(\[|:)/ && !/test failed|target.* failed/ { print "    " $0 }
  ' "$1" | sort -u
}

mkdir -p "$logs"
say "building"
"$cargo" test --locked --quiet --no-run "${tests[@]}" || exit 2

passed=0
for ((core = 0; core < cores; core++)); do
  keep_busy $$ &
  loops+=($!)
done
say "$runs runs of: cargo test ${tests[*]}, beside $cores busy loops; logs in $logs"
for ((run = 1; run <= runs; run++)); do
  log=$logs/$run.log
  began=$SECONDS
  if "$cargo" test --locked --no-fail-fast "${tests[@]}" >"$log" 2>&1; then
    passed=$((passed + 1))
    say "run $run of $runs: passed in $((SECONDS - began)) s"
  else
    say "run $run of $runs: FAILED in $((SECONDS - began)) s, see $log"
    failures "$log"
  fi
done
end_loops

if ((passed < runs)); then
  say "what failed, and in how many of $runs runs:"
  for ((run = 1; run <= runs; run++)); do failures "$logs/$run.log"; done | sort | uniq -c | sort -rn
fi
say "$passed of $runs"
((passed == runs))
