# shellcheck shell=bash
# Sourced after lib.sh: the engine of containers, and base images.
#
# podman is used if it is there, otherwise docker. Where a registry of images can be reached, base images come from there;
# otherwise they are made of Debian's packages, under the same name.

# Where there is no systemd, podman needs to be told; a configuration of the user's own is left alone.
# shellcheck disable=SC2154  # lib.sh sets $dev
podman_without_systemd() {
    [ ! -d /run/systemd/system ] && [ -z "${CONTAINERS_CONF:-}" ] || return 0
    mkdir -p "$dev"
    printf '%s\n' '[containers]' 'default_ulimits=["nofile=10000:10000","nproc=30000:30000"]' '[engine]' 'runtime="runc"' \
        'cgroup_manager="cgroupfs"' 'events_logger="file"' >"$dev/containers.conf"
    export CONTAINERS_CONF=$dev/containers.conf
}

# Sets $engine; fails if nothing here can run a container.
find_engine() {
    local found
    podman_without_systemd
    for found in podman docker; do
        if command -v "$found" >/dev/null && "$found" info >/dev/null 2>&1; then
            engine=$found
            return
        fi
    done
    return 1
}

# Installs podman where Debian's packages can be installed, and nothing else runs containers.
need_engine() {
    ! find_engine || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then die "neither podman nor docker runs here"; fi
    say "Installing podman"
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends podman buildah debootstrap runc netavark aardvark-dns iptables catatonit; } \
        >/dev/null 2>&1 || die "podman cannot be installed"
    find_engine || die "podman is installed, and does not run: $(podman info 2>&1 | tail -n 1)"
}

has_image() { "$engine" image inspect "$1" >/dev/null 2>&1; }

# base_image NAME [SUITE]: pulls it, or makes it: a SUITE of Debian.
base_image() {
    ! has_image "$1" || return 0
    if [ -z "${SEA_MQ_NO_PULL:-}" ] && timeout 120 "$engine" pull --quiet "$1" >/dev/null 2>&1; then return; fi
    [ -n "${2:-}" ] || die "image $1 cannot be pulled"
    command -v debootstrap >/dev/null || die "image $1 cannot be pulled, and debootstrap is not here to make it"
    say "Making $1 of Debian's packages, since it cannot be pulled"
    local tree
    tree=$(mktemp -d /var/tmp/sea_mq-base.XXXXXX)
    debootstrap --variant=minbase "$2" "$tree" >"$tree.log" 2>&1 || die "debootstrap failed: $(tail -n 1 "$tree.log")"
    rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
    tar -C "$tree" -c . | "$engine" import --change 'CMD ["bash"]' - "$1" >/dev/null
    rm -rf "$tree" "$tree.log"
}

# build_image NAME FILE CONTEXT [--build-arg X=Y…]: the host's network, since a build fetches packages.
build_image() {
    local name=$1 file=$2 context=$3
    shift 3
    if [ "$engine" = podman ]; then set -- --format docker --pull=never "$@"; fi
    "$engine" build --quiet --network host --tag "$name" --file "$file" "$@" "$context" >/dev/null
}
