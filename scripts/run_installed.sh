#!/usr/bin/env bash
# Installs the package, as a user would, into a virtual environment of its own and runs tests there:
#
#   scripts/run_installed.sh PYTHON VENV [PYTEST ARGUMENT]...
#
# The tests run from an empty folder, so that nothing can be imported from the checkout by accident.
# PYTEST_PREFIX, split at spaces, goes before the interpreter (`env NAME=value`). With CI=true, what
# failed gets a second chance alone: a busy machine is no fault of the code.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=$1 venv=$2
shift 2
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
venv=$(cd "$venv" && pwd)
"$venv/bin/python" -m pip install -q "$root[${EXTRAS:-core-test}]"
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
cd "$empty"
tests() {
    # shellcheck disable=SC2086
    ${PYTEST_PREFIX:-} "$venv/bin/python" -m pytest -c "$root/pyproject.toml" --rootdir "$root" \
        -o cache_dir="$venv/.pytest_cache" "$@" "$root/tests"
}
if ! tests "$@"; then
    [ "${CI:-}" = true ] || exit 1
    tests "$@" -n 0 --last-failed --last-failed-no-failures none
fi
