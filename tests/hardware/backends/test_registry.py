"""Tests of backends by name: options of each kind, and functions of a user."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ketfit.errors import ConfigError
from ketfit.hardware.backends.base import Backend
from ketfit.hardware.backends.registry import OPTIONS, load_backend
from ketfit.hardware.runs.plan import plan_run, write_plan
from ketfit.hardware.runs.run import fetch_run, submit_run
from ketfit.hardware.testing.conformance import check_backend
from tests.hardware.example_runs import classifier, embeddings

NAMES = {"simulator": "simulator:noise.toml", "aer": "aer", "ionq": "ionq:simulator", "ibm": "ibm:ibm_manila"}
ODD: tuple[Any, ...] = (
    math.inf, -math.inf, math.nan, -1, 0, 1, 0.5, 2.0, 10**40, "", "a", "2", True, False, None, [1], {"a": 1}, b"a"
)  # fmt: skip


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "noise.toml").write_text("depolarizing_1q = 0.01\n")
    monkeypatch.setenv("IONQ_API_KEY", "none")
    monkeypatch.setenv("QISKIT_IBM_TOKEN", "none")
    monkeypatch.setenv("QISKIT_IBM_INSTANCE", "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::")


@pytest.mark.parametrize(("kind", "option"), [(kind, option) for kind in OPTIONS for option in sorted(OPTIONS[kind])])
def test_odd_option_value_is_rejected_by_name_or_accepted(tmp_path: Path, kind: str, option: str) -> None:
    taken = []
    for value in ODD:
        try:
            backend = load_backend(NAMES[kind], tmp_path, {option: value})
        except ConfigError as error:  # noqa: PERF203
            assert option in str(error), (value, error)
        else:
            taken.append(value)
            json.dumps(dict(backend.describe().options), allow_nan=False)
    assert not any(isinstance(value, (list, dict, bytes)) for value in taken)
    numbers = [value for value in taken if isinstance(value, (int, float))]
    assert all(type(value) is int for value in numbers) and -1 not in numbers
    if option in ("trajectories", "max_seconds"):
        assert 0 not in numbers and 1 in numbers


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("option", ["client", "folder", "noise", "name", "seed", "device", "reset_first", "shots", ""])
def test_unknown_option_is_rejected_with_known_names(tmp_path: Path, kind: str, option: str) -> None:
    with pytest.raises(ConfigError, match=f"{kind} has no option {option!r}; known are .*max_circuits"):
        load_backend(NAMES[kind], tmp_path, {option: "x"})


INTEGERS = (int, np.int64, np.uint8, torch.tensor, np.array)
MINE = """
from ketfit.hardware.backends.base import Backend
from ketfit.hardware.backends.qiskit import QiskitBackend
from qiskit.providers.fake_provider import GenericBackendV2

def five_qubits(folder, seed, **options) -> Backend:
    device = GenericBackendV2(5, coupling_map=[[0, 1], [1, 2], [2, 3], [3, 4]], seed=1)
    return QiskitBackend(folder / "jobs", device, name="five-qubits", seed=seed, optimization_level=1, **options)

def fails(folder, seed):
    raise ZeroDivisionError("by hand")

def returns_a_number(folder, seed):
    return 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with modules of a user's own."""
    folder = tmp_path / "here"
    (folder / "my_lab").mkdir(parents=True)
    (folder / "mine_of_the_tests.py").write_text(MINE)
    (folder / "my_lab" / "__init__.py").write_text("")
    (folder / "my_lab" / "machine.py").write_text(MINE)
    (folder / "json.py").write_text("raise SystemExit('a file of the current folder took the place of a package')")
    (folder / "numpy.py").write_text("raise SystemExit('a file of the current folder took the place of a package')")
    (folder / "broken_of_the_tests.py").write_text("x = (")
    monkeypatch.chdir(folder)
    before = list(sys.path)
    yield folder
    assert sys.path == before
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mine_of_the_tests", "my_lab")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["mine_of_the_tests:five_qubits", "my_lab.machine:five_qubits"])
def test_function_in_current_folder_is_loaded_as_backend(own: Path, tmp_path: Path, name: str) -> None:
    backend: Backend = load_backend(name, tmp_path, {"max_circuits": 5}, allow_import=True)
    assert backend.describe().limits.circuits == 5
    assert all(finding.passed for finding in check_backend(backend, shots=500))
    with pytest.raises(ConfigError, match="a run's folder does not call it"):
        load_backend(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine_of_the_tests:nothing", "no attribute 'nothing'"),
        ("mine_of_the_tests:fails", "ZeroDivisionError: by hand"),
        ("mine_of_the_tests:returns_a_number", "returned int, which is no backend"),
        ("broken_of_the_tests:here", "SyntaxError"),
        ("nowhere_of_the_tests:here", "No module named 'nowhere_of_the_tests'"),
        ("json:loads", "cannot be made"),  # the one that Python finds, and not the one of the current folder
        ("numpy:array", "cannot be made"),
        ("ionqq:qpu.forte-1", "unknown backend 'ionqq:qpu.forte-1'; known are simulator, aer"),
        ("mine_of_the_tests:", "unknown backend"),
        (":five_qubits", "unknown backend"),
        ("../mine:five_qubits", "unknown backend"),
        ("", "unknown backend ''"),
    ],
)
def test_invalid_backend_name_is_rejected_with_reason(own: Path, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_backend(name, tmp_path, allow_import=True)
    assert "broken_of_the_tests" not in sys.modules


@pytest.mark.parametrize("integer", INTEGERS)
def test_options_accept_integers_of_any_type_and_are_planned(tmp_path: Path, integer: Any) -> None:
    options = {"max_circuits": integer(4), "trajectories": integer(2)}
    backend = load_backend("simulator:noise.toml", tmp_path, options, seed=integer(1))
    labels = np.array(["good"] * 12) if integer is np.int64 else None
    prepared = plan_run(
        classifier(),
        embeddings(),
        backend,
        name="simulator:noise.toml",
        options=options,
        labels=labels,
        seed=integer(1),
    )
    write_plan(tmp_path, prepared)
    submit_run(tmp_path)
    assert len(fetch_run(tmp_path)["predictions"]) == 12
