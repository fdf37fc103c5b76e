#!/usr/bin/env bash
# Web pages use the endpoint in headless Chromium: with both ways to serve, in both eras, with
# streams. Pages of origins that are not allowed must be refused:
#
#     cargo build --package stentor-tests --bin page_server
#     bash tests/interop/browser.sh target/debug/page_server
#
# Exits with 1 if any step fails. Needs Chromium, node and npm; the package that drives the browser
# is installed under target/interop.
set -euo pipefail
server=$(realpath "${1:?the path of the built server}")
here=$(cd "$(dirname "$0")" && pwd)
home=$(cd "$here/../.." && pwd)/target/interop
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
mkdir -p "$home"
if [ ! -d "$home/node_modules/playwright-core" ]; then
  [ -f "$home/package.json" ] || echo '{"private":true}' >"$home/package.json"
  (cd "$home" && npm install --no-audit --no-fund --silent playwright-core@1.64.1)
fi
# Node resolves packages from the directory of the script.
cp "$here/browser.mjs" "$home"
exec timeout -k 5 180 node "$home/browser.mjs" "$chromium" "$server"
