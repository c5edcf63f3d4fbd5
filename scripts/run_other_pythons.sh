#!/usr/bin/env bash
# The core tests on every other supported Python that this machine has: on PATH, among pyenv's, or in
# a neighbouring folder's root of newer Pythons (../shared/tools/newpythons), where that is set up.
#
#   scripts/run_other_pythons.sh [VERSION]...
set -euo pipefail
cd "$(dirname "$0")/.."
versions=("$@")
[ ${#versions[@]} -gt 0 ] || versions=(3.10 3.11 3.12 3.13 3.14 3.15)
own=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# Most tests wait: more workers than CPUs keep these busy. The examples run on the project's own Python.
selection=(-m "core and not leaks and not slow" -k "not test_examples" --loop uvloop_clone
    -n $((2 * $(getconf _NPROCESSORS_ONLN) + 1)) -q)
newpythons=../shared/tools/newpythons

usable() { # is $1 a Python of version $2 that can build an extension?
    "$1" - "$2" <<'PY' 2>/dev/null
import ensurepip, os, sys, sysconfig, venv
same = sys.version_info[:2] == tuple(map(int, sys.argv[1].split(".")))
sys.exit(not (same and os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))))
PY
}

find_python() { # the path of a usable Python $1, or nothing
    local candidate
    for candidate in "$(command -v "python$1" || true)" "$HOME/.pyenv/versions/$1".*/bin/python3; do
        if [ -x "$candidate" ] && usable "$candidate" "$1"; then
            echo "$candidate"
            return
        fi
    done
}

newpythons_ready() { # the root's folder is what the tool itself takes it to be
    [ -x "$newpythons" ] || return 1
    local root
    root=$(sed -n 's/^ROOT=\${NEWPYTHONS_ROOT:-\(.*\)}$/\1/p' "$newpythons")
    [ -e "${NEWPYTHONS_ROOT:-$root}/.ready" ]
}

run_in_newpythons() { # on a copy of the checkout: the two sides share no build
    "$newpythons" run sh -euc '
        command -v "python$1" >/dev/null
        copy=$(mktemp -d)
        trap "rm -rf \"$copy\"" EXIT
        tar -C /project --exclude=./build --exclude=./dist --exclude="./.venv*" --exclude="*.so" -c . |
            tar -C "$copy" -x
        python=python$1 venv=/opt/uvloop_clone-ci-$1
        shift
        "$copy/scripts/run_installed.sh" "$python" "$venv" "$@"
    ' sh "$1" "${selection[@]}"
}

skipped=()
for version in "${versions[@]}"; do
    [ "$version" != "$own" ] || continue
    python=$(find_python "$version")
    if [ -n "$python" ]; then
        echo "== Python $version: $python"
        scripts/run_installed.sh "$python" ".venv-$version" "${selection[@]}"
    elif newpythons_ready && "$newpythons" run sh -c 'command -v "python$1"' sh "$version" >/dev/null; then
        echo "== Python $version: $newpythons"
        run_in_newpythons "$version"
    else
        skipped+=("$version")
    fi
done
[ ${#skipped[@]} = 0 ] || echo "not on this machine: Python ${skipped[*]}"
