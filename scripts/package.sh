#!/usr/bin/env bash
# package.sh tree|deb|command: what is shipped, in target/packages.
#   tree      the extension as an installation tree, at the paths of PG_CONFIG (the system's server of major PG unless told)
#   deb       the Debian package postgresql-PG-sea-mq
#   command   the Debian package sea-mq: the command, its manual page, its service
# PROFILE=release or dev packs what that profile builds, for a quick try. DEB_REVISION=2 numbers a second package of one version.
set -euo pipefail

# The headers that it is built with say for which major it is.
if [ -n "${PG_CONFIG:-}" ]; then
    PG=$("$PG_CONFIG" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
    export PG
fi
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

readonly profile=${PROFILE:-dist} packages=$root/target/packages
version=$(sed -nE '0,/^version/s/^version = "(.*)"/\1/p' Cargo.toml)
machine=$(dpkg --print-architecture 2>/dev/null || uname -m)
readonly version machine
# Of the commit: two builds of one commit then have the same times in them.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat --format=%Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH

# The server of the system, if it is there with its headers; `make deb` makes do with the private copy, whose headers are the same.
choose_pg_config() {
    pg_config=${PG_CONFIG:-/usr/lib/postgresql/$pg_major/bin/pg_config}
    # What the other profiles have built, they have built with the private copy.
    [ "$profile" = dist ] || [ "$1" != any ] || pg_config=${PG_CONFIG:-$SEA_MQ_PG_CONFIG}
    [ ! -x "$pg_config" ] || [ ! -f "$("$pg_config" --includedir-server)/postgres.h" ] || return 0
    [ -z "${PG_CONFIG:-}" ] || die "$PG_CONFIG has no server headers: install postgresql-server-dev-$pg_major"
    [ "$1" = any ] || die "PostgreSQL $pg_major of the system is not here with its headers: install postgresql-server-dev-$pg_major, or say PG_CONFIG="
    pg_config=$SEA_MQ_PG_CONFIG
    [ -x "$pg_config" ] || PG=$pg_major scripts/setup.sh
}

# Where the sources are must not be seen in what is built from them: panics and assertions name files, those of Rust and those of C. The
# variable of the target is joined with what cargo pgrx itself asks of the linker; RUSTFLAGS would replace that, and may ask for the
# processor of this machine.
reproducibly() {
    local target home=${CARGO_HOME:-$HOME/.cargo}
    target=$(rustc --version --verbose | sed -n 's/^host: //p' | tr '[:lower:]-' '[:upper:]_')
    if [ "$profile" = dist ]; then
        unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
        export "CARGO_TARGET_${target}_RUSTFLAGS=--remap-path-prefix=$root=/build --remap-path-prefix=$home=/cargo"
        export CFLAGS="-ffile-prefix-map=$root=/build -ffile-prefix-map=$home=/cargo"
    fi
    "$@"
}

# Builds the extension; its tree is then $tree.
build_tree() {
    if [ "$profile" != dist ] && [ "$pg_config" = "$SEA_MQ_PG_CONFIG" ]; then
        # `make build` has it, or builds it.
        scripts/build.sh
        tree=$pg_prefix
        return
    fi
    tree=$root/target/${profile/#dev/debug}/sea_mq-pg$pg_major
    rm -rf "$tree"
    say "Building the extension for PostgreSQL $pg_major, profile $profile (some minutes the first time)"
    reproducibly cargo pgrx package --profile "$profile" --package sea_mq "${cargo_features[@]}" --pg-config "$pg_config" --out-dir "$tree"
}

# Copies of the files that are installed, with the modes and names that they have in a package: stage DIRECTORY LIBRARIES SHARE
stage() {
    local library control share=$1$3/extension
    library=$(find "$tree" -name 'sea_mq.so') control=$(find "$tree" -name sea_mq.control)
    install -D -m 0644 "$library" "$1$2/sea_mq.so"
    strip --strip-unneeded "$1$2/sea_mq.so"
    install -D -m 0644 -t "$share" "$control" "$(dirname "$control")"/sea_mq--*.sql
    # Upgrade scripts, and the scripts of the versions that they begin with.
    find sql/released sql/upgrade -name 'sea_mq--*.sql' -exec install -m 0644 -t "$share" {} + 2>/dev/null || true
}

make_tree() {
    choose_pg_config system
    build_tree
    local staged=$root/target/packages/sea_mq-$version-pg$pg_major
    rm -rf "$staged"
    stage "$staged" "$("$pg_config" --pkglibdir)" "$("$pg_config" --sharedir)"
    say "The tree: ${staged#"$root"/}; as root: cp -r ${staged#"$root"/}/* /"
    (cd "$staged" && find . -type f | LC_ALL=C sort)
}

# doc DIRECTORY PACKAGE CRATE: what Debian wants of each package.
documents() {
    local doc=$1/usr/share/doc/$2
    install -d "$doc"
    python scripts/licences.py "$3" >"$doc/copyright"
    gzip --best --no-name --stdout CHANGELOG.md >"$doc/changelog.gz"
    printf '%s\n' "$2 ($version-${DEB_REVISION:-1}) stable; urgency=medium" '' "  * See changelog.gz, or CHANGELOG.md in the sources." '' \
        " -- $(maintainer)  $(LC_ALL=C date --utc --date="@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S +0000')" |
        gzip --best --no-name >"$doc/changelog.Debian.gz"
}

maintainer() { printf '%s' "${DEBFULLNAME:-sea_mq contributors} <${DEBEMAIL:-sea-mq@localhost}>"; }

# Which libraries it needs, and of which versions: needs DIRECTORY FILE
needs() {
    local work
    work=$(mktemp -d)
    mkdir "$work/debian"
    printf 'Source: sea-mq\n\nPackage: sea-mq\nArchitecture: any\n' >"$work/debian/control"
    (cd "$work" && dpkg-shlibdeps -O --warnings=0 "$1$2" 2>/dev/null) | sed 's/^shlibs:Depends=//'
    rm -rf "$work"
}

# pack DIRECTORY PACKAGE DEPENDS SUMMARY DESCRIPTION: control file, checksums, package.
pack() {
    local directory=$1 package=$2 file size
    find "$directory" -type d -exec chmod 0755 {} +
    size=$(find "$directory" -type f ! -path '*/DEBIAN/*' -printf '%s\n' | awk '{kib += int(($1 + 1023) / 1024)} END {print kib}')
    (cd "$directory" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | LC_ALL=C sort --zero-terminated | xargs --null md5sum) >"$directory/DEBIAN/md5sums"
    cat >"$directory/DEBIAN/control" <<TEXT
Package: $package
Source: sea-mq
Version: $version-${DEB_REVISION:-1}
Architecture: $machine
Maintainer: $(maintainer)
Installed-Size: $size
Depends: $3
Section: database
Priority: optional
Description: $4
$5
TEXT
    file=$packages/${package}_$version-${DEB_REVISION:-1}_$machine.deb
    # Packing hard is for what is shipped.
    dpkg-deb --root-owner-group -Zxz "-z$([ "$profile" = dist ] && printf 6 || printf 1)" --build "$directory" "$file" >/dev/null
    rm -rf "$directory"
    say "${file#"$root"/}: $(($(stat --format=%s "$file") / 1024)) KiB, installed $size KiB"
}

make_deb() {
    choose_pg_config any
    build_tree
    local directory=$packages/deb-$pg_major package=postgresql-$pg_major-sea-mq library=/usr/lib/postgresql/$pg_major/lib
    rm -rf "$directory"
    install -d "$directory/DEBIAN"
    stage "$directory" "$library" "/usr/share/postgresql/$pg_major"
    documents "$directory" "$package" sea_mq
    install -m 0644 packaging/README.Debian "$directory/usr/share/doc/$package/README.Debian"
    sed "s/@PG@/$pg_major/g; s/@VERSION@/$version/g" packaging/postinst >"$directory/DEBIAN/postinst"
    chmod 0755 "$directory/DEBIAN/postinst"
    pack "$directory" "$package" "postgresql-$pg_major, $(needs "$directory" "$library/sea_mq.so")" \
        "transactional messaging for PostgreSQL $pg_major over NATS JetStream" \
        " sea_mq makes messaging part of the database transaction: an outbox that a
 worker of the server relays to NATS JetStream, and an inbox whose handlers'
 effects commit exactly once.
 .
 The server has to preload it: see README.Debian."
}

make_command() {
    say "Building the command sea-mq, profile $profile (some minutes the first time)"
    # In a folder of its own: cargo pgrx asks for other flags, and where paths are mapped cargo builds all again when flags change.
    local directory=$packages/command target=target
    [ "$profile" != dist ] || target=target/command
    local built=$target/${profile/#dev/debug}/sea-mq
    reproducibly cargo build --quiet --locked --profile "$profile" --target-dir "$target" --package sea-mq --bin sea-mq
    rm -rf "$directory"
    install -d "$directory/DEBIAN"
    install -D -m 0755 "$built" "$directory/usr/bin/sea-mq"
    strip --strip-all "$directory/usr/bin/sea-mq"
    install -d "$directory/usr/share/man/man1" "$directory/usr/share/bash-completion/completions"
    "$built" man | gzip --best --no-name >"$directory/usr/share/man/man1/sea-mq.1.gz"
    "$built" completions bash >"$directory/usr/share/bash-completion/completions/sea-mq"
    install -D -m 0644 packaging/sea-mq.service "$directory/lib/systemd/system/sea-mq.service"
    install -D -m 0640 packaging/environment "$directory/etc/sea-mq/environment"
    printf '/etc/sea-mq/environment\n' >"$directory/DEBIAN/conffiles"
    install -m 0755 packaging/command.postinst "$directory/DEBIAN/postinst"
    install -D -m 0644 -t "$directory/usr/share/sea-mq/monitoring" monitoring/grafana.json monitoring/sea_mq.rules.yml
    documents "$directory" sea-mq sea-mq
    pack "$directory" sea-mq "$(needs "$directory" /usr/bin/sea-mq), adduser" \
        "REST, metrics, console and command line for sea_mq" \
        " The gateway of the PostgreSQL extension sea_mq, \"sea-mq serve\", and its
 command line: status, doctor, dead letters, streams. It needs a database with
 the extension, on this server or elsewhere."
}

mkdir -p "$packages"
case ${1:-} in
tree) make_tree ;;
deb) make_deb ;;
command) make_command ;;
*) die "package.sh tree|deb|command" ;;
esac
