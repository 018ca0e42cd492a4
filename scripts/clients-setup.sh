#!/usr/bin/env bash
# Installs what the programs of clients/ need into .dev/clients, and Debian's JDK, JDBC driver and PgBouncer.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root/clients/programs"
here=$dev/clients

missing=()
for package in openjdk-17-jdk-headless libpostgresql-jdbc-java pgbouncer; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    say "Installing ${missing[*]}"
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq >/dev/null
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

mkdir -p "$here/node"
if ! cmp -s requirements.txt "$here/requirements.txt"; then
    say "Making a Python environment for the clients"
    python3 -m venv --clear "$here/venv"
    "$here/venv/bin/pip" install --quiet --disable-pip-version-check --requirement requirements.txt
    cp requirements.txt "$here/requirements.txt"
fi
export PATH=$here/venv/bin:$PATH

# Packages run no scripts of their own: Prisma's would fetch an engine that is not needed to generate a client.
if ! cmp -s node/package.json "$here/node/package.json"; then
    say "Installing the clients' Node packages"
    cp node/package.json "$here/node/"
    (cd "$here/node" && npm install --silent --ignore-scripts --no-audit --no-fund --no-package-lock)
fi
ts=$here/typescript
if ! cmp -s ../typescript/package.json "$ts/package.json"; then
    mkdir -p "$ts"
    cp ../typescript/package.json "$ts/"
    (cd "$ts" && npm install --silent --ignore-scripts --no-audit --no-fund --no-package-lock)
fi
