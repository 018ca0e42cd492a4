#!/usr/bin/env bash
# The console in Debian's Chromium, against servers of its own. SCREENSHOTS=directory keeps what was seen.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"
here=$run_dir/console-$$ modules=$dev/console

missing=()
for package in chromium nodejs npm; do
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || command -v "${package%js}" >/dev/null || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    say "Installing ${missing[*]}"
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq >/dev/null
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
# Packages run no scripts of their own; package-lock.json has their hashes.
mkdir -p "$modules"
if ! cmp -s tests/console/package-lock.json "$modules/package-lock.json"; then
    say "Installing playwright-core and axe-core"
    cp tests/console/package.json "$modules/"
    (cd "$modules" && cp "$root/tests/console/package-lock.json" . && npm ci --silent --ignore-scripts --no-audit --no-fund)
fi
cp tests/console/console.mjs "$modules/"

build_gateway
trap 'servers_down "$here"' EXIT
servers_up "$here" console
gateway_start "$here/gateway" "$pg_port" console
[ -z "${SCREENSHOTS:-}" ] || mkdir -p "$SCREENSHOTS"
SEA_MQ_URL=$gateway_url SEA_MQ_TOKEN=$gateway_token SCREENSHOTS=${SCREENSHOTS:-} \
    node --test --test-concurrency=1 --test-reporter=spec ${ONLY:+--test-name-pattern="$ONLY"} "$modules/console.mjs"
