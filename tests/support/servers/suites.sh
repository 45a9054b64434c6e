#!/usr/bin/env bash
# Fetches the suites of others for SPF and DKIM into target/servers/suites: they come with the sources
# of pyspf (BSD) and dkimpy, and are no part of Mailrace.
set -euo pipefail
cd "$(dirname "$0")/../../.."
python=target/servers/python
suites=target/servers/suites
[[ -x $python/bin/pip ]] || python3 -m venv "$python"
"$python/bin/python" -c 'import yaml, dkim, nacl' 2>/dev/null ||
    "$python/bin/pip" install -q PyYAML dkimpy==1.1.8 dnspython pynacl
mkdir -p "$suites"
fetch() {
    [[ -d $suites/$1-$2 ]] && return
    "$python/bin/pip" download -q --no-deps --no-binary :all: -d "$suites" "$1==$2"
    tar -xzf "$suites/$1-$2.tar.gz" -C "$suites"
}
fetch pyspf 2.0.14
fetch dkimpy 1.1.8
"$python/bin/python" tests/support/servers/suites.py \
    "$suites/pyspf-2.0.14/test/rfc7208-tests.yml" >"$suites/spf.json"
