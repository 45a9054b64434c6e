#!/usr/bin/env bash
# Installs what tests/export/store.rs and tests/export/files.rs talk to, into target/servers: the S3
# servers moto (knows signatures and conditional PUT, keeps all in memory) and s3rver (keeps all on
# disk), and beside moto DuckDB, which reads Parquet. Does nothing where they are there already.
set -euo pipefail
cd "$(dirname "$0")/../../.."

servers=${CARGO_TARGET_DIR:-target}/servers
mkdir -p "$servers"

# Each is made aside and renamed: an installation that broke off is not taken for one.
if [[ ! -x $servers/moto/bin/moto_server ]]; then
    rm -rf "$servers/moto.part"
    python3 -m venv "$servers/moto.part"
    "$servers/moto.part/bin/pip" install --quiet --disable-pip-version-check \
        'moto[server,s3]==5.*' 'duckdb==2.*'
    # Scripts of an environment name its path.
    sed -i "1s|^#!.*|#!$(realpath "$servers")/moto/bin/python|" "$servers/moto.part/bin/moto_server"
    mv "$servers/moto.part" "$servers/moto"
fi
if [[ ! -x $servers/s3rver/node_modules/.bin/s3rver ]]; then
    rm -rf "$servers/s3rver.part"
    mkdir "$servers/s3rver.part"
    npm install --silent --no-audit --no-fund --prefix "$servers/s3rver.part" s3rver@3
    mv "$servers/s3rver.part" "$servers/s3rver"
fi
