#!/usr/bin/env bash
# A release build split for a package: the program runs without its line tables and is small, and
# its debug file, found by the link, still turns an address into a line.
set -euo pipefail
cd "$(dirname "$0")/.."
program=${1:-target/release/mailrace}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() {
    echo "tests/package.sh: $*" >&2
    exit 1
}

deploy/package/split-debug "$program" "$dir"
"$dir/mailrace" --version >/dev/null || fail "the split program does not run"
whole=$(stat -c %s "$program") split=$(stat -c %s "$dir/mailrace")
((split * 3 < whole)) || fail "$split bytes are left of $whole"
# A function that cannot be inlined away: the server is run through a pointer to it.
address=$(nm --demangle "$dir/mailrace.debug" | awk '$3 == "mailrace::server::run" && !found++ { print $1 }')
[[ -n $address ]] || fail "no address of mailrace::server::run in the debug file"
line=$(addr2line -e "$dir/mailrace" "0x$address")
[[ $line == */src/server*:[0-9]* ]] || fail "the address resolves to $line"
# A debug file of another build is not taken: its checksum differs.
printf x >>"$dir/mailrace.debug"
[[ $(addr2line -e "$dir/mailrace" "0x$address" 2>/dev/null) != "$line" ]] || fail "a changed debug file is taken"
echo "package: $((split >> 20)) of $((whole >> 20)) MiB, line tables beside it"
