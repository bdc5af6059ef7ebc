#!/usr/bin/env bash
# Shows a merged model being read out of a directory that holds no bytes. Installs what is missing, builds, makes three
# small models in configs/models, mounts configs/chat-vector.yml, reads it, compares it, unmounts.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../tests/lib.sh"

need_packages "${BUILD_PACKAGES[@]}" python3 python3-venv procps
python=$(venv "$top/configs/demo/requirements.txt")
meldfs=$(build demo -Dtests=false)/fs/meldfs
if [ ! -c /dev/fuse ]; then
    say "there is no /dev/fuse here (in a container: --device /dev/fuse --cap-add SYS_ADMIN)"
    exit 1
fi
"$python" "$top/configs/demo/make_models.py" "$top/configs/models"

folder=$(mktemp -d)
mnt=$folder/chat
mkdir "$mnt"
finish() {
    ! grep -qF " $mnt " /proc/self/mountinfo || "$meldfs" umount "$mnt"
    rm -rf "$folder"
}
trap finish EXIT

timed_mount() { # RECIPE
    local begin=$EPOCHREALTIME
    "$meldfs" mount "$1" "$mnt"
    local end=$EPOCHREALTIME
    echo "  ready after $(((${end/./} - ${begin/./}) / 1000)) ms"
}

echo "Three models of $(du -m "$top/configs/models/base/model.safetensors" | cut -f1) MB each. A merge of them:"
grep -v '^#' "$top/configs/chat-vector.yml" | sed 's/^/  /'

echo; echo "\$ meldfs mount configs/chat-vector.yml $mnt"
timed_mount "$top/configs/chat-vector.yml"
echo; echo "\$ ls -l $mnt"
ls -l "$mnt" | sed 's/^/  /'
echo; echo "Is it base + 1.0 (chat - base) + 0.6 (math - base)?"
"$python" "$top/configs/demo/compare.py" "$mnt" "$top/configs/models" 1.0 0.6

echo; echo "And with half as much chat, mounted again:"
"$meldfs" umount "$mnt"
sed -e 's/weight: 1.0/weight: 0.5/' -e "s|\./models|$top/configs/models|" \
    "$top/configs/chat-vector.yml" >"$folder/half.yml"
timed_mount "$folder/half.yml"
"$python" "$top/configs/demo/compare.py" "$mnt" "$top/configs/models" 0.5 0.6

echo; echo "\$ meldfs status $mnt"
"$meldfs" status "$mnt" | sed 's/^/  /'
pid=$("$meldfs" status "$mnt" | awk '$1 == "daemon" { sub(",", "", $3); print $3 }')
written=$(awk '/^write_bytes/ { print $2 }' "/proc/$pid/io")
peak=$(awk '/^VmHWM/ { print int($2 / 1024) }' "/proc/$pid/status")
served=$(du -sb "$mnt" | cut -f1)
"$meldfs" umount "$mnt"
[ -z "$(ls -A "$mnt")" ] || { say "the folder is not empty without the mount"; exit 1; }
echo
echo "$((served / 1000000)) MB of files, $written bytes written to disk, an empty folder without the mount."
echo "The daemon's memory was $peak MiB at its peak. $SECONDS s in all."
