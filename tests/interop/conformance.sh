#!/usr/bin/env bash
# Runs every server scenario of the official conformance suite against a running server:
#
#     bash tests/interop/conformance.sh http://127.0.0.1:8090/mcp [SPEC_VERSION|tasks...]
#
# Exits with 1 if any check fails or warns. Needs node, npm and Python; the suite, and the version
# of node it needs, are installed under target/interop.
set -euo pipefail
url=${1:?the URL of a server}; shift
versions=${*:-2025-03-26 2025-06-18 2025-11-25 2026-07-28 tasks}
home=$(cd "$(dirname "$0")/../.." && pwd)/target/interop
mkdir -p "$home"
if [ ! -d "$home/node_modules/@modelcontextprotocol/conformance" ]; then
  [ -f "$home/package.json" ] || echo '{"private":true}' >"$home/package.json"
  (cd "$home" && npm install --no-audit --no-fund --silent node@22 @modelcontextprotocol/conformance@0.2.0-alpha.12)
fi
node=$home/node_modules/node/bin/node
suite=$home/node_modules/@modelcontextprotocol/conformance/dist/index.js
out=$(mktemp -d)
# No suite contains the scenarios of the tasks extension: they are run by name.
tasks="lifecycle capability-negotiation wire-fields request-state-removal mrtr-input request-headers
  dispatch-and-envelope status-notifications required-task-error mrtr-composition"
run() { "$node" "$suite" server --url "$url" "$@" || true; }
for version in $versions; do
  # The suite's exit code ignores warnings, so the checks that it writes are counted instead.
  if [ "$version" = tasks ]; then
    for scenario in $tasks; do run --scenario "tasks-$scenario" -o "$out/tasks"; done
  else
    run --suite all --spec-version "$version" -o "$out/$version"
  fi >"$out/$version.log" 2>&1
done
python3 - "$out" <<'PY'
import collections, json, pathlib, sys

out, bad = pathlib.Path(sys.argv[1]), 0
for run in sorted(path for path in out.iterdir() if path.is_dir()):
    counts = collections.Counter()
    for scenario in sorted(path for path in run.iterdir() if path.is_dir()):
        checks = scenario / "checks.json"
        if not checks.exists():
            counts["CRASH"] += 1
            print(f"    CRASH {scenario.name}")
            continue
        for check in json.loads(checks.read_text()):
            counts[check["status"]] += 1
            if check["status"] in ("FAILURE", "WARNING"):
                print(f"    {check['status']} {check['id']}: {check.get('errorMessage', '')[:200]}")
    wrong = counts["FAILURE"] + counts["WARNING"] + counts["CRASH"]
    bad += wrong + (counts["SUCCESS"] == 0)
    print(f"conformance {run.name}: {counts['SUCCESS']} passed, {wrong} failed")
sys.exit(bool(bad))
PY
