#!/usr/bin/env bash
# The console of three nodes in headless Chromium: every page, each action, a client that does not read,
# and why it did not hear of something:
#
#     cargo build --package stentor-examples --example everything
#     bash tests/interop/console.sh target/debug/examples/everything [FOLDER]
#
# Exits with 1 if any step fails. With a folder it leaves screenshots there: light, dark and narrow. Needs
# Chromium, node and npm; the package that drives the browser is installed under target/interop.
set -euo pipefail
server=$(realpath "${1:?the path of the built server}")
shots=${2:+$(mkdir -p "$2" && realpath "$2")}
here=$(cd "$(dirname "$0")" && pwd)
home=$(cd "$here/../.." && pwd)/target/interop
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
mkdir -p "$home"
if [ ! -d "$home/node_modules/playwright-core" ]; then
  [ -f "$home/package.json" ] || echo '{"private":true}' >"$home/package.json"
  (cd "$home" && npm install --no-audit --no-fund --silent playwright-core@1.64.1)
fi
# Node resolves packages from the directory of the script.
cp "$here/console.mjs" "$home"
exec timeout -k 5 180 node "$home/console.mjs" "$chromium" "$server" "$shots"
