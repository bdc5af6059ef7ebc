#!/usr/bin/env bash
# Compares merges by lm-evaluation-harness, in one table. Installs what is missing.
#
#     configs/compare/run.sh DIR... [OPTION...]    model directories: a mount's variants, a base, ...
#     configs/compare/run.sh [OPTION...]           variants of a merge that is made for it, as in configs/search
#
# The options are those of compare.py (--help). MELDFS: the program, if none is to be built.
set -euo pipefail
# shellcheck source=configs/search/lib.sh
. "$(dirname "$0")/../search/lib.sh"

compare=$(cd "$(dirname "$0")" && pwd)/compare.py
case ${1:-} in
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit ;;
    '' | -*) ;;
    *) python=$(venv "$here/requirements.txt"); exec "$python" "$compare" "$@" ;;
esac

prepare
mount_it "$folder/recipe.yml"
cd "$folder" # for short names
ln -s "$models" models
set -- models/{base,caps,json} mnt mnt/{weight=0.5,caps.weight=1.2/json.weight=0.6,caps.weight=0.5~1.5} "$@"
"$python" "$compare" "$@"
