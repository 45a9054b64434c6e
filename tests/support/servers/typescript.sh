#!/usr/bin/env bash
# Installs the TypeScript compiler for the example consumer; prints the path of `tsc`.
set -euo pipefail
cd "$(dirname "$0")/../../.."
room=target/servers/typescript
if [[ ! -x $room/node_modules/.bin/tsc ]]; then
    mkdir -p "$room"
    npm install --silent --no-fund --no-audit --prefix "$room" typescript@5 @types/node@20 >&2
fi
echo "$PWD/$room/node_modules/.bin/tsc"
