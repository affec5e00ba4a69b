#!/usr/bin/env bash
# Makes the peers' virtual environment, or brings an existing one to the pinned versions.
# Usage: setup.sh [ENVIRONMENT]   (default: build/peers-env; PYTHON picks the interpreter)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
environment=${1:-$here/../../build/peers-env}
requirements=$here/requirements.txt

[ -x "$environment/bin/python" ] || "${PYTHON:-python3}" -m venv "$environment"
pip=("$environment/bin/python" -m pip --disable-pip-version-check)
# torch first, on its own: a resolver that tries another version of it downloads gigabytes of CUDA.
"${pip[@]}" install --quiet "$(grep '^torch==' "$requirements")"
"${pip[@]}" install --quiet --requirement "$requirements"
"${pip[@]}" check
"$environment/bin/python" --version
"${pip[@]}" list --format freeze | grep -iE '^(deepquantum|jax|jaxlib|numpy|pennylane|pennylane[-_]lightning|pyqtorch|qulacs|tensorcircuit[-_]ng|torch)=='
