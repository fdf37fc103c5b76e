#!/usr/bin/env bash
# The table of docs/COMPARE.md: for each task and library the lines of its file here that are neither
# blank nor only a comment.
set -euo pipefail
cd "$(dirname "$0")"
libraries=(stentor rmcp tower-mcp fastmcp)
echo "| task | ${libraries[*]} |" | sed 's/ \([a-z]\)/ | \1/3g'
echo '|---|---|---|---|---|'
# Those of Stentor are examples.
declare -A example=([watch]=watchers [test]=testing)
for task in hello state dynamic watch notify identity test; do
  row="| $task |"
  for library in "${libraries[@]}"; do
    # In Python a text that documents a function counts: clients read it as the tool's description.
    file="$library/$task"
    [ "$library" = stentor ] && file="../../examples/small/${example[$task]:-$task}"
    lines=$(cat "$file".* | grep -cvE '^[[:space:]]*($|//|#([^[]|$))')
    row+=" $lines |"
  done
  echo "$row"
done
