from __future__ import annotations

import random
import subprocess
import sys
import time

import numpy as np
import pennylane as qml
import pytest
import qiskit.qasm3
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import (
    AnnotatedOperation,
    ControlModifier,
    InverseModifier,
    Operation,
    Parameter,
    ParameterVector,
    PowerModifier,
)
from qiskit.circuit import Gate as QiskitGate
from qiskit.circuit.library import (
    DiagonalGate,
    GlobalPhaseGate,
    HamiltonianGate,
    Isometry,
    LinearFunction,
    MCMTGate,
    MCPhaseGate,
    MCXGate,
    PauliEvolutionGate,
    PauliGate,
    PermutationGate,
    QFTGate,
    RXGate,
    SGate,
    StatePreparation,
    UCGate,
    UCRYGate,
    UnitaryGate,
    YGate,
    efficient_su2,
)
from qiskit.quantum_info import (
    Operator,
    Pauli,
    SparsePauliOp,
    Statevector,
    random_clifford,
    random_hermitian,
    random_statevector,
    random_unitary,
)

from ketfit.circuit import Angle, Circuit, Gate, reuploading_circuit
from ketfit.circuit.export import to_pennylane, to_qasm3, to_qiskit
from ketfit.circuit.gate import GATES
from ketfit.circuit.importers import from_pennylane, from_qasm3, from_qiskit, qiskit_gates
from ketfit.errors import CircuitError, MissingExtraError
from tests.circuits_of_any_kind import random_general_circuit, reference_statevector

W0, W1, X0 = Angle("weight", 0), Angle("weight", 1), Angle("input", 0)
HEAD = 'OPENQASM 3.0;\ninclude "stdgates.inc";\n'


def without_unused(circuit: Circuit) -> Circuit:
    """The circuit with as many weights and inputs as a reader can see."""
    angles = [angle for gate in circuit.gates for angle in _angles(gate)]
    used = {
        source: max((angle.index + 1 for angle in angles if angle.source == source), default=0)
        for source in ("weight", "input")
    }
    return Circuit(circuit.n_qubits, circuit.gates, used["weight"], used["input"])


def _angles(gate: Gate) -> list[Angle]:
    terms = [parameter.terms if hasattr(parameter, "terms") else ((parameter, 1),) for parameter in gate.parameters]
    return [angle for each in terms for angle, _ in each if isinstance(angle, Angle)]


@pytest.mark.parametrize("seed", range(12))
def test_qasm3_round_trip_is_identity(seed):
    circuit = without_unused(random_general_circuit(1 + seed % 5, 30, seed, names=tuple(GATES)))
    text = to_qasm3(circuit)
    assert Circuit.from_qasm3(text) == circuit
    assert to_qasm3(from_qasm3(text)) == text


@pytest.mark.parametrize("seed", range(8))
def test_qiskit_round_trip_is_identity(seed):
    circuit = without_unused(random_general_circuit(1 + seed % 4, 25, seed))
    assert Circuit.from_qiskit(to_qiskit(circuit)) == circuit


@pytest.mark.parametrize("seed", range(6))
def test_pennylane_round_trip_is_identity(seed):
    circuit = random_general_circuit(1 + seed % 4, 20, seed)
    node = qml.QNode(to_pennylane(circuit), qml.device("default.qubit", wires=circuit.n_qubits))
    shapes = {"weights": {"weights": circuit.n_weights}, "inputs": {"inputs": (circuit.n_inputs,)}}
    assert Circuit.from_pennylane(node, **shapes) == circuit


def test_paper_circuit_round_trips_are_identities():
    circuit = reuploading_circuit(4, 2, 1, 2, 2)
    assert from_qasm3(to_qasm3(circuit, measured=(0, 2))) == circuit
    assert from_qiskit(to_qiskit(circuit, measured=(0, 2))) == circuit


# --- OpenQASM 3 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "gates"),
    [
        ("h q;", [Gate("h", 0), Gate("h", 1)]),
        ("cx q[0], r;", [Gate("cx", (0, 2))]),
        ("U(0.5, -pi, 2*pi/4) q[1];", [Gate("u", 1, (0.5, -np.pi, np.pi / 2))]),
        ("gphase(w_0/2 - 1);", [Gate("gphase", (), (W0 / 2 - 1,))]),
        ("rx(-(2*x_0 + +w_1*3.5) - 4/2) r;", [Gate("rx", 2, (-(2 * X0 + W1 * 3.5) - 2,))]),
        ("id q[0]; barrier q; /* no gate */ // none\n CX q[0],q[1];", [Gate("cx", (0, 1))]),
        ("gate my(t) a, b { ry(t/2) b; cx a, b; } my(2*w_0) q[1], q[0];", [Gate("ry", 0, (W0,)), Gate("cx", (1, 0))]),
        ("phase(π) q[0]; u2(0, τ) r;", [Gate("p", 0, (np.pi,)), Gate("u", 2, (np.pi / 2, 0, 2 * np.pi))]),
        ("x q[0]; c[0] = measure q[0]; measure q[1] -> c[1]; x r;", [Gate("x", 0), Gate("x", 2)]),
        ("ry(1_000e-3 * .5) q[0]; bit d = measure q[0];", [Gate("ry", 0, (0.5,))]),
    ],
)
def test_from_qasm3_reads_statement(body, gates):
    text = f"{HEAD}input float[64] w_0; input float w_1; input angle[32] x_0; qubit[2] q; qubit r; bit[2] c;\n{body}\n"
    assert from_qasm3(text).gates == tuple(gates)


@pytest.mark.parametrize("seed", range(5))
def test_from_qasm3_of_qiskit_program_equals_its_operator(seed):
    circuit = random_general_circuit(3, 20, seed, names=tuple(name for name in GATES if name != "gphase"))
    rng = np.random.default_rng(seed)
    numbers = (rng.uniform(-3, 3, circuit.n_weights), rng.uniform(-3, 3, circuit.n_inputs))
    theirs = to_qiskit(circuit, *numbers)
    theirs.cswap(0, 1, 2)
    theirs.cu(0.3, 0.5, -0.7, 1.1, 2, 0)
    mine = from_qasm3(qiskit.qasm3.dumps(theirs))
    state = Statevector(theirs).reverse_qargs().data
    # Up to a global phase, which Qiskit's own definitions in the program do not keep.
    np.testing.assert_allclose(np.abs(np.vdot(reference_statevector(mine, (), ()), state)), 1, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_to_qasm3_of_general_circuit_read_by_qiskit_equals_to_qiskit(seed):
    circuit = random_general_circuit(3, 25, seed, names=tuple(GATES))
    numbers = ([0.1 * k for k in range(circuit.n_weights)], [0.7, -1.3])
    assert Operator(qiskit.qasm3.loads(to_qasm3(circuit, *numbers))) == Operator(to_qiskit(circuit, *numbers))


def test_from_qasm3_maps_names_in_order():
    text = f"{HEAD}input float alpha; input float beta; qubit q; rx(alpha) q; rz(beta + alpha) q;"
    circuit = from_qasm3(text, weights=("beta", "unused"), inputs=["alpha"])
    assert circuit == Circuit(1, (Gate("rx", 0, (X0,)), Gate("rz", 0, (W0 + X0,))), 2, 1)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("measure q[0] -> c[0];\nx q[0];", "line 5 of the program: gate 'x' acts on qubit 0 after its measurement"),
        ("reset q[0];", "line 4 of the program: 'reset' is a reset that a circuit of gates cannot hold"),
        ("if (c[0]) { x q[0]; }", "line 4 of the program: 'if' is classical control"),
        ("for int i in [0:1] { }", "'for' is classical control"),
        ("def f() { }", "'def' is a statement that a circuit"),
        ("ctrl @ x q[0], q[1];", "'ctrl' is a statement"),
        ("foo q[0];", "line 4 of the program: unknown gate or statement 'foo'"),
        ("rx(w_0*w_0) q[0];", "this is a product of parameters"),
        ("rx(1/w_0) q[0];", "divided by a number"),
        ("rx(1/0) q[0];", "divided by a number other than zero"),
        ("rx(1/2) q[0];", "a division of integers; write 1.0/2"),
        ("rx(sin(1)) q[0];", "unknown name 'sin' in an angle"),
        ("rx(1e999) q[0];", "not finite"),
        ("rx(1e308*10) q[0];", "not finite"),
        ("rx(1__0..2) q[0];", "not a number|expected"),
        ("rx() q[0];", "gate 'rx' has 1 angle, got 0"),
        ("cx q[0], q[0];", "gate 'cx' needs different qubits"),
        ("cx q;", "gate 'cx' has 2 qubits, got 1"),
        ("x q[2];", r"q\[2\] is out of range"),
        ("x p;", "'p' is not a declared qubit"),
        ("x q[0]", "expected"),
        ("x q[0:1];", "expected|unexpected character ':'"),
        ("x $0;", "expected 'name', got '\\$'"),
        ("/* x", "this comment has no end"),
        ("gate g a { x a;", "the definition of gate 'g' has no end"),
        ("gate g a { g a; } g q[0];", "unknown gate or statement 'g'"),
        ("gate g a { measure a; } g q[0];", "'measure' cannot occur in the definition"),
        ("gate x a { h a; }", "gate 'x' is one of the standard gates"),
        ("gate g a { } gate g a { }", "defined twice"),
        ("gate g a, a { }", "a name occurs twice"),
        ("gate g a, b { cx a, b; } g q[0], q[0];", "needs different qubits"),
        ("gate g a { } g(1) q[0];", "has 0 angles and 1 qubits, got 1 and 1"),
        ("qubit[2000] r;", "1 to 1000 qubits"),
        ("qubit q;", "'q' is declared twice"),
        ("input float w_0;", "'w_0' is declared twice"),
        ("input int k;", "an input of type 'int' is no angle"),
        ("input float theta;", "parameter 'theta' is neither a weight nor an input"),
        ("input float w_9999999;", "indices go up to 1000000"),
        ('include "/etc/passwd";', "cannot include"),
        ("qubit[3] r; cx q, r;", "the registers of this gate differ in size"),
        ("c[0] = 1;", "bits can be measured into alone|expected"),
        ("barrier q", "expected ';'"),
        ("barrier q\nx q[0];", "line 5 of the program: expected ';', got 'x'"),
        ("gate g a { barrier a\nx a; } g q[0];", "expected ';', got 'x'"),
        ("barrier nothing;", "'nothing' is not a declared qubit"),
        (";", "expected a statement"),
    ],
)
def test_from_qasm3_invalid_program_is_refused_by_line(body, message):
    text = f"{HEAD}input float w_0; qubit[2] q; bit[2] c;\n{body}"
    with pytest.raises(CircuitError, match=message):
        from_qasm3(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is a string, got NoneType"),
        ("OPENQASM 2.0; qubit q;", "OpenQASM 2.0 is not supported"),
        ("", "declares no qubits"),
        (" " * (2**20 + 1), "1,048,576 are allowed"),
        ("qubit q; rx(" + "(" * 10**5 + ") q;", "nested more than 50 levels deep"),
        ("qubit q; rx(" + "-" * 10**5 + "1) q;", "nested more than 50 levels deep"),
        ("qubit q; rx(" + "9" * 10**5 + ") q;", "not a number|not finite"),
        ("qubit[1000] q;" + "x q;" * 2000, "expands to more than 1,000,000"),
        ("qubit q; gate g0 a { x a; x a; }" + "".join(
            f"gate g{k + 1} a {{ g{k} a; g{k} a; }}" for k in range(40)) + "g40 q;", "expands to more than 1,000,000"),
        ("qubit q; gate g a {" + "barrier a;" * 10**4 + "}" + "g q;" * 10**4, "expands to more than 1,000,000"),
        ("qubit q; gate g0 a { }" + "".join(
            f"gate g{k + 1} a {{ g{k} a; }}" for k in range(99)) + "g99 q;", "nested more than 50 levels"),
        ("/*" * 2**18, "this comment has no end"),
    ],
    ids=range(12),
)  # fmt: skip
def test_from_qasm3_bounds_size_and_time(text, message):
    start = time.process_time()
    with pytest.raises(CircuitError, match=message):
        from_qasm3(text)
    assert time.process_time() - start < 30


def test_from_qasm3_of_damaged_programs_raises_own_errors_alone():
    rng = random.Random(0)
    text = to_qasm3(random_general_circuit(3, 12, 0, names=tuple(GATES)), measured=(1,))
    pieces = [*'()[]{};,+-*/@="\n0.e', "q[0]", "gate", "measure", "1e9", "w_0", "ü", "\x00", "/*"]
    for _ in range(300):
        damaged = list(text)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(damaged))
            damaged[at : at + rng.choice((0, 1, 1, 9))] = rng.choice(pieces)
        try:
            from_qasm3("".join(damaged))
        except CircuitError as error:
            assert len(str(error)) < 300


# --- Qiskit ------------------------------------------------------------------------------------------------------


def test_from_qiskit_of_library_circuit_equals_statevector():
    theirs = efficient_su2(3, reps=1)
    theirs.global_phase = 0.4
    theirs.cswap(0, 1, 2)
    theirs.barrier()
    theirs.measure_all()
    names = [parameter.name for parameter in theirs.parameters]
    mine = from_qiskit(theirs, weights=names)
    numbers = np.linspace(-2, 2, len(names))
    bound = theirs.assign_parameters(numbers).remove_final_measurements(inplace=False)
    wanted = Statevector(bound).reverse_qargs().data
    np.testing.assert_allclose(reference_statevector(mine, numbers, ()), wanted, rtol=0, atol=1e-10)


def test_from_qiskit_maps_expressions():
    w, x, other = ParameterVector("w", 2), Parameter("x_0"), Parameter("theta")
    theirs = QuantumCircuit(2)
    theirs.rx(2 * w[1] - x / 4 + 0.5, 0)
    theirs.rzz(w[0], 1, 0)
    assert from_qiskit(theirs).gates == (Gate("rx", 0, (2 * W1 - X0 / 4 + 0.5,)), Gate("rzz", (1, 0), (W0,)))
    theirs.p(other, 1)
    with pytest.raises(CircuitError, match=r"instruction 2 \(p\): parameter 'theta' is neither"):
        from_qiskit(theirs)


def test_other_angles_are_read_by_the_given_function():
    a, seen = Parameter("a"), []
    circuit = QuantumCircuit(1)
    circuit.rx(2 * a, 0)
    circuit.u(a**2, a, 0.5, 0)

    def other_angle(expression):
        seen.append(str(expression))
        return X0

    gates = qiskit_gates(circuit, lambda name: W0, other_angle)
    assert gates == [Gate("rx", 0, [2 * W0]), Gate("u", 0, [X0, W0, 0.5])]
    assert seen == [str(a**2)]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda c: (c.measure(0, 0), c.x(0)), r"instruction 1 \(x\) acts on qubit 0 after its measurement"),
        (lambda c: c.reset(1), r"instruction 0 \(reset\) is an instruction that"),
        (lambda c: c.if_test((c.clbits[0], 1), QuantumCircuit(1), [0], []), r"\(if_else\) is classical control"),
        (lambda c: c.initialize([0, 1], 0), r"\((initialize|reset)\)"),
        (lambda c: c.rx(Parameter("w_0").sin(), 0), "is not a sum of parameters times factors"),
        (lambda c: c.rx(Parameter("w_0") * Parameter("w_1"), 0), "is not a sum of parameters times factors"),
        (lambda c: c.rx(Parameter("w_0").sign(), 0), "is not a sum of parameters times factors"),
    ],
)
def test_from_qiskit_of_what_cannot_be_held_is_refused_by_position(build, message):
    theirs = QuantumCircuit(QuantumRegister(2), ClassicalRegister(1))
    build(theirs)
    with pytest.raises(CircuitError, match=message):
        from_qiskit(theirs)


@pytest.mark.parametrize("name", ["x", "barrier", "measure"])
def test_from_qiskit_reads_definition_of_gate_with_standard_name(name):
    inner = QuantumCircuit(1, name=name)
    inner.h(0)
    theirs = QuantumCircuit(1)
    theirs.append(inner.to_gate(), [0])
    assert from_qiskit(theirs).gates == (Gate("h", 0),)


def test_from_qiskit_reads_definition_of_gate_named_unitary():
    inner = QuantumCircuit(2, name="unitary")
    inner.h(0)
    inner.cx(0, 1)
    theirs = QuantumCircuit(2)
    theirs.append(inner.to_gate(), [0, 1])
    assert from_qiskit(theirs).gates == (Gate("h", 0), Gate("cx", (0, 1)))


class GateOfMatrix(QiskitGate):
    """A gate that has a matrix and no definition."""

    def __init__(self) -> None:
        super().__init__("of_matrix", 2, [])

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return random_unitary(4, seed=3).data


class NamedOperation(Operation):
    """An operation that has neither a matrix nor a definition."""

    name = "named"
    num_qubits = 2
    num_clbits = 0


RX = RXGate(0.4)
OPERATIONS = {
    "Clifford on one qubit": random_clifford(1, seed=1),
    "Clifford on four qubits": random_clifford(4, seed=2),
    "controlled": RX.control(2, ctrl_state=1, annotated=True),
    "controlled phase": GlobalPhaseGate(0.3).control(2, annotated=True),
    "inverse": SGate().inverse(annotated=True),
    "power": AnnotatedOperation(RX, [PowerModifier(3)]),
    "power that is a fraction": AnnotatedOperation(RX, [PowerModifier(0.5)]),
    "several modifiers": AnnotatedOperation(RX, [InverseModifier(), PowerModifier(2), ControlModifier(2, 1)]),
    "no modifier": AnnotatedOperation(RX, []),
    "nested": AnnotatedOperation(AnnotatedOperation(RX, [ControlModifier(1)]), [InverseModifier(), ControlModifier(1)]),
    "controlled Clifford": AnnotatedOperation(random_clifford(2, seed=3), [ControlModifier(1)]),
    "inverse Clifford": AnnotatedOperation(random_clifford(3, seed=4), [InverseModifier()]),
    "controlled matrix": AnnotatedOperation(GateOfMatrix(), [ControlModifier(1)]),
    "matrix": GateOfMatrix(),
    "PermutationGate": PermutationGate([2, 0, 1]),
    "LinearFunction": LinearFunction([[1, 1, 0], [0, 1, 0], [1, 0, 1]]),
    "Pauli": Pauli("iXYZ"),
    "PauliGate": PauliGate("XYZ"),
    "PauliEvolutionGate": PauliEvolutionGate(SparsePauliOp(["XX", "ZZ"], [0.3, 0.2]), 0.4),
    "Operator": Operator(random_unitary(8, seed=1)),
    "UCGate": UCGate([random_unitary(2, seed=seed).data for seed in range(4)]),
    "UCRYGate": UCRYGate([0.1, 0.2, 0.3, 0.4]),
    "StatePreparation": StatePreparation(random_statevector(8, seed=1)),
    "inverse StatePreparation": StatePreparation(random_statevector(8, seed=1)).inverse(),
    "Isometry": Isometry(random_unitary(8, seed=2).data[:, :2], 0, 0),
    "DiagonalGate": DiagonalGate(np.exp(1j * np.arange(8))),
    "HamiltonianGate": HamiltonianGate(random_hermitian(8, seed=1), 0.4),
    "MCXGate": MCXGate(4, ctrl_state=5),
    "MCPhaseGate": MCPhaseGate(0.3, 3),
    "MCMTGate": MCMTGate(YGate(), 2, 2),
    "QFTGate": QFTGate(3),
    "UnitaryGate": UnitaryGate(random_unitary(16, seed=1)),
    "controlled UnitaryGate": UnitaryGate(random_unitary(4, seed=1)).control(2),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")  # in Qiskit's own evolution
def test_from_qiskit_of_any_unitary_operation_equals_statevector(operation):
    n_qubits = operation.num_qubits
    theirs = efficient_su2(n_qubits, reps=1)
    theirs.assign_parameters(np.linspace(-2, 2, theirs.num_parameters), inplace=True)
    theirs.append(operation, range(n_qubits)[::-1])
    found = reference_statevector(from_qiskit(theirs), (), ())
    np.testing.assert_allclose(found, Statevector(theirs).reverse_qargs().data, rtol=0, atol=1e-10)


def test_from_qiskit_of_annotated_operation_keeps_its_parameters():
    theirs = QuantumCircuit(3)
    theirs.append(efficient_su2(3, reps=0).assign_parameters([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), range(3))
    gate = AnnotatedOperation(RXGate(2 * Parameter("w_0")), [PowerModifier(2), InverseModifier(), ControlModifier(2)])
    theirs.append(gate, [2, 0, 1])
    wanted = Statevector(theirs.assign_parameters([0.7])).reverse_qargs().data
    found = reference_statevector(from_qiskit(theirs), (0.7,), ())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (
            NamedOperation(),
            r"instruction 0 \(named\) has no definition, and Qiskit has neither a synthesis nor a matrix",
        ),
        (
            QiskitGate("opaque", 2, []),
            r"instruction 0 \(opaque\) has no definition.*; append its circuit, or a Unitary",
        ),
        (AnnotatedOperation(NamedOperation(), [ControlModifier(1)]), r"\(annotated\) has no definition"),
        (
            AnnotatedOperation(RXGate(Parameter("w_0")), [PowerModifier(0.5)]),
            r"\(annotated\) has no definition, .* unbound param",
        ),
    ],
)
def test_from_qiskit_of_operation_without_a_unitary_is_refused(operation, message):
    theirs = QuantumCircuit(operation.num_qubits)
    theirs.append(operation, range(operation.num_qubits))
    with pytest.raises(CircuitError, match=message):
        from_qiskit(theirs)


# --- PennyLane ---------------------------------------------------------------------------------------------------


def test_from_pennylane_of_templates_equals_default_qubit():
    device = qml.device("default.qubit", wires=["b", "a", "c"])

    @qml.qnode(device)
    def node(angles, layers):
        qml.AngleEmbedding(2 * angles + 0.1, wires=["a", "b", "c"], rotation="X")
        qml.StronglyEntanglingLayers(layers, wires=["b", "a", "c"])
        qml.adjoint(qml.RX)(angles[0], wires="a")
        qml.ctrl(qml.RZ, control="c")(angles[1], wires="b")
        qml.MultiRZ(angles[2], wires=["a", "b", "c"])
        return qml.state()

    circuit = from_pennylane(node, weights={"layers": (2, 3, 3)}, inputs={"angles": (3,)})
    assert (circuit.n_qubits, circuit.n_weights, circuit.n_inputs) == (3, 18, 3)
    weights, inputs = np.linspace(-2, 2, 18), np.array([0.3, -0.8, 1.9])
    wanted = node(inputs, weights.reshape(2, 3, 3))
    np.testing.assert_allclose(reference_statevector(circuit, weights, inputs), wanted, rtol=0, atol=1e-10)


def test_from_pennylane_of_tape_keeps_its_numbers():
    tape = qml.tape.QuantumScript([qml.RX(0.5, 0), qml.CNOT([0, 2])], [qml.expval(qml.Z(0))])
    assert from_pennylane(tape) == Circuit(3, (Gate("rx", 0, (0.5,)), Gate("cx", (0, 2))), 0, 0)


@pytest.mark.parametrize("integer", [int, np.int64])
def test_from_pennylane_takes_integer_wires_as_qubits(integer):
    def function():
        qml.CNOT([integer(2), integer(0)])

    assert from_pennylane(function) == Circuit(3, (Gate("cx", (2, 0)),), 0, 0)


def test_from_pennylane_numbers_other_labels_in_order_of_use():
    def function():
        qml.CNOT(["b", 0])
        qml.X("a")

    assert from_pennylane(function) == Circuit(3, (Gate("cx", (0, 1)), Gate("x", 2)), 0, 0)


def test_from_pennylane_numbers_negative_wires_by_device():
    node = qml.QNode(lambda: qml.CNOT([-1, 0]) and qml.expval(qml.Z(0)), qml.device("default.qubit", wires=[0, -1]))
    assert from_pennylane(node).gates == (Gate("cx", (1, 0)),)


def test_from_pennylane_applies_transforms_of_the_user():
    @qml.qnode(qml.device("default.qubit", wires=3))
    def node(x):
        qml.RX(x, 0)
        qml.CNOT([0, 1])
        return qml.state()

    mapped = qml.map_wires(node, {0: 2, 1: 0})
    circuit = from_pennylane(mapped, inputs={"x": ()})
    assert circuit == Circuit(3, (Gate("rx", 2, (X0,)), Gate("cx", (2, 0))), 0, 1)
    np.testing.assert_allclose(reference_statevector(circuit, [], [0.7]), mapped(0.7), rtol=0, atol=1e-12)
    with pytest.raises(CircuitError, match=r"operation 1 \(AmplitudeDamping\) is one that a circuit of gates cannot"):
        from_pennylane(qml.noise.insert(node, qml.AmplitudeDamping, 0.1), inputs={"x": ()})
    with pytest.raises(CircuitError, match="couldn't find function 'cos'.*use sums of them with factors as angles"):
        from_pennylane(qml.transforms.single_qubit_fusion(node), inputs={"x": ()})


def test_from_pennylane_of_transform_into_several_circuits_is_refused():
    @qml.transforms.split_non_commuting
    @qml.qnode(qml.device("default.qubit", wires=1))
    def node():
        return qml.expval(qml.Z(0)), qml.expval(qml.X(0))

    with pytest.raises(CircuitError, match="transforms of the QNode split it into 2 circuits; pass it without them"):
        from_pennylane(node)


def test_from_pennylane_reads_operations_without_decomposition_as_matrices():
    tape = qml.tape.QuantumScript(
        [qml.RY(0.3, 0), qml.pow(qml.SX(0), 0.25), qml.BlockEncode([[0.1, 0.2], [0.3, 0.4]], wires=[1, 0])]
    )
    wanted = qml.matrix(tape, wire_order=range(2))[:, 0]
    np.testing.assert_allclose(reference_statevector(from_pennylane(tape), [], []), wanted, rtol=0, atol=1e-10)


def test_from_pennylane_decomposes_symbols():
    def function(angles):
        qml.U2(angles[0], angles[1], 1)
        qml.RY(0.4, 0)
        qml.ctrl(qml.RX, 0, control_values=[0])(2 * angles[2], 1)

    numbers = [0.3, -0.8, 1.9]
    circuit = from_pennylane(function, weights={"angles": 3})
    wanted = qml.matrix(function, wire_order=[0, 1])(numbers)[:, 0]
    np.testing.assert_allclose(reference_statevector(circuit, numbers, []), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("n_qubits", [3, 4, 5])
def test_from_pennylane_decomposes_wide_unitaries(n_qubits):
    matrix = random_unitary(2**n_qubits, seed=n_qubits).data
    tape = qml.tape.QuantumScript(
        [qml.RY(0.3, 1), qml.QubitUnitary(matrix, range(n_qubits)[::-1]), qml.ctrl(qml.RX(0.4, 2), [0, 1])]
    )
    circuit = from_pennylane(tape)
    assert max(len(gate.qubits) for gate in circuit.gates) <= 3
    wanted = qml.matrix(tape, wire_order=range(n_qubits))[:, 0]
    np.testing.assert_allclose(reference_statevector(circuit, [], []), wanted, rtol=0, atol=1e-10)


def _mid_circuit(x):
    qml.RX(x, 0)
    qml.measure(0)
    return qml.expval(qml.Z(0))


def _not_affine(x):
    qml.RX(x * x, 0)
    return qml.expval(qml.Z(0))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (_mid_circuit, r"operation 1 \(Mid\w*\) is one that a circuit of gates cannot hold"),
        (_not_affine, "use sums of them with factors as angles"),
        (lambda x: qml.CNOT([-1, 0]), "wire -1 is negative; number wires from 0"),
        (
            lambda x: qml.ctrl(qml.RX, [0, 1])(x, 2),
            r"operation 0 \(C\(RX\)\): PennyLane cannot decompose it, .*; wr",
        ),
        (lambda x: qml.pow(qml.Rot(x, 0.1, 0.2, 0), 0.5), r"operation 0 \(Rot\*\*0.5\) is one that a circuit of gates"),
        (lambda x: qml.IQPEmbedding([x, x], [0, 1]), r"operation 0 \(IQPEmbedding\): .*, or pass a tape with numbers"),
        (7, "pass a QNode, a quantum function or a tape"),
    ],
)
def test_from_pennylane_of_what_cannot_be_held_is_refused(source, message):
    with pytest.raises(CircuitError, match=message):
        from_pennylane(source, inputs={"x": ()})


def test_from_pennylane_with_wrong_arguments_is_refused():
    with pytest.raises(CircuitError, match="cannot be called with the arguments y"):
        from_pennylane(_not_affine, inputs={"y": 1})
    with pytest.raises(CircuitError, match="a tape has numbers"):
        from_pennylane(qml.tape.QuantumScript([qml.X(0)]), weights={"x": 1})
    with pytest.raises(CircuitError, match="the shape of x"):
        from_pennylane(_not_affine, inputs={"x": 0.5})


# --- both --------------------------------------------------------------------------------------------------------


def test_parameter_names_given_twice_are_refused():
    with pytest.raises(CircuitError, match="name each parameter once"):
        from_qasm3("qubit q;", weights=("a", "a"))
    with pytest.raises(CircuitError, match="'a' is named as a weight and as an input"):
        from_qasm3("qubit q;", weights=("a",), inputs=("a",))


@pytest.mark.parametrize(("package", "read"), [("qiskit", from_qiskit), ("pennylane", from_pennylane)])
def test_import_without_package_names_extra(monkeypatch, package, read):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install"):
        read(None)


def test_reading_qasm3_imports_no_other_package():
    program = (
        "import sys\nfrom ketfit import Circuit\n"
        "Circuit.from_qasm3('qubit q; h q;')\n"
        "print(sorted({'torch', 'numpy', 'qiskit', 'pennylane', 'openqasm3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
