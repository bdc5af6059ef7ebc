#!/bin/sh
# Run by an ordinary user: mount, read, compare, unmount. user.sh MELDFS RECIPE EXPECTED FOLDER NAME
set -eu
meldfs=$1 recipe=$2 expected=$3 folder=$4 mnt=$5
cd "$folder"
mkdir "$mnt"
"$meldfs" mount "$recipe" "$mnt" -o cache=8M
trap '"$meldfs" umount "$mnt" 2>/dev/null || fusermount3 -uz "$mnt" 2>/dev/null || true' EXIT
diff -r "$mnt" "$expected"
[ "$(stat -c %u "$mnt")" = "$(id -u)" ]
"$meldfs" status | grep -F "$folder/$mnt" >/dev/null
"$meldfs" umount "$mnt"
trap - EXIT
! grep -F " $folder/$mnt " /proc/self/mountinfo
echo "mounted, read and unmounted by $(id -un)"
