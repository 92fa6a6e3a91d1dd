#!/usr/bin/env bash
# fresh.sh FOLDER: makes FOLDER/cargo-home with nothing in it but where crates come from, empties
# FOLDER/npm, and prints the environment that uses them: eval "$(tests/fresh.sh FOLDER)". What is
# downloaded with it is downloaded anew, as on a new machine.
#
# The path of a cargo home matters: cargo builds every crate again if their sources have moved. Who
# keeps build output keeps FOLDER.
set -euo pipefail
[ $# = 1 ] || { echo "usage: fresh.sh FOLDER" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
here=${CARGO_HOME:-$HOME/.cargo}
home=$folder/cargo-home
[ "$here" != "$home" ] || { echo "fresh.sh: CARGO_HOME is $home already, which would be emptied" >&2; exit 2; }
rm -rf "$home" "$folder/npm"
mkdir -p "$home"
for settings in config.toml config credentials.toml credentials; do
    [ ! -e "$here/$settings" ] || ln -s "$(realpath "$here/$settings")" "$home/$settings"
done
printf 'export CARGO_HOME=%q npm_config_cache=%q PIP_NO_CACHE_DIR=1\n' "$home" "$folder/npm"
