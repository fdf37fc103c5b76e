#!/usr/bin/env bash
# The table of docs/COMPARE.md: for each task and library the lines of its file here that are neither
# blank nor only a comment.
set -euo pipefail
cd "$(dirname "$0")"
libraries=(stentor rmcp tower-mcp fastmcp)
echo "| task | ${libraries[*]} |" | sed 's/ \([a-z]\)/ | \1/3g'
echo '|---|---|---|---|---|'
for task in hello state dynamic watch notify identity test; do
  row="| $task |"
  for library in "${libraries[@]}"; do
    # In Python a text that documents a function counts: clients read it as the tool's description.
    lines=$(cat "$library/$task".* | grep -cvE '^[[:space:]]*($|//|#([^[]|$))')
    row+=" $lines |"
  done
  echo "$row"
done
