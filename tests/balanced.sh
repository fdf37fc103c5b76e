#!/usr/bin/env bash
# Runs the tests of these suites, except those on pipes, against three nodes behind a balancer:
# `bash tests/balanced.sh [SUITE]...`. A node is a process, so each test runs in its own process.
set -euo pipefail
cd "$(dirname "$0")"
suites=("$@")
((${#suites[@]})) || suites=(flows protocol broadcast faults clients)

program() {
  cargo test --quiet --package stentor-tests --test "$1" --no-run --message-format json |
    python3 -c 'import json, sys
built = (json.loads(line) for line in sys.stdin)
print(*(it["executable"] for it in built if it.get("executable") and it["target"]["name"] == sys.argv[1]))' "$1"
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for suite in "${suites[@]}"; do
  program=$(program "$suite")
  tests=$("$program" --list --format terse | sed -n 's/: test$//p' | grep -v '::stdio_')
  wanted=$(wc -l <<<"$tests")
  # The exit code decides, because lines of tests that run side by side break into each other.
  STENTOR_NODES=3 xargs -P 4 -I{} bash -c '
    if text=$(timeout -k 5 120 "$0" --exact "$1" 2>&1); then echo "pass: $1"
    else printf "%s\n" "$text" "$1: exit code $?"; fi' "$program" {} <<<"$tests" >"$log" 2>&1 || true
  passed=$(grep -c '^pass: ' "$log" || true)
  echo "$suite: $passed of $wanted pass"
  if [ "$passed" != "$wanted" ]; then
    grep -v '^pass: ' "$log"
    exit 1
  fi
done
