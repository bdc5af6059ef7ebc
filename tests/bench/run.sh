#!/usr/bin/env bash
# How fast meldfs is beside what else there is: one table, and the same as JSON.
#
#     tests/bench/run.sh                      every row; mergekit, which takes minutes, by two methods
#     tests/bench/run.sh --quick              a tenth of the size: about two minutes
#     tests/bench/run.sh --full               mergekit by every method: about an hour
#     tests/bench/run.sh export ties sce      some rows of a group
#     tests/bench/run.sh read first           some groups: export threads load read first memory stats kernel
#     tests/bench/run.sh --json FILE ...      where the JSON goes (else into the cache folder)
#
# Every row is measured in one run, its sides in turn; `ratio` is of medians, and larger is better. What is made lies
# under ${XDG_CACHE_HOME:-~/.cache}/meldfs-tests/bench; what is written while measuring is gone afterwards.
set -uo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"

case " $* " in
    *" -h "* | *" --help "*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit ;;
esac
need_packages "${BUILD_PACKAGES[@]}" python3 python3-venv procps coreutils || exit 1
python=$(venv "$top/tests/requirements.txt") || exit 1
folder=$(CC=gcc build bench -Dbenchmarks=true -Dtests=false) || exit 1
export MELDFS=$folder/fs/meldfs BENCH_BUILD=$folder BENCH_STORE=$cache/bench PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH=$top/tests:$top/tests/bench
exec "$python" -m suite "$@"
