#!/usr/bin/env bash
# Starts the server, and makes its data directory the first time, in the manner of the official image of PostgreSQL:
# POSTGRES_PASSWORD, POSTGRES_USER, POSTGRES_DB, POSTGRES_INITDB_ARGS, POSTGRES_HOST_AUTH_METHOD, the first three also as …_FILE,
# and /docker-entrypoint-initdb.d with *.sh, *.sql and *.sql.gz.
set -Eeuo pipefail

say() { printf 'sea_mq: %s\n' "$*" >&2; }
die() {
    printf 'sea_mq: error: %s\nsea_mq: hint: %s\n' "$1" "$2" >&2
    exit 1
}

# from_file VARIABLE: its value, or what the file of VARIABLE_FILE says.
from_file() {
    local file=$1_FILE
    if [ -n "${!file:-}" ]; then
        [ -z "${!1:-}" ] || die "$1 and $file are both set" "Set one of them."
        export "$1=$(<"${!file}")"
        unset "$file"
    fi
}

# A list of libraries on the command line replaces the configured one: ours stays in it.
keep_preload() {
    local argument
    arguments=()
    for argument in "$@"; do
        if [[ $argument =~ ^(-c|--)?shared[_-]preload[_-]libraries= ]] && [[ ! ${argument#*=} =~ (^|[^a-z_])sea_mq([^a-z_]|$) ]]; then
            if [ -n "${argument#*=}" ]; then argument+=,; fi
            argument+=sea_mq
            say "the command line sets shared_preload_libraries; sea_mq is added to it"
        fi
        arguments+=("$argument")
    done
}

# What would keep the server from starting, said in terms of containers.
check_directory() {
    if [ -s /var/lib/postgresql/data/PG_VERSION ] && [ "$PGDATA" != /var/lib/postgresql/data ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
        die "there is a data directory of an older layout in /var/lib/postgresql/data" \
            "Set PGDATA=/var/lib/postgresql/data, or mount the volume so that its data are in $PGDATA."
    fi
    mkdir -p "$PGDATA" 2>/dev/null || die "$PGDATA cannot be made by user $(id -un)" \
        "Give the volume to the user: chown -R $(id -u):$(id -g) on its folder, or start the container as root, which does it."
    [ -O "$PGDATA" ] || die "$PGDATA belongs to user $(stat --format=%u "$PGDATA"), and the server runs as $(id -u)" \
        "chown -R $(id -u):$(id -g) on the volume's folder, or start the container as root, which does it."
    [ -s "$PGDATA/PG_VERSION" ] || return 0
    local found
    found=$(<"$PGDATA/PG_VERSION")
    [ "$found" = "$PG_MAJOR" ] || die "the data in $PGDATA are of PostgreSQL $found, and this image has $PG_MAJOR" \
        "Use the image of $found, or pg_upgrade: see docs/upgrade.md."
}

make_database_cluster() {
    from_file POSTGRES_PASSWORD
    from_file POSTGRES_USER
    from_file POSTGRES_DB
    local user=${POSTGRES_USER:-postgres} method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256} database
    database=${POSTGRES_DB:-$user}
    [ -n "${POSTGRES_PASSWORD:-}" ] || [ "$method" = trust ] || die "there is no password for the superuser" \
        "Set POSTGRES_PASSWORD, as in: docker run -e POSTGRES_PASSWORD=… (POSTGRES_HOST_AUTH_METHOD=trust lets everybody in.)"
    [ -z "$(find "$PGDATA" -mindepth 1 -maxdepth 1 ! -name lost+found -print -quit)" ] || die "$PGDATA is not empty and is no data directory" \
        "Empty it, or mount another volume at /var/lib/postgresql."
    # The arguments are words of a command line, as in the official image.
    # shellcheck disable=SC2086
    if ! initdb --username="$user" --encoding=UTF8 --auth-host="$method" --auth-local=trust \
        --pwfile=<(printf '%s\n' "${POSTGRES_PASSWORD:-none}") ${POSTGRES_INITDB_ARGS:-} >/tmp/initdb.log 2>&1; then
        cat /tmp/initdb.log >&2
        die "the data directory cannot be made ($(df --output=avail -h "$PGDATA" | tail -n 1 | tr -d ' ') free in $PGDATA)" \
            "If there is no space left, make room or mount a larger volume at /var/lib/postgresql. Otherwise see above."
    fi
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
    run_initdb_d "$user" "$database"
}

# The server without TCP while the files run, so that nobody takes it for ready.
run_initdb_d() {
    local user=$1 database=$2 file
    # pg_ctl hands them to a shell.
    local options=("${arguments[@]:1}" -c listen_addresses=)
    local psql=(psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="$user")
    check_libraries
    PGUSER=$user pg_ctl start --silent --wait --pgdata="$PGDATA" --options="${options[*]@Q}" ||
        die "the new server does not start" "See the lines above."
    [ "$database" = postgres ] || "${psql[@]}" --dbname=postgres --quiet --set="name=$database" <<<'CREATE DATABASE :"name";'
    export PGUSER=$user PGDATABASE=$database POSTGRES_USER=$user POSTGRES_DB=$database
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
        *.sh) if [ -x "$file" ]; then "$file"; else bash "$file"; fi ;;
        *.sql) "${psql[@]}" --dbname="$database" --file="$file" ;;
        *.sql.gz) gunzip --stdout "$file" | "${psql[@]}" --dbname="$database" ;;
        *) continue ;;
        esac || die "$file failed" "Mend it, remove the volume, and start again: it runs only when the data directory is made."
        say "ran $file"
    done
    unset PGUSER PGDATABASE
    pg_ctl stop --silent --wait --mode=fast --pgdata="$PGDATA"
}

# The server says of a library that it cannot find only that it cannot access a file.
check_libraries() {
    local libraries library folder=/usr/lib/postgresql/$PG_MAJOR/lib
    libraries=$("${arguments[@]}" -C shared_preload_libraries 2>/dev/null) || return 0
    for library in ${libraries//[,\"]/ }; do
        [[ $library == */* ]] || [ -f "$folder/$library" ] || [ -f "$folder/$library.so" ] ||
            say "error: shared_preload_libraries names '$library', and $folder has no such library: the server does not start. If the command line sets it, correct it there. Otherwise start the container once with -c shared_preload_libraries=sea_mq, then ALTER SYSTEM SET shared_preload_libraries = sea_mq; and restart it."
    done
}

# Said at each start, since nothing else tells that events are only stored.
check_settings() {
    local libraries workers
    libraries=$("${arguments[@]}" -C shared_preload_libraries 2>/dev/null) || return 0
    workers=$("${arguments[@]}" -C max_worker_processes 2>/dev/null) || return 0
    [[ $libraries =~ (^|[^a-z_])sea_mq([^a-z_]|$) ]] ||
        say "warning: sea_mq is not in shared_preload_libraries ('$libraries'), so events are stored and not published. ALTER SYSTEM SET shared_preload_libraries = ${libraries:+$libraries, }sea_mq; and restart the container."
    [ "$workers" -ge 4 ] ||
        say "warning: max_worker_processes is $workers, too few for sea_mq's launcher, relay, consumer and handlers. ALTER SYSTEM SET max_worker_processes = 16; and restart the container."
}

[ "${1:-postgres}" != "${1#-}" ] && set -- postgres "$@"
[ "${1:-}" = postgres ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chmod 0700 "$PGDATA"
    find "$PGDATA" ! -user postgres -exec chown postgres:postgres {} +
    chown postgres:postgres /var/run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$0" "$@"
fi
keep_preload "$@"
check_directory
[ -s "$PGDATA/PG_VERSION" ] || make_database_cluster
check_libraries
check_settings
exec "${arguments[@]}"
