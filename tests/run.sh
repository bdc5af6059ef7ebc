#!/usr/bin/env bash
# Installs what is missing, builds, runs every test. What it makes lies outside the tree, under
# ${XDG_CACHE_HOME:-~/.cache}/meldfs-tests.
#
#     tests/run.sh                  everything
#     tests/run.sh quick            unit, format, and the quick tests of golden, report, mount and real
#     tests/run.sh PART...          some of: unit format asan tsan fuzz golden report mount user real memory install
#     tests/run.sh MODULE...        the unit test of a module: tests/run.sh cache
#     tests/run.sh mount -k direct  what follows -k, -x, -s goes to pytest
#
# A part that cannot run on this machine says why and counts as failed, unless MELDFS_TESTS_SKIP_OK=1.
set -uo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

PARTS=(unit format install golden report mount user real memory asan tsan fuzz)
PACKAGES=("${BUILD_PACKAGES[@]}" clang clang-format llvm libclang-rt-14-dev libcmocka-dev python3 python3-venv mandoc
          procps util-linux passwd tar diffutils findutils)
FUZZ_SECONDS=${FUZZ_SECONDS:-60}
SKIPPED=77
PYTEST=()

# The runtime of clang's sanitizers is a package of its own, named after the version of clang.
packages() {
    local version
    version=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n 1)
    PACKAGES=("${PACKAGES[@]/libclang-rt-14-dev/libclang-rt-${version:-14}-dev}")
    need_packages "${PACKAGES[@]}"
}

python() {
    [ -n "${PYTHON:-}" ] || PYTHON=$(venv "$top/tests/requirements.txt") || return 1
}

release() { CC=gcc build gcc -Dwerror=true; }

unit_tests() { # FOLDER [TEST...]
    local folder=$1 out
    shift
    out=$(meson test -C "$folder" --print-errorlogs --no-rebuild "$@" 2>&1) || { printf '%s\n' "$out"; return 1; }
    printf '%s\n' "$out" | grep -E '^(Ok|Fail|Timeout|Skipped):' | tr -s ' \n' ' '
    echo
}

# pytest BUILD ARGUMENT...: with the program of a build
pytest() {
    local folder=$1
    shift
    python || return 1
    # A thread of torch that waits by spinning takes the core that the daemon wants.
    MELDFS=$folder/fs/meldfs MELDFS_BUILD=$folder PYTHONDONTWRITEBYTECODE=1 OMP_WAIT_POLICY=passive \
        "$PYTHON" -m pytest -c "$top/tests/pytest.ini" --basetemp "$scratch/pytest" "$@" "${PYTEST[@]}"
}

need_fuse() {
    [ -c /dev/fuse ] && return
    echo "there is no /dev/fuse here (in a container: --device /dev/fuse --cap-add SYS_ADMIN)"
    return $SKIPPED
}

part_unit() {
    local folder
    folder=$(release) && unit_tests "$folder" || return
    folder=$(CC=clang build clang -Dwerror=true) && unit_tests "$folder"
}

part_format() {
    cd "$top" || return
    find src fs tests -name '*.[ch]' -print0 | xargs -0 clang-format --dry-run -Werror &&
        find docs -name '*.[1-8]' -print0 | xargs -0r mandoc -T lint -W warning &&
        find . -name '*.sh' -print0 | xargs -0 -n 1 bash -n
}

part_install() {
    local folder root=$scratch/root file
    folder=$(release) || return
    meson install -C "$folder" --no-rebuild --destdir "$root" --quiet >/dev/null || return
    (cd "$root" && find . -type f -o -type l | sort)
    for file in '*/bin/meldfs' '*/sbin/mount*.meldfs' '*/man/man1/meldfs.1*' '*/man/man8/mount*meldfs.8*' \
        '*/bash-completion/completions/meldfs'; do
        [ -n "$(find "$root" -path "$file")" ] || { echo "$file is not installed"; return 1; }
    done
    "$(find "$root" -path '*/bin/meldfs')" --version
}

part_golden() {
    local folder
    folder=$(release) && pytest "$folder" "$top/tests/golden"
}

# The pages of `meldfs report`, in a browser.
part_report() {
    local folder
    need_packages chromium || return
    folder=$(release) && pytest "$folder" "$top/tests/report"
}

part_mount() {
    local folder
    need_fuse || return
    folder=$(release) && pytest "$folder" "$top/tests/mount" --ignore "$top/tests/mount/test_user.py"
}

part_user() {
    local folder
    need_fuse || return
    folder=$(release) && pytest "$folder" "$top/tests/mount/test_user.py"
}

part_real() {
    local folder
    need_fuse || return
    need_packages chromium || return
    folder=$(release) && pytest "$folder" "$top/tests/real" -s
}

part_memory() {
    local folder
    need_fuse || return
    folder=$(release) && pytest "$folder" "$top/tests/memory" -s
}

# sanitized BUILD ARGUMENT...: the mount tests that need no model loader, with a sanitizer in the daemon. What it finds
# after detaching it can tell nobody but a file.
sanitized() {
    local folder=$1 reports=$scratch/reports status=0
    shift
    rm -rf "$reports" && mkdir "$reports"
    ASAN_OPTIONS=log_path=$reports/asan UBSAN_OPTIONS=log_path=$reports/ubsan:print_stacktrace=1 \
    TSAN_OPTIONS=log_path=$reports/tsan:halt_on_error=0:exitcode=66 \
        pytest "$folder" "$top/tests/mount" --ignore "$top/tests/mount/test_user.py" \
        --ignore "$top/tests/mount/test_readers.py" --ignore "$top/tests/mount/test_helper.py" "$@" || status=1
    if [ -n "$(ls -A "$reports")" ]; then
        head -n 60 "$reports"/*
        status=1
    fi
    return $status
}

ASAN=(--buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false
      -Dc_args=-fno-sanitize-recover=undefined)

part_asan() {
    local folder
    folder=$(CC=gcc build gcc-asan "${ASAN[@]}") && unit_tests "$folder" || return
    need_fuse || return
    sanitized "$folder" || return
    folder=$(CC=clang build clang-asan "${ASAN[@]}") && unit_tests "$folder" && sanitized "$folder"
}

part_tsan() {
    local folder
    folder=$(CC=clang build clang-tsan --buildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false) || return
    unit_tests "$folder" pool cache engine survey export control || return
    need_fuse || return
    sanitized "$folder"
}

part_fuzz() {
    local folder target targets=(header index yaml stats variant) status=0 pids=() seeds
    folder=$(CC=clang build clang-fuzz --buildtype=debugoptimized -Dfuzzers=true -Dtests=false \
        -Db_sanitize=address,undefined -Db_lundef=false -Dc_args=-fsanitize=fuzzer-no-link) || return
    python && "$PYTHON" "$top/tests/fuzz/make_corpus.py" "$scratch/corpus" >/dev/null || return
    for target in "${targets[@]}"; do
        mkdir -p "$cache/fuzz/$target" # what it finds is kept; the other folders are only read
        seeds=("$scratch/corpus/$target")
        [ "$target" != stats ] || seeds=() # it makes a good file itself
        [ "$target" != yaml ] || seeds=("$top/tests/fuzz/corpus/yaml" "$top/tests/golden/cases")
        [ "$target" != variant ] || seeds=("$top/tests/fuzz/corpus/variant")
        "$folder/tests/fuzz/fuzz_$target" -max_total_time="$FUZZ_SECONDS" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
            -print_final_stats=1 -artifact_prefix="$scratch/$target-" "$cache/fuzz/$target" "${seeds[@]}" \
            >"$scratch/$target.log" 2>&1 &
        pids+=($!)
    done
    for target in "${targets[@]}"; do
        if wait "${pids[0]}"; then
            echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$scratch/$target.log") inputs"
        else
            tail -n 40 "$scratch/$target.log"
            cp "$scratch/$target"-* "$cache/" 2>/dev/null && echo "the input is in $cache"
            status=1
        fi
        pids=("${pids[@]:1}")
    done
    return $status
}

run_part() { # NAME; adds a row to the summary
    local begin=$SECONDS status word
    printf '\n== %s\n' "$1"
    "part_$1"
    status=$?
    case $status in
        0) word=ok ;;
        "$SKIPPED") word='CANNOT RUN HERE' ;;
        *) word=FAILED ;;
    esac
    [ $status = 0 ] || { [ $status = $SKIPPED ] && [ "${MELDFS_TESTS_SKIP_OK:-}" = 1 ]; } || failed=1
    summary+=$(printf '%-8s %4d s  %s' "$1" $((SECONDS - begin)) "$word")$'\n'
}

main() {
    local names=() name begin=$SECONDS
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit ;;
            -*) PYTEST=("$@"); break ;;
            quick) names+=(unit format golden report mount real) PYTEST=(-m quick) ;;
            *) names+=("$1") ;;
        esac
        shift
    done
    [ ${#names[@]} -gt 0 ] || names=("${PARTS[@]}")
    packages || exit 1
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/meldfs-tests.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    summary='' failed=0
    for name in "${names[@]}"; do
        if declare -F "part_$name" >/dev/null; then
            run_part "$name"
        elif [ -f "$top/tests/test_$name.c" ]; then
            unit_tests "$(release)" "$name" || failed=1
        else
            say "no part or module '$name'; parts: ${PARTS[*]}"
            exit 2
        fi
    done
    printf '\n%s%-8s %4d s\n' "$summary" all $((SECONDS - begin))
    exit $failed
}

main "$@"
