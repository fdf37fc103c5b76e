# Sourced by the scripts that drive headless Chromium: `in_chromium SCRIPT ARGUMENT...` runs a script of
# this folder, with the path of Chromium before its arguments. Needs Chromium, node and npm; the package
# that drives the browser is installed under target/interop.

in_chromium() {
  local here home chromium
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  home=$(cd "$here/../.." && pwd)/target/interop
  chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
  mkdir -p "$home"
  if [ ! -d "$home/node_modules/playwright-core" ]; then
    [ -f "$home/package.json" ] || echo '{"private":true}' >"$home/package.json"
    (cd "$home" && npm install --no-audit --no-fund --silent playwright-core@1.64.1)
  fi
  # Node resolves packages from the directory of the script.
  cp "$here/$1" "$home"
  timeout -k 5 180 node "$home/$1" "$chromium" "${@:2}"
}
