#!/usr/bin/env bash
# container.sh: builds the images, runs compose.yaml as somebody's laptop would, on ports of its own, and ends it: health, an event
# that is found in its stream, a restart of everything, what the logs say; then what goes wrong in containers, and what is said of it.
# PROFILE=dev or release packs what `make build` has built with it. SEA_MQ_NO_PULL=1: no registry of images is asked.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/containers.sh
. "$(dirname "${BASH_SOURCE[0]}")/containers.sh"
cd "$root"
readonly podman_compose_version=1.6.0 nats_image=nats:2.15-alpine
declare -A bases=([15]=bookworm [17]=trixie)
base=${bases[$pg_major]:-bookworm}

# The image of nats, of the server that the tests have, where it cannot be pulled.
nats_image() {
    ! has_image "$nats_image" || return 0
    if [ -z "${SEA_MQ_NO_PULL:-}" ] && timeout 120 "$engine" pull --quiet "$nats_image" >/dev/null 2>&1; then return; fi
    say "Making $nats_image of nats-server $(nats-server --version), since it cannot be pulled"
    local context
    context=$(mktemp -d)
    cp "$(command -v nats-server)" "$context/nats-server"
    printf '%s\n' 'FROM debian:bookworm-slim' 'RUN apt-get update && apt-get install -y --no-install-recommends busybox-static && ln -s /bin/busybox /usr/bin/wget' \
        'COPY nats-server /nats-server' 'ENTRYPOINT ["/nats-server"]' 'EXPOSE 4222 8222' >"$context/Dockerfile"
    build_image "$nats_image" "$context/Dockerfile" "$context"
    rm -rf "$context"
}

packages() {
    rm -f target/packages/"postgresql-$pg_major"-sea-mq_*.deb target/packages/sea-mq_*.deb
    scripts/package.sh deb
    scripts/package.sh command
}

images() {
    base_image "debian:$base-slim" "$base"
    base_image debian:bookworm-slim bookworm
    nats_image
    say "Building the images sea-mq-postgres:$pg_major and sea-mq"
    build_image "sea-mq-postgres:$pg_major" docker/Dockerfile . --target postgres --build-arg "PG_MAJOR=$pg_major" --build-arg "BASE=debian:$base-slim"
    build_image sea-mq:latest docker/Dockerfile . --target command --build-arg "BASE=debian:$base-slim"
}

find_compose() {
    if [ "$engine" = docker ] && docker compose version >/dev/null 2>&1; then
        compose=(docker compose)
        return
    fi
    [ "$("$dev/venv/bin/podman-compose" --version 2>/dev/null | sed -n 's/^podman-compose version //p')" = "$podman_compose_version" ] ||
        "$dev/venv/bin/python3" -m pip install --quiet --disable-pip-version-check "podman-compose==$podman_compose_version"
    compose=("$dev/venv/bin/podman-compose")
}

# The container of a service, whatever the engine puts between the words of its name.
container_of() { "$engine" ps --all --format '{{.Names}}' | grep -E "^${COMPOSE_PROJECT_NAME}[-_]$1[-_]1$"; }

healthy() {
    local name
    name=$(container_of "$1") || return 1
    if [ "$engine" = podman ]; then podman healthcheck run "$name" >/dev/null; else
        [ "$(docker inspect --format '{{.State.Health.Status}}' "$name")" = healthy ]
    fi
}

all_healthy() {
    local service
    for service in postgres nats sea-mq; do
        wait_for 120 healthy "$service" || { "$engine" logs "$(container_of "$service")" 2>&1 | tail -n 30 >&2; die "$service is not healthy"; }
    done
}

shop() { "$engine" exec "$(container_of postgres)" psql -X -At -v ON_ERROR_STOP=1 --username=postgres --dbname=shop -c "$1"; }
emit() { shop "SELECT sea_mq.emit('order', '$1', 'OrderCreated', '{}')"; }
# stored ID: the stream has it once, as a client on the host sees it.
stored() { [ "$(python scripts/stored.py "nats://127.0.0.1:$NATS_PORT" ORDERS_EVENTS | grep -cxF -- "$1")" = 1 ]; }

laptop() {
    local first second
    say "compose.yaml"
    "${compose[@]}" up --detach >/dev/null 2>&1 || die "compose.yaml does not start"
    all_healthy
    say "healthy after $((SECONDS - begin)) s"
    first=$(emit 1)
    wait_for 30 stored "$first" || die "the event is not in the stream: $(shop 'SELECT summary, hint FROM sea_mq.status')"
    curl -sSf "http://127.0.0.1:$SEA_MQ_PORT/" >/dev/null || die "the console does not answer"
    curl -sSf "http://127.0.0.1:$NATS_MONITOR_PORT/jsz" | grep -q '"streams"' || die "the monitoring page does not answer"
    say "Restarting everything"
    "${compose[@]}" restart >/dev/null 2>&1 || die "it does not restart"
    all_healthy
    stored "$first" || die "the event is gone after the restart"
    second=$(emit 2)
    wait_for 60 stored "$second" || die "events are not published after the restart: $(shop 'SELECT summary, hint FROM sea_mq.status')"
    stored "$first" || die "the first event is not there once"
    [ "$(shop 'SELECT ok FROM sea_mq.status')" = t ] || die "not all is well: $(shop 'SELECT * FROM sea_mq.problems')"
    nothing_unexpected
}

# What a restart says by itself: sessions and workers are ended, and the broker is away for a moment.
readonly expected='due to administrator command|the database system is (starting up|shutting down)|sea_mq (relay|consumer): .*(connect|broker|NATS|closed)'
nothing_unexpected() {
    local service lines
    for service in postgres nats sea-mq; do
        lines=$("$engine" logs "$(container_of "$service")" 2>&1 | grep -E '\b(ERROR|FATAL|PANIC|WARNING)\b|\[(ERR|FTL)\]|panicked|"level":"error"|warning:' | grep -vE "$expected" || true)
        [ -z "$lines" ] || die "the log of $service has: $lines"
    done
}

# refused WORDS ARGUMENT…: a container that ends by itself, and says these words.
refused() {
    local words=$1 output
    shift
    output=$(timeout 60 "$engine" run --rm --no-healthcheck "$@" 2>&1) && die "it should not have started: $*"
    grep -qF -- "$words" <<<"$output" || die "instead of '$words' it says: $output"
}

# ends_with WORDS NAME: the container has ended, and said these words.
ends_with() { [ "$("$engine" inspect --format '{{.State.Running}}' "$2")" = false ] && "$engine" logs "$2" 2>&1 | grep -qF -- "$1"; }

# Each accident ends in a line that names the remedy.
accidents() {
    local image=sea-mq-postgres:$pg_major name=$COMPOSE_PROJECT_NAME-accident folder
    say "Accidents"
    refused 'Set POSTGRES_PASSWORD' "$image"
    folder=$(mktemp -d)
    chmod 0755 "$folder"
    mkdir -p "$folder/$pg_major/docker"
    printf '13\n' >"$folder/$pg_major/docker/PG_VERSION"
    refused "are of PostgreSQL 13, and this image has $pg_major" --volume "$folder:/var/lib/postgresql" "$image"
    rm -rf "${folder:?}"/*
    refused 'chown -R 12345' --user 12345:12345 --env POSTGRES_PASSWORD=x --volume "$folder:/var/lib/postgresql" "$image"
    refused 'no space left, make room' --env POSTGRES_PASSWORD=x --tmpfs /var/lib/postgresql:size=8m,mode=1777 "$image"
    rm -rf "$folder"

    # A library that is not there, of a new data directory.
    refused "names 'seamq'" --env POSTGRES_PASSWORD=x "$image" -c shared_preload_libraries=seamq

    # On the command line, somebody's own list; ALTER SYSTEM takes ours out of it.
    "$engine" run --no-healthcheck --detach --name "$name" --env POSTGRES_PASSWORD=x "$image" -c shared_preload_libraries=auto_explain >/dev/null
    wait_for 60 "$engine" exec "$name" pg_isready --quiet --host=127.0.0.1 || die "it does not start: $("$engine" logs "$name" 2>&1 | tail -n 5)"
    [ "$("$engine" exec "$name" psql -U postgres -At -c 'SHOW shared_preload_libraries')" = auto_explain,sea_mq ] || die "the command line's list has lost sea_mq"
    "$engine" rm --force "$name" >/dev/null
    "$engine" run --no-healthcheck --detach --name "$name" --env POSTGRES_PASSWORD=x "$image" >/dev/null
    wait_for 60 "$engine" exec "$name" pg_isready --quiet --host=127.0.0.1 || die "it does not start: $("$engine" logs "$name" 2>&1 | tail -n 5)"
    "$engine" exec "$name" psql -U postgres -q -c "ALTER SYSTEM SET shared_preload_libraries = 'auto_explain'" -c 'ALTER SYSTEM SET max_worker_processes = 2'
    "$engine" restart "$name" >/dev/null
    wait_for 60 "$engine" exec "$name" pg_isready --quiet --host=127.0.0.1 || die "it does not restart"
    "$engine" logs "$name" 2>&1 | grep -q "ALTER SYSTEM SET shared_preload_libraries = auto_explain, sea_mq;" || die "nothing is said of the missing library"
    "$engine" logs "$name" 2>&1 | grep -q 'ALTER SYSTEM SET max_worker_processes = 16' || die "nothing is said of too few workers"
    # And of a data directory that is there.
    "$engine" exec "$name" psql -U postgres -q -c "ALTER SYSTEM SET shared_preload_libraries = 'sea-mq'"
    "$engine" restart "$name" >/dev/null 2>&1 || true
    wait_for 60 ends_with "names 'sea-mq'" "$name" || die "nothing is said of the library that is not there: $("$engine" logs "$name" 2>&1 | tail -n 5)"
    "$engine" rm --force "$name" >/dev/null
}

end() {
    "${compose[@]}" down --volumes >/dev/null 2>&1 || true
    "$engine" rm --force "$COMPOSE_PROJECT_NAME-accident" >/dev/null 2>&1 || true
}

need_engine
begin=$SECONDS
export COMPOSE_PROJECT_NAME=sea-mq-test-$$ PG_MAJOR=$pg_major BASE=debian:$base-slim
find_compose
packages
images
POSTGRES_PORT=$(free_port) NATS_PORT=$(free_port) NATS_MONITOR_PORT=$(free_port) SEA_MQ_PORT=$(free_port)
export POSTGRES_PORT NATS_PORT NATS_MONITOR_PORT SEA_MQ_PORT
trap end EXIT
begin=$SECONDS
laptop
accidents
"$engine" images --format '{{.Repository}}:{{.Tag}} {{.Size}}' | grep -E 'sea-mq' | sort -u
say "All of it passed, in $((SECONDS - begin)) s"
