# Shared by configs/search/run.sh and configs/compare/run.sh: the Python packages, the program, the models, a mount.
# shellcheck shell=bash

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/lib.sh
. "$here/../../tests/lib.sh"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export OMP_WAIT_POLICY=passive # torch's threads that wait leave their core to the daemon, which computes there

# Sets python; exports MELDFS.
programs() {
    need_packages "${BUILD_PACKAGES[@]}" python3 python3-venv
    python=$(venv "$here/requirements.txt")
    [ -n "${MELDFS:-}" ] || MELDFS=$(build demo -Dtests=false)/fs/meldfs
    export MELDFS
}

# prepare: sets models, and folder, which is removed at the end, with what is mounted on $folder/mnt: $folder/recipe.yml
# is recipe.yml with the models' places.
prepare() {
    programs
    if [ ! -c /dev/fuse ]; then
        say "there is no /dev/fuse here (in a container: --device /dev/fuse --cap-add SYS_ADMIN)"
        exit 1
    fi
    local maker=$top/tests/real/make_models.py
    models=$cache/real-$(sha256sum "$maker" | cut -c1-16)
    [ -f "$models/json/model.safetensors" ] || say "making three models in $models, which takes some minutes"
    "$python" "$maker" "$models" --donors >&2
    folder=$(mktemp -d) mnt=$folder/mnt
    mkdir "$mnt"
    trap finish EXIT
    sed "s|\./models/|$models/|" "$here/recipe.yml" >"$folder/recipe.yml"
}

mount_it() { # CONFIG
    "$MELDFS" mount "$1" "$mnt"
}

finish() {
    ! grep -qF " $mnt " /proc/self/mountinfo || "$MELDFS" umount "$mnt"
    rm -rf "$folder"
}
