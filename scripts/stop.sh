#!/usr/bin/env bash
# Ends what scripts/dev.sh started and removes its data.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [ -e "$run_dir/dev" ]; then
    servers_down "$run_dir/dev"
    say "Stopped"
else
    say "Nothing runs"
fi
rm -f "$dev/env"
