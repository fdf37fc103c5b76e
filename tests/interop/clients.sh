#!/usr/bin/env bash
# Runs the official clients against a fixture server, over HTTP and stdio, in each era they support:
#
#     cargo build -p stentor-examples --example everything
#     bash tests/interop/clients.sh target/debug/examples/everything
#
# or, over HTTP only, against a running server:
#
#     bash tests/interop/clients.sh http://127.0.0.1:8090/mcp
#
# The first form runs them once more against a server with unusual types (`--odd`).
#
# Exits with 1 if any run fails. Needs npm and Python; the clients, and the version of node they
# need, are installed under target/interop.
set -euo pipefail
server=${1:?the path of the built example "everything", or a URL}
here=$(cd "$(dirname "$0")" && pwd)
home=$(cd "$here/../.." && pwd)/target/interop
mkdir -p "$home"
version() { sed -n 's/^ *"version": "\(.*\)".*/\1/p' "$home/node_modules/$1/package.json" 2>/dev/null; }
if [ ! -x "$home/node_modules/node/bin/node" ] ||
  [ "$(version @modelcontextprotocol/sdk)" != 1.32.2 ] ||
  [ "$(version @modelcontextprotocol/client)" != 2.4.0 ] ||
  [ "$(version @modelcontextprotocol/ext-tasks)" != 0.2.2 ]; then
  [ -f "$home/package.json" ] || echo '{"private":true}' >"$home/package.json"
  (cd "$home" && npm install --no-audit --no-fund --silent \
    node@22 @modelcontextprotocol/sdk@1.32.2 @modelcontextprotocol/client@2.4.0 \
    @modelcontextprotocol/ext-tasks@0.2.2)
fi
node=$home/node_modules/node/bin/node
python=$home/venv/bin/python
if ! "$python" -m pip show mcp 2>/dev/null | grep -qx 'Version: 2.3.0'; then
  python3 -m venv "$home/venv"
  "$python" -m pip install --quiet --disable-pip-version-check mcp==2.3.0
fi
# Node resolves packages from the directory of the script.
cp "$here"/*.mjs "$home"

out=$(mktemp -d) pids=()
trap '[ -z "${pids[*]}" ] || kill -KILL "${pids[@]}" 2>/dev/null || true; rm -rf "$out"' EXIT
if [[ $server == http*://* ]]; then
  url=$server transports=http
else
  server=$(realpath "$server") transports="http stdio"
  listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
  start() { # FLAGS, which leaves a URL in $url
    local port
    port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    "$server" "$@" --http "127.0.0.1:$port" >>"$out/server.log" 2>&1 &
    pids+=("$!")
    for _ in $(seq 100); do listens "$port" && break; sleep 0.1; done
    if ! listens "$port"; then
      cat "$out/server.log"
      echo "FAILED  the server does not listen on 127.0.0.1:$port"
      echo "0 passed, 1 failed"
      exit 1
    fi
    url=http://127.0.0.1:$port/mcp
  }
  start
fi

passed=0 failed=0
run() { # ERA TRANSPORT COMMAND SCRIPT
  local args="$2 $server $flags --stdio" status=0
  [ "$2" = http ] && args="http $url"
  # shellcheck disable=SC2086
  MCP_ERA=$1 timeout -k 5 60 "$3" "$4" $args >"$out/steps" 2>"$out/errors" || status=$?
  report "$(basename "$4") $1 $2${flags:+ $flags}" "$(paste -sd' ' "$out/steps")" "$status" "$out/errors"
}
report() { # NAME DETAILS STATUS LOG
  if [ "$3" = 0 ]; then
    passed=$((passed + 1))
    echo "ok      $1: $2"
  else
    failed=$((failed + 1))
    echo "FAILED  $1: $2 (exit code $3)"
    tail -n 30 "$4" | sed 's/^/    /'
  fi
}
flags=
all() {
  local transport
  for transport in $transports; do
    run legacy "$transport" "$node" "$home/client_v1.mjs"
    run legacy "$transport" "$node" "$home/client_v2.mjs"
    run modern "$transport" "$node" "$home/client_v2.mjs"
    run legacy "$transport" "$python" "$here/client.py"
    run modern "$transport" "$python" "$here/client.py"
  done
}
all
run modern http "$node" "$home/client_tasks.mjs"
if [ ${#pids[@]} != 0 ]; then
  flags=--odd
  start $flags
  export MCP_ODD=1
  all
fi

for pid in "${pids[@]}"; do
  status=0
  kill -TERM "$pid"
  timeout 10 tail --pid="$pid" -f /dev/null || kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" || status=$?
  report "server ends" "SIGTERM" "$status" "$out/server.log"
done
pids=()
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
