#!/usr/bin/env bash
# Installs nats-py, the client that reads back what went to NATS, under target/servers.
set -euo pipefail
cd "$(dirname "$0")/../../.."
python=target/servers/python
[[ -x $python/bin/pip ]] || python3 -m venv "$python"
"$python/bin/python" -c 'import nats' 2>/dev/null || "$python/bin/pip" install -q nats-py
