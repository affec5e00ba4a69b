"""Every argument that is an index or a count: integers of all kinds give one result, everything else is refused.

A test goes through all kinds, and prints each, so that a failure shows where it stood.
"""

from __future__ import annotations

import array
import enum
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np
import pandas as pd
import pennylane as qml
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ketfit import (
    HeadConfig,
    NoiseConfig,
    QuantumHead,
    QuantumHeadClassifier,
    TrainConfig,
    expectation,
    expectation_and_gradients,
)
from ketfit.circuit import (
    Angle,
    Circuit,
    Gate,
    Hermitian,
    PauliSum,
    Projector,
    cx,
    encoder_circuit,
    reuploading_circuit,
    ring_layers,
    ry,
)
from ketfit.circuit.ansatz import count_ring_weights
from ketfit.circuit.drawing.figure import draw_figure
from ketfit.circuit.drawing.svg import SvgLayout, draw_svg
from ketfit.circuit.drawing.text import draw_text
from ketfit.circuit.export import to_pennylane, to_qasm3, to_qiskit
from ketfit.data.dataset import Dataset
from ketfit.data.splits import few_shot_split, fold_splits, holdout_split
from ketfit.energy.crossover import CrossoverModel
from ketfit.energy.profiles import ProcessorProfile, QpuProfile, StatevectorProfile, load_profile
from ketfit.errors import CircuitError, KetFitError
from ketfit.estimators.classical import MLPHead, ProjectedLogisticRegressionHead, matching_hidden_units
from ketfit.evaluation.compare import count_parameters, evaluate_head
from ketfit.evaluation.metrics import calibration
from ketfit.hardware.backends.base import BoundCircuit, Description, check_submission
from ketfit.hardware.training import HardwareTraining
from ketfit.model.diagram import draw_overview
from ketfit.model.encoder import Encoder, load_amplitudes
from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig
from ketfit.rng import numpy_stream, torch_stream
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.mitigation import extrapolation, fold_gates, mitigated_expectation
from ketfit.simulate.noise import noisy_light_cone
from ketfit.simulate.shots import rotations_as_inputs, step_cost
from ketfit.simulate.state import probabilities, sample_counts
from ketfit.simulate.tensor_network import network_expectation, plan_contraction
from ketfit.simulate.trajectories import sample_frames, trajectory_expectation
from ketfit.study.analysis.hypothesis_tests import summarize
from ketfit.study.analysis.power import detectable_difference
from ketfit.study.spec import DataPlan, HeadPlan, StudyPlan
from tests.circuits import random_circuit


class Indexed:
    """An integer of somebody else's library."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


INTEGERS: dict[str, Callable[[int], Any]] = {
    "IntEnum": lambda number: enum.IntEnum("Number", {"VALUE": number})(number),
    "__index__": Indexed,
    **{f"numpy {kind}": np.dtype(kind).type for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")},
    "0-d array": np.array,
    **{
        str(dtype): lambda number, dtype=dtype: torch.tensor(number, dtype=dtype)
        for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    },
}

NOT_INTEGERS: dict[str, Any] = {
    "True": True,
    "numpy bool": np.True_,
    "0-d array of bool": np.array(True),
    "torch bool": torch.tensor(True),
    "0.5": 0.5,
    "1.0": 1.0,
    "numpy 1.0": np.float64(1),
    "torch 1.0": torch.tensor(1.0),
    "str": "1",
    "bytes": b"1",
    "None": None,
    "list": [1],
    "array": np.array([1]),
    "tensor": torch.tensor([1]),
    "complex": 1 + 0j,
}


@dataclass(frozen=True)
class Argument:
    """A call with one argument left open, the name that an error has to tell, and a number that fits."""

    call: Callable[[Any], Any]
    name: str
    number: int = 1
    takes_none: bool = False


W0, CHANCE = Angle("weight", 0), np.random.default_rng(0)
CIRCUIT = random_circuit(3, 14, seed=2)
SINGLE = rotations_as_inputs(CIRCUIT)[0]
WEIGHTS = torch.linspace(-1, 2, CIRCUIT.n_weights, dtype=torch.float64)
INPUTS = torch.linspace(-2, 1, 2 * CIRCUIT.n_inputs, dtype=torch.float64).view(2, -1)
NOISE = NoiseConfig(depolarizing_2q=0.1, bit_flip=0.02, readout=((0.9, 0.2), (0.1, 0.8)))
EMBEDDINGS = np.random.default_rng(1).normal(size=(24, 6))
LABELS = (EMBEDDINGS[:, 0] > 0).astype(int)
DATASET = Dataset("d", tuple(f"sentence {i}" for i in range(24)), tuple("ab" * 12))
HEAD = HeadConfig(n_qubits=3, connectivity=1, shots=10, gradient="parameter_shift")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def with_gradients(**arguments: Any) -> list[Tensor]:
    weights, inputs = WEIGHTS.clone().requires_grad_(), INPUTS.clone().requires_grad_()
    values = expectation(CIRCUIT, weights, inputs, generator=generator(), **arguments)
    return [values, *torch.autograd.grad(values.square().sum(), (weights, inputs))]


def trajectories(**arguments: Any) -> Any:
    given = {"measured": (0, 2), "trajectories": 3, **arguments}
    batch = CircuitBatch(CIRCUIT, WEIGHTS, INPUTS)
    estimate = trajectory_expectation(batch, noise=NOISE, generator=generator(), **given)
    return [estimate.mean, estimate.standard_error]


def mitigated(**arguments: Any) -> Tensor:
    given = {"mitigation": ("readout", "zero_noise"), "noise": NOISE, "generator": generator(), **arguments}
    return mitigated_expectation(CIRCUIT, WEIGHTS, INPUTS, **given)


def head(embedding_dim: Any = 6, n_classes: Any = 2) -> list[Any]:
    made = QuantumHead(HEAD, embedding_dim, n_classes)
    return [repr(made), made.embedding_dim, made.n_classes, *made.state_dict().values()]


def pennylane_values(measured: Any) -> Any:
    device = qml.device("default.qubit", wires=CIRCUIT.n_qubits)
    function = qml.QNode(to_pennylane(CIRCUIT, measured), device)
    return np.array(function(WEIGHTS.numpy(), INPUTS[0].numpy()))


def figure_texts(measured: Any) -> list[str]:
    return [text.get_text() for text in draw_figure(CIRCUIT, measured=measured).axes[0].texts]


def bound(measured: Any) -> list[Any]:
    made = BoundCircuit(CIRCUIT, tuple(WEIGHTS.tolist()), tuple(INPUTS[0].tolist()), measured)
    return [made, hash(made), made.measured, made.qasm, made.key]


def comparison() -> CrossoverModel:
    profiles = (load_profile("ionq-forte", QpuProfile), load_profile("statevector", StatevectorProfile))
    return CrossoverModel(HeadConfig(n_qubits=4), *profiles)


def study(**settings: Any) -> StudyPlan:
    return StudyPlan(**{"name": "a", "seeds": 2, "heads": {"q": HeadPlan(kind="quantum", settings={})}, **settings})


def projected(n_components: Any) -> NDArray[np.float64]:
    return ProjectedLogisticRegressionHead(n_components).fit(EMBEDDINGS, LABELS).predict_proba(EMBEDDINGS)


def perceptron(hidden: Any) -> NDArray[np.float64]:
    return MLPHead(hidden, train=TrainConfig(epochs=1)).fit(EMBEDDINGS, LABELS).predict_proba(EMBEDDINGS)


FITTED = ProjectedLogisticRegressionHead(3).fit(EMBEDDINGS, LABELS)


def quantum_head(**settings: Any) -> Any:
    head = HeadConfig(n_qubits=3, encoder_layers=1, connectivity=1, main_layers=1)
    return (
        QuantumHeadClassifier(head, TrainConfig(epochs=1), **settings).fit(EMBEDDINGS, LABELS).predict_proba(EMBEDDINGS)
    )


ARGUMENTS: dict[str, Argument] = {
    # circuits
    "Angle": Argument(lambda v: Angle("weight", v), "index"),
    "Gate qubits": Argument(lambda v: Gate("cx", (v, 0)), "qubits"),
    "PauliSum": Argument(lambda v: PauliSum([(1.0, "ZX", (0, v))]), "qubits"),
    "Projector": Argument(lambda v: Projector("01", (0, v)), "qubits"),
    "Hermitian": Argument(lambda v: Hermitian([[0, 1], [1, 0]], (v,)), "qubits"),
    "probabilities": Argument(lambda v: probabilities(CIRCUIT, WEIGHTS, INPUTS, qubits=(0, v)), "qubits"),
    "sample_counts": Argument(
        lambda v: sample_counts(CIRCUIT, WEIGHTS, INPUTS, shots=v, generator=generator()), "shots", 100
    ),
    "Gate qubits of a unitary": Argument(lambda v: Gate("unitary", [v], matrix=[[0, 1], [1, 0]]), "qubits"),
    "ry": Argument(lambda v: ry(v, W0), "target"),
    "cx control": Argument(lambda v: cx(v, 0), "control"),
    "cx target": Argument(lambda v: cx(0, v), "target"),
    "Circuit n_qubits": Argument(lambda v: Circuit(v, (), 0, 0), "n_qubits"),
    "Circuit n_weights": Argument(lambda v: Circuit(1, (), v, 0), "n_weights"),
    "Circuit n_inputs": Argument(lambda v: Circuit(1, (), 0, v), "n_inputs"),
    "from_gates": Argument(lambda v: Circuit.from_gates(v, [cx(0, 1)]), "n_qubits", 2),
    "gates": Argument(lambda v: Circuit.from_gates(2, [ry(v, W0), cx(v, 0), cx(0, v)]), "target"),
    "light_cone": Argument(lambda v: CIRCUIT.light_cone([v]), "qubits"),
    "check_qubits": Argument(lambda v: CIRCUIT.check_qubits((0, v)), "qubits"),
    "noisy_light_cone": Argument(lambda v: noisy_light_cone(CIRCUIT, (v, 2)), "measured"),
    **{
        f"{function.__name__} {name}": Argument(
            lambda v, function=function, name=name: function(
                **{"n_qubits": 3, "layers": 2, "connectivity": 2, name: v}
            ),
            name,
            {"n_qubits": 3}.get(name, 1),
        )
        for function in (ring_layers, encoder_circuit, count_ring_weights)
        for name in ("n_qubits", "layers", "connectivity")
    },
    **{
        f"reuploading_circuit {name}": Argument(
            lambda v, place=place: (
                reuploading_circuit(*[v if here == place else 2 for here in range(4)], 1)
                if place < 4
                else reuploading_circuit(3, 1, 1, 1, v)
            ),
            name,
            2 if name == "n_qubits" else 1,
        )
        for place, name in enumerate(("n_qubits", "n_reuploads", "reupload_layers", "main_layers", "connectivity"))
    },
    "to_qasm3": Argument(lambda v: to_qasm3(CIRCUIT, measured=(2, v)), "measured"),
    "to_qiskit": Argument(lambda v: to_qiskit(CIRCUIT, WEIGHTS, INPUTS[0], measured=[v]), "measured"),
    "to_pennylane": Argument(lambda v: pennylane_values((2, v)), "measured"),
    "draw_text measured": Argument(lambda v: draw_text(CIRCUIT, measured=[v]), "measured"),
    "draw_text width": Argument(lambda v: draw_text(CIRCUIT, width=v), "width", 60, takes_none=True),
    "draw_figure": Argument(lambda v: figure_texts([v]), "measured"),
    "draw_svg measured": Argument(lambda v: draw_svg(CIRCUIT, measured=[v]), "measured"),
    "draw_svg sections": Argument(
        lambda v: draw_svg(CIRCUIT, layout=SvgLayout(sections=[("first", v), ("rest", len(CIRCUIT.gates) - 1)])),
        "sections",
    ),
    "BoundCircuit": Argument(lambda v: bound((v, 0)), "measured"),
    # simulators
    "expectation qubits": Argument(lambda v: with_gradients(qubits=(2, v)), "qubits"),
    "expectation of torch": Argument(lambda v: with_gradients(qubits=(2, v), engine="torch"), "qubits"),
    "expectation under noise": Argument(lambda v: with_gradients(qubits=(2, v), noise=NOISE), "qubits"),
    "expectation shots": Argument(lambda v: with_gradients(shots=v), "shots", 7, takes_none=True),
    "expectation trajectories": Argument(
        lambda v: with_gradients(noise=NOISE, trajectories=v), "trajectories", 3, takes_none=True
    ),
    "expectation_and_gradients": Argument(
        lambda v: expectation_and_gradients(CIRCUIT, WEIGHTS, INPUTS, qubits=(2, v)), "qubits"
    ),
    "mitigated_expectation qubits": Argument(lambda v: mitigated(qubits=(2, v)), "qubits"),
    "mitigated_expectation shots": Argument(lambda v: mitigated(shots=v), "shots", 7, takes_none=True),
    "mitigated_expectation trajectories": Argument(
        lambda v: mitigated(trajectories=v), "trajectories", 3, takes_none=True
    ),
    "mitigated_expectation folds": Argument(lambda v: mitigated(folds=(v, 3, 7)), "folds"),
    "mitigated_expectation degree": Argument(lambda v: mitigated(degree=v), "degree"),
    "extrapolation folds": Argument(lambda v: extrapolation((v, 3), 1), "folds"),
    "extrapolation degree": Argument(lambda v: extrapolation((1, 3), v), "degree"),
    "fold_gates": Argument(lambda v: fold_gates(SINGLE, v), "fold", 3),
    "measure_trajectories measured": Argument(lambda v: trajectories(measured=(2, v)), "measured"),
    "measure_trajectories trajectories": Argument(lambda v: trajectories(trajectories=v), "trajectories", 3),
    "sample_frames count": Argument(
        lambda v: sample_frames(CIRCUIT, (0,), NOISE, v, np.random.default_rng(0)), "count", 5
    ),
    "plan_contraction": Argument(lambda v: plan_contraction(CIRCUIT, v), "qubit"),
    "network_expectation qubits": Argument(lambda v: network_expectation(CIRCUIT, WEIGHTS, INPUTS[0], [v]), "qubits"),
    "network_expectation memory": Argument(
        lambda v: network_expectation(ring_layers(2, 0, 1), (), memory=v), "memory", 127, takes_none=True
    ),
    "step_cost batch": Argument(lambda v: step_cost(CIRCUIT, v, 10, "parameter_shift"), "batch", 4),
    "step_cost shots": Argument(lambda v: step_cost(CIRCUIT, 4, v, "parameter_shift"), "shots", 10),
    # heads
    "QuantumHead embedding_dim": Argument(lambda v: head(embedding_dim=v), "embedding_dim", 5),
    "QuantumHead n_classes": Argument(lambda v: head(n_classes=v), "n_classes", 3),
    "QuantumHead step_cost": Argument(QuantumHead(HEAD, 6, 2).step_cost, "batch", 4),
    "Encoder": Argument(lambda v: Encoder(HEAD, v, generator()).widths, "embedding_dim", 5),
    "load_amplitudes": Argument(lambda v: load_amplitudes(torch.from_numpy(EMBEDDINGS), v), "n_qubits", 3),
    "recommended embedding_dim": Argument(HeadConfig.recommended, "embedding_dim", 100),
    "recommended n_classes": Argument(lambda v: HeadConfig.recommended(100, v), "n_classes", 3),
    "draw_overview embedding_dim": Argument(lambda v: draw_overview(HEAD, v, 2), "embedding_dim", 6),
    "draw_overview n_classes": Argument(lambda v: draw_overview(HEAD, 6, v), "n_classes", 2),
    "count_parameters": Argument(lambda v: count_parameters(HEAD, 6, v), "n_classes", 2),
    # settings
    **{
        f"{config.__name__} {name}": Argument(
            lambda v, config=config, name=name, others=others: config(**{**others, name: v}), name, number, takes_none
        )
        for config, others, settings in (
            (
                HeadConfig,
                {"noise": NOISE, "trajectories": 4},
                {"n_qubits": 5, "n_encoders": 2, "encoder_layers": 3, "connectivity": 1, "n_reuploads": 2}
                | {"reupload_layers": 2, "main_layers": 3, "n_measured": 2, "shots?": 100, "trajectories?": 9},
            ),
            (TrainConfig, {}, {"epochs": 3, "batch_size": 7, "patience?": 2}),
            (
                ContrastiveConfig,
                {"loss": "cosine"},
                {"batch_size?": 7, "epochs": 2, "pairs_per_sentence": 3, "last_layers?": 1},
            ),
            (EndToEndConfig, {}, {"batch_size": 7, "epochs": 2, "patience?": 3, "last_layers?": 1}),
            (HardwareTraining, {"method": "spsa"}, {"steps": 3, "batch_size": 7, "shots": 100}),
            (DataPlan, {}, {"per_label": 8}),
        )
        for named, number in settings.items()
        for name, takes_none in [(named.removesuffix("?"), named.endswith("?"))]
    },
    "StudyPlan seeds": Argument(lambda v: study(seeds=(0, v)), "seeds"),
    "StudyPlan number of seeds": Argument(lambda v: study().with_overrides(n_seeds=v), "n_seeds", 3, takes_none=True),
    "StudyPlan settings of a head": Argument(
        lambda v: HeadPlan(kind="quantum", settings={"main_layers": v}).quantum(8, 2), "main_layers", 2
    ),
    # chance, data, comparisons, energy, hardware, statistics
    "numpy_stream seed": Argument(lambda v: numpy_stream(v, "split").random(3), "seed"),
    "numpy_stream counter": Argument(lambda v: numpy_stream(0, "pairs", 2, v).random(3), "counters"),
    "torch_stream seed": Argument(lambda v: torch_stream(v, "init").initial_seed(), "seed"),
    "torch_stream counter": Argument(lambda v: torch_stream(0, "shots", v).initial_seed(), "counters"),
    "estimator seed": Argument(lambda v: quantum_head(seed=v), "seed"),
    "estimator random_state": Argument(lambda v: quantum_head(random_state=v), "random_state", takes_none=True),
    "few_shot_split per_label": Argument(lambda v: few_shot_split(DATASET, v), "per_label", 4),
    "few_shot_split seed": Argument(lambda v: few_shot_split(DATASET, 4, seed=v), "seed"),
    "holdout_split seed": Argument(lambda v: holdout_split(LABELS, 0.3, v), "seed"),
    "fold_splits n_folds": Argument(lambda v: fold_splits(LABELS, v, 0), "n_folds", 3),
    "fold_splits seed": Argument(lambda v: fold_splits(LABELS, 3, v), "seed"),
    "calibration bins": Argument(lambda v: calibration(FITTED.predict_proba(EMBEDDINGS), LABELS, v), "bins", 4),
    "matching_hidden_units parameters": Argument(lambda v: matching_hidden_units(v, 6, 2), "match_parameters", 90),
    "matching_hidden_units embedding_dim": Argument(lambda v: matching_hidden_units(90, v, 2), "embedding_dim", 6),
    "matching_hidden_units n_classes": Argument(lambda v: matching_hidden_units(90, 6, v), "n_classes", 3),
    "MLPHead": Argument(perceptron, "hidden", 3),
    "ProjectedLogisticRegressionHead": Argument(projected, "n_components", 3),
    "evaluate_head": Argument(lambda v: evaluate_head(FITTED, EMBEDDINGS, LABELS, v), "draws", 2),
    "Comparison widths": Argument(
        lambda v: list(comparison().points([load_profile("nvidia-a100", ProcessorProfile)], [v])), "widths", 4
    ),
    "check_submission": Argument(
        lambda v: check_submission(Description("x"), [BoundCircuit(SINGLE, (), (0.1,) * SINGLE.n_inputs)], v, "tag"),
        "shots",
        100,
    ),
    "detectable_difference": Argument(lambda v: detectable_difference(v, 0.1), "n", 5),
    "summarize": Argument(lambda v: summarize([0.1, 0.3, 0.2, 0.5], method="bootstrap", seed=v), "seed"),
}


def assert_same(one: Any, other: Any) -> None:
    """Equal, alike when written out (so that no integer of another kind is inside), and of one hash."""
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_same(mine, theirs)
    elif is_dataclass(one) and not isinstance(one, (Circuit, Gate, Angle, BoundCircuit)):
        assert_same([*vars_of(one)], [*vars_of(other)])
    else:
        assert one == other
        assert type(one).__module__.startswith("qiskit") or repr(one) == repr(other)
        if isinstance(one, (Circuit, Gate, Angle)):
            assert hash(one) == hash(other)


def vars_of(value: Any) -> Iterable[Any]:
    return (getattr(value, name) for name in value.__dataclass_fields__)


@pytest.mark.parametrize("argument", ARGUMENTS.values(), ids=ARGUMENTS)
def test_integer_argument_of_any_type_equals_python_int(argument):
    expected = argument.call(argument.number)
    for kind, make in INTEGERS.items():
        print(kind)
        assert_same(argument.call(make(argument.number)), expected)


@pytest.mark.parametrize("argument", ARGUMENTS.values(), ids=ARGUMENTS)
def test_argument_that_is_no_integer_is_refused_by_name(argument):
    argument.call(argument.number)  # what was found for 1 must not be handed out for True and 1.0, which hash alike
    for kind, value in NOT_INTEGERS.items():
        if value is not None or not argument.takes_none:
            print(kind)
            with pytest.raises(KetFitError, match=argument.name):
                argument.call(value)


# --- a row of qubits ---------------------------------------------------------------------------------------------

ROWS: dict[str, Any] = {
    "list": [2, 0],
    "range": range(2, -1, -2),
    "deque": deque([2, 0]),
    "array.array": array.array("q", [2, 0]),
    **{f"numpy {kind}": np.array([2, 0], kind) for kind in ("i1", "u1", "i4", "u8", "O")},
    "slice of an array": np.array([2, 9, 0])[::2],
    **{str(dtype): torch.tensor([2, 0], dtype=dtype) for dtype in (torch.uint8, torch.int32, torch.int64)},
    "Series by position": pd.Series([2, 0], index=[1, 0]),
    "nullable Series": pd.Series([2, 0], index=[7, 7], dtype="Int64"),
    "Index": pd.Index([2, 0]),
}
NOT_ROWS: dict[str, Any] = {
    "number": 0,
    "None": None,
    "str": "20",
    "bytes": b"\x02\x00",
    "mapping": {2: "a", 0: "b"},
    "0-d array": np.array(2),
    "0-d tensor": torch.tensor(2),
    "two axes": np.array([[2, 0]]),
    "two axes of torch": torch.tensor([[2, 0]]),
    "DataFrame": pd.DataFrame({2: [1], 0: [1]}),
    "floats": np.array([2.0, 0.0]),
    "mask": np.array([True, False, True]),
    "missing": pd.Series([2, None], dtype="Int64"),
}
TAKERS: dict[str, Callable[[Any], Any]] = {
    "expectation": lambda qubits: with_gradients(qubits=qubits),
    "noise and shots": lambda qubits: with_gradients(qubits=qubits, noise=NOISE, shots=9),
    "expectation_and_gradients": lambda qubits: expectation_and_gradients(CIRCUIT, WEIGHTS, INPUTS, qubits=qubits),
    "mitigated_expectation": lambda qubits: mitigated(qubits=qubits),
    "network_expectation": lambda qubits: network_expectation(CIRCUIT, WEIGHTS, INPUTS[0], qubits),
    "measure_trajectories": lambda qubits: trajectories(measured=qubits),
    "light_cone": CIRCUIT.light_cone,
    "check_qubits": CIRCUIT.check_qubits,
    "noisy_light_cone": lambda qubits: noisy_light_cone(CIRCUIT, qubits),
    "to_qasm3": lambda measured: to_qasm3(CIRCUIT, measured=measured),
    "to_qiskit": lambda measured: to_qiskit(CIRCUIT, WEIGHTS, INPUTS[0], measured=measured),
    "to_pennylane": pennylane_values,
    "draw_text": lambda measured: draw_text(CIRCUIT, measured=measured),
    "draw_svg": lambda measured: draw_svg(CIRCUIT, measured=measured),
    "BoundCircuit": bound,
}
EACH_TAKER = pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)


@EACH_TAKER
def test_qubits_of_any_sequence_type_are_taken_by_position(take):
    expected = take((2, 0))
    for kind, qubits in ROWS.items():
        print(kind)
        assert_same(take(qubits), expected)


@EACH_TAKER
def test_value_that_is_no_sequence_of_qubits_is_refused(take):
    take((2, 0))
    for kind, qubits in NOT_ROWS.items():
        print(kind)
        with pytest.raises(CircuitError, match="qubits|measured"):
            take(qubits)


def test_repeated_qubit_of_two_integer_types_is_refused():
    for one, other in itertools.permutations((1, np.int64(1), torch.tensor(1)), 2):
        with pytest.raises(CircuitError, match=r"a qubit is measured twice in \(1, 1\)"):
            with_gradients(qubits=(one, other))


@pytest.mark.parametrize("kind", ["torch.int64", "0-d array", "numpy u1"])
def test_circuit_of_other_integer_types_equals_pennylane(kind):
    number = INTEGERS[kind]
    gates = [
        ry(number(0), Angle("weight", number(0))),
        cx(number(0), number(1)),
        ry(number(1), Angle("weight", number(1))),
        cx(number(1), number(2)),
        ry(number(2), Angle("input", number(0))),
    ]
    circuit = Circuit.from_gates(number(3), gates)
    weights = torch.tensor([0.7, 1.1], dtype=torch.float64, requires_grad=True)
    inputs = torch.tensor([[0.4]], dtype=torch.float64, requires_grad=True)

    @qml.qnode(qml.device("default.qubit", wires=3), interface="torch")
    def reference(weights: Tensor, inputs: Tensor) -> Any:
        qml.RY(weights[0], wires=0)
        qml.CNOT(wires=[0, 1])
        qml.RY(weights[1], wires=1)
        qml.CNOT(wires=[1, 2])
        qml.RY(inputs[0, 0], wires=2)
        return [qml.expval(qml.PauliZ(wire)) for wire in (2, 0)]

    found = expectation(circuit, weights, inputs, qubits=torch.tensor([2, 0]))
    wanted = torch.stack(reference(weights, inputs))
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=1e-12)
    for mine, theirs in zip(
        torch.autograd.grad(found.square().sum(), (weights, inputs)),
        torch.autograd.grad(wanted.square().sum(), (weights, inputs)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    assert hash(circuit) == hash(pythons_own(circuit))
    assert circuit == pythons_own(circuit)
    assert to_qasm3(circuit, measured=[number(2)]) == to_qasm3(pythons_own(circuit), measured=[2])


def pythons_own(circuit: Circuit) -> Circuit:
    gates = [
        ry(int(gate.target), Angle(gate.angle.source, int(gate.angle.index)))
        if gate.angle is not None
        else cx(int(gate.qubits[0]), int(gate.target))
        for gate in circuit.gates
    ]
    return Circuit.from_gates(3, gates)
