#!/usr/bin/env bash
# Installs what drives Chromium in tests/admin/page.rs, into target/servers: puppeteer-core, and axe-core,
# which judges a page's accessibility. Chromium itself is Debian's.
set -euo pipefail
cd "$(dirname "$0")/../../.."

room=${CARGO_TARGET_DIR:-target}/servers/browser
if [[ ! -d $room/node_modules/axe-core ]]; then
    rm -rf "$room.part"
    mkdir -p "$room.part"
    npm install --silent --no-audit --no-fund --prefix "$room.part" puppeteer-core@24 axe-core@4 >&2
    mv "$room.part" "$room"
fi
