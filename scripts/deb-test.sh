#!/usr/bin/env bash
# deb-test.sh: the packages of target/packages in a clean container, PG=15 in bookworm, PG=17 in trixie: installed, used, upgraded,
# removed, installed again, purged. With a package of an earlier version (OLD=file.deb) that one is installed first.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/containers.sh
. "$(dirname "${BASH_SOURCE[0]}")/containers.sh"
cd "$root"

declare -A suites=([15]=bookworm [17]=trixie)
suite=${suites[$pg_major]:-}
[ -n "$suite" ] || die "Debian has PostgreSQL 15 (bookworm) and 17 (trixie)"
newest() { find target/packages -name "$1" -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2; }
new=$(newest "postgresql-$pg_major-sea-mq_*.deb")
command=$(newest 'sea-mq_*.deb')
[ -n "$new" ] || die "there is no package: make deb PG=$pg_major"
# A package of the same version and a later revision, to have something to upgrade to.
again=$(mktemp -d)
trap 'rm -rf "$again"' EXIT
dpkg-deb --raw-extract "$new" "$again/tree"
sed -i -E 's/^(Version: .*)/\1+again/' "$again/tree/DEBIAN/control"
dpkg-deb --root-owner-group -Znone --build "$again/tree" "$again/again.deb" >/dev/null
cp "${OLD:-$new}" "$again/old.deb"
cp "$new" "$again/new.deb"
[ -z "$command" ] || cp "$command" "$again/command.deb"
cp tests/packages/inside.sh "$again/"
chmod 0755 "$again"

need_engine
base_image "debian:$suite-slim" "$suite"
say "${new##*/} in debian:$suite-slim"
"$engine" run --rm --network host --volume "$again:/packages:ro" --env "PG=$pg_major" "debian:$suite-slim" bash /packages/inside.sh
