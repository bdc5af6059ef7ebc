# Shared by tests/run.sh and the commands in configs/: what is missing is installed, the rest is left alone.
# shellcheck shell=bash

cache=${XDG_CACHE_HOME:-$HOME/.cache}/meldfs-tests
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD_PACKAGES=(gcc libc6-dev meson ninja-build pkg-config libfuse3-dev fuse3 libyaml-dev libcjson-dev uthash-dev
                libxxhash-dev)

say() { printf '%s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# need_packages NAME...: Debian packages, installed with apt if they are not there.
need_packages() {
    local missing=() name log
    command -v dpkg-query >/dev/null || { say "not a Debian: $* must be there already"; return 0; }
    for name; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    log=$(mktemp)
    if ! { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

# venv REQUIREMENTS: prints a Python that has them. Made under another name first, so that one which was
# interrupted is not taken for a good one; only its bin/python is used, which does not mind the renaming.
venv() {
    local key folder part log
    key=$({ python3 --version; cat "$1"; } | sha256sum | cut -c1-16)
    folder=$cache/venv-$key part=$cache/venv-$key.$$
    if [ ! -d "$folder" ]; then
        say "making a Python environment for ${1#"$top"/}"
        mkdir -p "$cache"
        log=$part.log
        if ! { python3 -m venv "$part" && "$part/bin/python" -m pip install -r "$1"; } >"$log" 2>&1; then
            tail -n 20 "$log" >&2
            rm -rf "$part" "$log"
            return 1
        fi
        rm -f "$log"
        mv -T "$part" "$folder" 2>/dev/null || rm -rf "$part"
    fi
    printf '%s\n' "$folder/bin/python"
}

# build NAME [MESON OPTION...]: configured once, built; prints the folder, which lies outside the tree.
build() {
    local folder log
    folder=$cache/build/$(printf %s "$top" | sha256sum | cut -c1-16)/$1
    log=$folder.log
    shift
    mkdir -p "$(dirname "$folder")"
    [ -f "$folder/build.ninja" ] || rm -rf "$folder"
    if ! { { [ -f "$folder/build.ninja" ] || meson setup "$folder" "$top" "$@"; } &&
        meson compile -C "$folder"; } >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        return 1
    fi
    printf '%s\n' "$folder"
}
