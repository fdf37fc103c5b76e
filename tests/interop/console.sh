#!/usr/bin/env bash
# The console of three nodes in headless Chromium: every page, each action, a client that does not read,
# and why it did not hear of something:
#
#     cargo build --package stentor-examples --example everything
#     bash tests/interop/console.sh target/debug/examples/everything [FOLDER]
#
# Exits with 1 if any step fails. With a folder it leaves screenshots there: light, dark and narrow.
set -euo pipefail
source "$(dirname "$0")/chromium.sh"
server=$(realpath "${1:?the path of the built server}")
shots=${2:+$(mkdir -p "$2" && realpath "$2")}
in_chromium console.mjs "$server" "$shots"
