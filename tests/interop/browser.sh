#!/usr/bin/env bash
# Web pages use the endpoint in headless Chromium: with both ways to serve, in both eras, with
# streams. Pages of origins that are not allowed must be refused:
#
#     cargo build --package stentor-tests --bin page_server
#     bash tests/interop/browser.sh target/debug/page_server
#
# Exits with 1 if any step fails.
set -euo pipefail
source "$(dirname "$0")/chromium.sh"
in_chromium browser.mjs "$(realpath "${1:?the path of the built server}")"
