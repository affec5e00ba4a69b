"""Options, counts and limits of backends: integers of any kind are taken, everything else is refused by name."""

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

from ketfit.circuit.circuit import Angle, Circuit, ry
from ketfit.errors import ConfigError, InputError, WrongCountsError
from ketfit.hardware.backends.aer import aer_simulator
from ketfit.hardware.backends.base import Backend, BoundCircuit, Description, Limits, check_submission
from ketfit.hardware.backends.local import Simulator
from ketfit.hardware.backends.qiskit import QiskitBackend, to_big_endian_counts
from ketfit.hardware.backends.registry import OPTIONS, load_backend
from ketfit.hardware.backends.retry import RetryPolicy
from ketfit.hardware.pricing import estimate, load_device
from ketfit.hardware.runs.canary import check_counts
from ketfit.hardware.runs.ledger import read_ledger_state
from ketfit.hardware.runs.plan import plan_run, write_plan
from ketfit.hardware.runs.run import fetch_run, submit_run
from ketfit.hardware.runs.session import Budget, Session
from ketfit.hardware.testing.conformance import check_backend
from ketfit.hardware.testing.faulty_backend import FaultInjectingBackend
from ketfit.simulate.noise import NoiseConfig
from tests.hardware.example_runs import classifier, embeddings, planned, simulator
from tests.hardware.ionq_circuits import some_circuits

NAMES = {"simulator": "simulator:noise.toml", "aer": "aer", "ionq": "ionq:simulator", "ibm": "ibm:ibm_manila"}
ODD: tuple[Any, ...] = (
    math.inf, -math.inf, math.nan, -1, 0, 1, 0.5, 2.0, 10**40, "", "a", "2", True, False, None, [1], {"a": 1}, b"a"
)  # fmt: skip
ONE = BoundCircuit(Circuit(1, (ry(0, Angle("weight", 0)),), 1, 0), (0.3,))
NOISE = NoiseConfig(depolarizing_1q=0.01)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "noise.toml").write_text("depolarizing_1q = 0.01\n")
    monkeypatch.setenv("IONQ_API_KEY", "none")
    monkeypatch.setenv("QISKIT_IBM_TOKEN", "none")
    monkeypatch.setenv("QISKIT_IBM_INSTANCE", "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::")


@pytest.mark.parametrize(("kind", "option"), [(kind, option) for kind in OPTIONS for option in sorted(OPTIONS[kind])])
def test_odd_value_of_an_option_is_refused_by_name_or_taken(tmp_path: Path, kind: str, option: str) -> None:
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
def test_option_that_a_backend_does_not_have_is_refused_with_those_it_has(
    tmp_path: Path, kind: str, option: str
) -> None:
    with pytest.raises(ConfigError, match=f"{kind} has no option {option!r}; known are .*max_circuits"):
        load_backend(NAMES[kind], tmp_path, {option: "x"})


INTEGERS = (int, np.int64, np.uint8, torch.tensor, np.array)


@pytest.mark.parametrize("integer", INTEGERS)
def test_integers_of_any_kind_are_counts(tmp_path: Path, integer: Any) -> None:
    backend = Simulator(tmp_path / "s", NOISE, trajectories=integer(3), seed=integer(4), max_circuits=integer(9))
    assert backend.describe().options["trajectories"] == 3
    json.dumps(dict(backend.describe().options))
    assert check_submission(backend.describe(), [ONE], integer(100), "t") == 100
    (counts,) = backend.result(backend.submit([ONE], integer(100), tag="a"))
    assert sum(counts.values()) == 100
    aer = QiskitBackend(tmp_path / "a", aer_simulator(), seed=integer(1), optimization_level=integer(0))
    assert sum(aer.result(aer.submit([ONE], integer(100), tag="a"))[0].values()) == 100
    budget = Budget(circuits=integer(50), shots=integer(250))
    with Session(tmp_path / "run", backend, "r1", budget=budget) as session:
        assert len(session.run(some_circuits(1), integer(100), wait_s=5)) == 1
        assert len(session.counts(some_circuits(1), 100)) == 1
    assert estimate(aer.count_gates([ONE]), integer(5), load_device("ionq-aria")).shots == 5
    made = planned(tmp_path / "plan", shots=integer(100), seed=integer(2))
    assert (made.plan.shots, made.plan.seed) == (100, 2)
    assert all(finding.passed for finding in check_backend(simulator(tmp_path / "c", 10), shots=integer(200)))


@pytest.mark.parametrize(
    "shots", [True, 100.0, np.float64(100), "100", None, 0, -1, math.nan, np.array([1]), 2**53 + 1]
)
def test_shots_that_are_no_count_are_refused_everywhere(tmp_path: Path, shots: Any) -> None:
    backend = simulator(tmp_path)
    for call in (
        lambda: check_submission(backend.describe(), [ONE], shots, "t"),
        lambda: backend.submit([ONE], shots, tag="a"),
        lambda: plan_run(classifier(), embeddings(), backend, name="simulator", shots=shots),
        lambda: check_backend(backend, shots=shots),
        lambda: Session(tmp_path / "run", backend, "r1").__enter__().submit([ONE], shots),
    ):
        with pytest.raises(ConfigError, match="shots"):
            call()
    assert not (tmp_path / "jobs").exists()


@pytest.mark.parametrize("trajectories", [0, -1, 0.5, 2.0, True, "2", np.float64(3)])
def test_trajectories_that_are_no_count_are_refused_when_the_backend_is_made(tmp_path: Path, trajectories: Any) -> None:
    with pytest.raises(ConfigError, match="trajectories"):
        Simulator(tmp_path, NOISE, trajectories=trajectories)


def test_what_expectation_refuses_is_refused_when_the_simulator_is_made_or_planned(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sample noise; pass noise too"):
        Simulator(tmp_path, trajectories=5)
    with pytest.raises(ConfigError, match="noise is of type dict"):
        Simulator(tmp_path, {"depolarizing_1q": 0.1})  # type: ignore[arg-type]
    relaxing = NoiseConfig(t1_us=100.0, time_1q_us=1.0)
    with pytest.raises(ConfigError, match="pauli_twirl"):
        Simulator(tmp_path, relaxing, trajectories=5)
    many = BoundCircuit(Circuit(13, (), 0, 0), (), (), tuple(range(13)))
    with pytest.raises(InputError, match="measures 13 qubits; simulator reads at most 12"):
        check_submission(Simulator(tmp_path).describe(), [many], 1, "t")
    wide = BoundCircuit(Circuit(16, (), 0, 0), ())
    with pytest.raises(InputError, match="16 qubits"):
        check_submission(Simulator(tmp_path, NOISE).describe(), [wide], 1, "t")
    check_submission(Simulator(tmp_path, NOISE, trajectories=5).describe(), [wide], 1, "t")


@pytest.mark.parametrize("money", [math.inf, math.nan, -1.0, True])
def test_limit_on_money_that_is_none_is_refused(tmp_path: Path, money: float) -> None:
    with pytest.raises(ConfigError, match="max_cost"):
        planned(tmp_path, max_cost=money)
    assert not (tmp_path / "plan.json").exists()


@pytest.mark.parametrize("option", [math.inf, math.nan, [1], {"a": 1}, b"x"])
def test_description_and_plan_refuse_options_that_json_cannot_hold(tmp_path: Path, option: Any) -> None:
    with pytest.raises(ConfigError, match="option noise="):
        Description("ours", {"noise": option})
    with pytest.raises(ConfigError, match="option noise="):
        plan_run(classifier(), embeddings(), simulator(tmp_path), name="simulator", options={"noise": option})


@pytest.mark.parametrize("limit", ["qubits", "circuits", "shots", "min_shots", "measured"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_limits_are_whole_numbers(limit: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=limit):
        Limits(**{limit: value})
    assert getattr(Limits(**{limit: np.int64(3)}), limit) == 3


class Counting(FaultInjectingBackend):
    """A backend whose counts are of another type."""

    kind: Any = np.int64

    def result(self, job: str) -> list[dict[str, Any]]:
        return [{reading: self.kind(count) for reading, count in row.items()} for row in super().result(job)]


@pytest.mark.parametrize("kind", [np.int64, np.uint32, torch.tensor])
def test_counts_of_any_integer_type_are_kept_as_json(tmp_path: Path, kind: Any) -> None:
    backend = Counting(simulator(tmp_path))
    backend.kind = kind
    with Session(tmp_path / "run", backend, "r1") as session:
        counts = session.run(some_circuits(2), 50, wait_s=5)
    assert all(type(count) is int for row in counts for count in row.values())
    assert read_ledger_state(tmp_path / "run").results
    assert to_big_endian_counts({"01": kind(3)}, 2) == {"10": 3}


@pytest.mark.parametrize("kind", [float, str, np.float32, lambda count: count + 0.5, lambda count: math.nan])
def test_counts_that_are_no_integers_are_kept_and_rejected(tmp_path: Path, kind: Any) -> None:
    backend = Counting(simulator(tmp_path))
    backend.kind = kind
    with Session(tmp_path / "run", backend, "r1") as session, pytest.raises(WrongCountsError, match="whole number"):
        session.run(some_circuits(2), 50, wait_s=5)
    (submission,) = read_ledger_state(tmp_path / "run").submissions
    assert submission.ended == "rejected"
    with pytest.raises(WrongCountsError):
        to_big_endian_counts({"01": kind(3)}, 2)
    with pytest.raises(WrongCountsError):
        simulator(tmp_path / "kept").save(0, "t", 3, [{"01": kind(3)}])


@pytest.mark.parametrize("count", [True, -1, 2.5, "3"])
def test_count_that_is_none_is_refused(count: Any) -> None:
    with pytest.raises(WrongCountsError):
        check_counts([{"0": count}], [1], 3)


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
def test_function_of_a_module_in_the_current_folder_is_a_backend(own: Path, tmp_path: Path, name: str) -> None:
    backend: Backend = load_backend(name, tmp_path, {"max_circuits": 5}, allow_import=True)
    assert backend.describe().limits.circuits == 5
    assert all(finding.passed for finding in check_backend(backend, shots=500))
    with pytest.raises(ConfigError, match="a run's folder does not call it"):
        load_backend(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "told"),
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
def test_name_that_is_no_backend_is_refused_with_what_is_wrong(own: Path, tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_backend(name, tmp_path, allow_import=True)
    assert "broken_of_the_tests" not in sys.modules


@pytest.mark.parametrize("integer", INTEGERS)
def test_options_by_name_take_integers_of_any_kind_and_a_plan_writes_them(tmp_path: Path, integer: Any) -> None:
    options = {"max_circuits": integer(4), "trajectories": integer(2)}
    backend = load_backend("simulator:noise.toml", tmp_path, options, seed=integer(1))
    labels = np.array(["good"] * 12) if integer is np.int64 else None
    made = plan_run(
        classifier(),
        embeddings(),
        backend,
        name="simulator:noise.toml",
        options=options,
        labels=labels,
        seed=integer(1),
    )
    write_plan(tmp_path, made)
    submit_run(tmp_path)
    assert len(fetch_run(tmp_path)["predictions"]) == 12


@pytest.mark.parametrize("name", ["deadline_s", "initial_pause_s", "max_pause_s"])
@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_seconds_that_end_never_are_refused(name: str, seconds: float) -> None:
    with pytest.raises(ConfigError, match=name):
        RetryPolicy(**{name: seconds})
    with pytest.raises(ConfigError, match="wait_s"):
        RetryPolicy().wait_until(lambda: False, -abs(seconds))
