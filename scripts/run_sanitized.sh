#!/usr/bin/env bash
# The core tests under AddressSanitizer and UndefinedBehaviorSanitizer, with $CC (gcc or clang):
#
#   scripts/run_sanitized.sh PYTHON VENV [PYTEST ARGUMENT]...
set -euo pipefail
export CC=${CC:-gcc} UVLOOP_CLONE_SANITIZE=1
case $("$CC" --version | head -n 1) in
    *clang*) runtime=libclang_rt.asan-$(uname -m).so ;;
    *) runtime=libasan.so ;;
esac
runtime=$("$CC" -print-file-name="$runtime")
[ -e "$runtime" ] || { echo "error: $CC has no AddressSanitizer runtime" >&2; exit 1; }
# The interpreter itself is not instrumented, so the runtime must be there before it. What CPython
# keeps until its end is no leak of ours: `make leaks` looks for those. Reports go to files: none may
# be overlooked because a second try, or a test that expects its child to fail, succeeds.
reports=$(mktemp -d)
trap 'rm -rf "$reports"' EXIT
PYTEST_PREFIX="env LD_PRELOAD=$(realpath "$runtime") PYTHONMALLOC=malloc"
PYTEST_PREFIX+=" ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:allocator_may_return_null=1"
PYTEST_PREFIX+=":log_path=$reports/asan"
PYTEST_PREFIX+=" UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:log_path=$reports/ubsan"
export PYTEST_PREFIX
python=$1 venv=$2
shift 2
status=0
"$(dirname "$0")/run_installed.sh" "$python" "$venv" -m "core and not leaks" --loop uvloop_clone -k "not on_the_standard_loop" \
    --timeout 300 -n $((2 * $(getconf _NPROCESSORS_ONLN))) "$@" || status=$?
if grep -rE "ERROR: AddressSanitizer|runtime error:" "$reports"; then
    cat "$reports"/*
    status=1
fi
exit "$status"
