#!/usr/bin/env bash
# Runs the kernel's tests on a kernel built with the address, undefined-behaviour and thread sanitizers. Its baseline
# has vectors of 64 bytes, so that the lanes of AVX-512 are tried on processors without it. Argument: a Python that has
# KetFit, its tests' tools, cmake and nanobind.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "$1")
compiler=${CXX:-g++}

cmake() { "$python" -m cmake "$@"; }
library() { "$compiler" -print-file-name="$1"; }

run() { # sanitizers, libraries to load first, tests to choose
    local build="build/sanitize-${1%%,*}"
    cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DKETFIT_SANITIZE="$1" -DKETFIT_BASELINE_BYTES=64 \
        -DPython_EXECUTABLE="$python" -Dnanobind_DIR="$("$python" -m nanobind --cmake_dir)" >"$build.log"
    cmake --build "$build" --parallel 2 >>"$build.log"
    KETFIT_KERNEL=$(echo "$build"/_kernel*.so) LD_PRELOAD="$2:$(library libstdc++.so.6)" \
        "$python" -m pytest -p tests.built_kernel -n 0 -q -k "$3" \
        tests/simulate/test_native.py tests/simulate/test_native_signs.py tests/simulate/test_density_matrix.py \
        tests/simulate/test_density_matrix_loading.py tests/simulate/test_expectation_and_gradients.py \
        tests/simulate/test_complex_statevector.py tests/simulate/test_kernel_observables.py tests/simulate/test_state.py
}

mkdir -p build
# Python and torch keep memory until the process ends, which is not a leak of ours.
ASAN_OPTIONS=detect_leaks=0 run address,undefined "$(library libasan.so):$(library libubsan.so)" "test and not aer"
# The thread sanitizer does not follow threads that start in a forked child.
TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp" run thread "$(library libtsan.so)" "not forked and not concurrent_adjoint_passes and not aer"
