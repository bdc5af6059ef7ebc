#!/usr/bin/env bash
# Searches for the weights of a merge, with nothing written: models are paths in a mount. Installs what is missing,
# builds, makes a real model of 135 million parameters and two that are fine-tuned from it (minutes, the first time).
#
#     configs/search/run.sh [weights] [OPTION...]    Optuna tunes two weights, one variant path a trial
#     configs/search/run.sh layers [OPTION...]       CMA-ES tunes 62, layer by layer, in a folder of recipes
#
# The options are those of weights.py and layers.py (--help). MELDFS: the program, if none is to be built.
set -euo pipefail
# shellcheck source=configs/search/lib.sh
. "$(dirname "$0")/lib.sh"

what=weights
case ${1:-} in
    weights | layers) what=$1; shift ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit ;;
esac

prepare
beside=()
for name in base caps json; do
    beside+=(--beside "$models/$name")
done
if [ "$what" = weights ]; then
    mount_it "$folder/recipe.yml"
    "$python" "$here/weights.py" "$mnt" caps.weight json.weight "${beside[@]}" "$@"
else
    mkdir "$folder/recipes"
    mount_it "$folder/recipes"
    "$python" "$here/layers.py" "$folder/recipe.yml" "$folder/recipes" "$mnt" "${beside[@]}" "$@"
fi
