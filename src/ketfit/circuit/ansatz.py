"""Build the circuits of a head: layers of an ansatz, the encoder and the data re-uploading circuit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

from ketfit.circuit.angle import substitute
from ketfit.circuit.circuit import Angle, Circuit, Gate, cx, ry
from ketfit.circuit.parameter_names import ParameterNames
from ketfit.circuit.qasm import QasmProgram
from ketfit.errors import CircuitError
from ketfit.integers import as_integer

AnsatzName = Literal["ring", "strongly_entangling", "hardware_efficient", "ising"]
"""Names of the ansätze; instead of one, the functions of this module take an OpenQASM 3 program of one layer."""

Axis = Literal["x", "y", "z"]
"""Axis of the rotations that load inputs."""

MAX_PROGRAM_STEPS = 50_000
"""Maximum number of gates of a program of one layer, with the tokens of its definitions as often as they are used."""


def ring_layers(n_qubits: int, layers: int, connectivity: int, rotation_layer: bool = True) -> Circuit:
    """Return the paper's ansatz (Figures 2 and 3): rings of CNOT-and-RY blocks over growing distances.

    For each distance d = 1..`connectivity` and each qubit q in order, one block: CNOT from q to (q + d) mod Q, then
    RY on that target. The rotation layer, one column of RY on every qubit, follows the first layer; further layers
    repeat the rings. The circuit has Q * connectivity * layers weights, and Q more with the rotation layer; zero layers
    give an empty circuit.

    Args:
        n_qubits: Q, the width.
        layers: How often the rings are repeated.
        connectivity: C, the largest distance; 1 is nearest neighbours, Q - 1 is all to all.
        rotation_layer: Whether the column of RY follows the first layer.

    Raises:
        CircuitError: a number is out of range, or not an integer.
    """
    n_qubits, connectivity, layers = _check_rings(n_qubits, connectivity, layers=layers)
    return Circuit.from_gates(n_qubits, _rings(n_qubits, layers, connectivity, rotation_layer))


def count_ring_weights(n_qubits: int, layers: int, connectivity: int, rotation_layer: bool = True) -> int:
    """Return the number of weights of `ring_layers` without building it.

    Raises:
        CircuitError: a number is out of range, or not an integer.
    """
    n_qubits, connectivity, layers = _check_rings(n_qubits, connectivity, layers=layers)
    return n_qubits * (connectivity * layers + (rotation_layer and layers > 0))


def encoder_circuit(n_qubits: int, layers: int, connectivity: int, rotation_layer: bool = True) -> Circuit:
    """Return the circuit of one encoder: the ring ansatz on an amplitude-encoded embedding.

    Args and errors as in `ring_layers`; `layers` is the paper's M. The embedding enters as the initial amplitudes,
    not through gates.
    """
    return ring_layers(n_qubits, layers, connectivity, rotation_layer)


def reuploading_circuit(
    n_qubits: int,
    n_reuploads: int,
    reupload_layers: int,
    main_layers: int,
    connectivity: int,
    tie_reuploads: bool = True,
    rotation_layer: bool = True,
) -> Circuit:
    """Return the paper's QPU circuit: `data_reuploading` about y, with ring ansätze as PQC1 and PQC2.

    Args:
        n_qubits: Q, which is also the number of inputs.
        n_reuploads: N, how often the inputs are loaded.
        reupload_layers: Layers of PQC1.
        main_layers: R, layers of PQC2.
        connectivity: C of both.
        tie_reuploads: Whether all N blocks of PQC1 share their weights.
        rotation_layer: Whether both have their column of RY.

    Raises:
        CircuitError: a number is out of range, or not an integer.
    """
    n_qubits, connectivity, reupload_layers, main_layers = _check_rings(
        n_qubits, connectivity, reupload_layers=reupload_layers, main_layers=main_layers
    )
    reupload, main = (
        ring_layers(n_qubits, layers, connectivity, rotation_layer) for layers in (reupload_layers, main_layers)
    )
    return data_reuploading(n_reuploads, reupload, main, tie_reuploads)


class LayerSize(NamedTuple):
    """Number of weights and of gates of the layers of an ansatz."""

    n_weights: int
    n_gates: int


def ansatz_layers(
    ansatz: str, n_qubits: int, layers: int, connectivity: int = 1, rotation_layer: bool = True
) -> Circuit:
    """Return the layers of an ansatz; each layer has weights of its own.

    ===================  ==========================================================================================
    ring                 the paper's, `ring_layers`
    strongly_entangling  RZ, RY, RZ on every qubit q, then CNOT to (q + d) mod Q; d is 1 in the first layer, 2 in the
                         second, and so on up to `connectivity`, then 1 again (PennyLane's StronglyEntanglingLayers,
                         whose largest distance is Q - 1)
    hardware_efficient   RY and RZ on every qubit, then CNOT from q to q + d for each d = 1..`connectivity`, on a line
    ising                RY on every qubit, then RZZ on every pair of qubits not further apart than `connectivity`, and
                         RXX on these pairs: all of them with Q - 1, which trapped ions do natively
    an OpenQASM 3        the program's gates; its inputs are the weights of one layer, named ``w_0``, ``w_1`` and so on
    program
    ===================  ==========================================================================================

    Args:
        ansatz: Name or program.
        n_qubits: Q, the width.
        layers: Number of layers; 0 gives an empty circuit.
        connectivity: C, the largest distance of a gate on two qubits; a program has gates of its own.
        rotation_layer: Whether the column of RY of the ring follows its first layer; the others have none.

    Raises:
        CircuitError: The ansatz is unknown, the program does not fit, or a number is out of range or not an integer.

    >>> ansatz_layers("ising", 3, layers=1, connectivity=2).gate_counts()["rxx"]
    3
    """
    size = ansatz_size(ansatz, n_qubits, layers, connectivity, rotation_layer)
    if ansatz == "ring":
        return ring_layers(n_qubits, layers, connectivity, rotation_layer)
    per_layer = ansatz_size(ansatz, n_qubits, 1, connectivity).n_weights
    gates = [
        _shifted(gate, layer * per_layer)
        for layer in range(as_integer(layers, "layers", error=CircuitError))
        for gate in _layer(ansatz, n_qubits, layer, connectivity)
    ]
    return Circuit(n_qubits, tuple(gates), size.n_weights, 0)


def ansatz_size(
    ansatz: str, n_qubits: int, layers: int, connectivity: int = 1, rotation_layer: bool = True
) -> LayerSize:
    """Return the number of weights and gates of `ansatz_layers` without building it.

    Raises:
        CircuitError: As in `ansatz_layers`.

    >>> ansatz_size("strongly_entangling", n_qubits=4, layers=2)
    LayerSize(n_weights=24, n_gates=32)
    """
    if ansatz == "ring":
        n_weights = count_ring_weights(n_qubits, layers, connectivity, rotation_layer)
        return LayerSize(n_weights, n_weights + n_qubits * connectivity * layers)
    if ansatz not in get_args(AnsatzName):
        program = _program(ansatz)
        layers = _check_layers(layers=layers)[0]
        if program.n_qubits != n_qubits:
            raise CircuitError(f"the ansatz is a program on {program.n_qubits} qubits; it must have {n_qubits}")
        return LayerSize(program.n_weights * layers, len(program.gates) * layers)
    n_qubits, connectivity, layers = _check_rings(n_qubits, connectivity, layers=layers)
    pairs = sum(n_qubits - distance for distance in range(1, connectivity + 1))
    n_weights, n_gates = {
        "strongly_entangling": (3 * n_qubits, 4 * n_qubits),
        "hardware_efficient": (2 * n_qubits, 2 * n_qubits + pairs),
        "ising": (n_qubits + 2 * pairs, n_qubits + 2 * pairs),
    }[ansatz]
    return LayerSize(n_weights * layers, n_gates * layers)


def data_reuploading(
    n_reuploads: int, reupload: Circuit, main: Circuit, tie_reuploads: bool = True, angle_axis: Axis = "y"
) -> Circuit:
    """Return a QPU circuit: N times [a rotation by input q on every qubit q, then PQC1], then PQC2.

    The inputs are angles in radians: scale them before. Weights come in the order of the gates: PQC1 (once if tied, N
    times if not), then PQC2.

    Args:
        n_reuploads: N, how often the inputs are loaded.
        reupload: PQC1, a circuit of weights alone.
        main: PQC2, a circuit of weights alone on as many qubits; there are as many inputs.
        tie_reuploads: Whether all N blocks of PQC1 share their weights.
        angle_axis: Axis of the rotations that load the inputs. RZ alone would not change |0...0>: a Hadamard gate
            precedes it.

    Raises:
        CircuitError: The circuits have different widths or read inputs, N is not an integer or less than 1, or the axis
            is unknown.
    """
    n_reuploads = as_integer(n_reuploads, "n_reuploads", error=CircuitError)
    if n_reuploads < 1:
        raise CircuitError(f"n_reuploads={n_reuploads}: the inputs must be loaded at least once")
    if angle_axis not in get_args(Axis):
        raise CircuitError(f"unknown angle_axis={angle_axis!r}; known are {', '.join(get_args(Axis))}")
    n_qubits = main.n_qubits
    if reupload.n_qubits != n_qubits or reupload.n_inputs or main.n_inputs:
        raise CircuitError(
            f"PQC1 on {reupload.n_qubits} and PQC2 on {n_qubits} qubits must be circuits of weights of the same width"
        )
    gates: list[Gate] = []
    for repeat in range(n_reuploads):
        for qubit in range(n_qubits):
            gates += [Gate("h", (qubit,))] if angle_axis == "z" else []
            gates.append(Gate(f"r{angle_axis}", (qubit,), (Angle("input", qubit),)))
        first_weight = 0 if tie_reuploads else repeat * reupload.n_weights
        gates += [_shifted(gate, first_weight) for gate in reupload.gates]
    first_weight = reupload.n_weights * (1 if tie_reuploads else n_reuploads)
    gates += [_shifted(gate, first_weight) for gate in main.gates]
    return Circuit(n_qubits, tuple(gates), first_weight + main.n_weights, n_qubits)


def _layer(ansatz: str, n_qubits: int, layer: int, connectivity: int) -> Iterator[Gate]:
    """Yield the gates of one layer, whose weights are numbered from 0."""
    if ansatz not in get_args(AnsatzName):
        yield from _program(ansatz).gates
        return
    pairs = [(qubit, qubit + d) for d in range(1, connectivity + 1) for qubit in range(n_qubits - d)]
    columns = {"strongly_entangling": ("rz", "ry", "rz"), "hardware_efficient": ("ry", "rz"), "ising": ("ry",)}[ansatz]
    weight = 0
    for qubit in range(n_qubits):
        for name in columns:
            yield Gate(name, (qubit,), (Angle("weight", weight),))
            weight += 1
    if ansatz == "strongly_entangling":
        distance = layer % connectivity + 1
        for qubit in range(n_qubits):
            yield cx(qubit, (qubit + distance) % n_qubits)
    elif ansatz == "hardware_efficient":
        for pair in pairs:
            yield cx(*pair)
    else:
        for name in ("rzz", "rxx"):
            for pair in pairs:
                yield Gate(name, pair, (Angle("weight", weight),))
                weight += 1


@lru_cache(maxsize=64)
def _program(text: str) -> Circuit:
    """Return the circuit of an OpenQASM 3 program of one layer."""
    if not text.lstrip().startswith("OPENQASM"):
        known = ", ".join(get_args(AnsatzName))
        raise CircuitError(f"unknown ansatz {text[:40]!r}; known are {known}, and an OpenQASM 3 program of one layer")
    names = ParameterNames.from_arguments(None, ())
    try:
        n_qubits, gates = QasmProgram(text, names.angle, MAX_PROGRAM_STEPS).read()
        return names.circuit(n_qubits, gates)
    except CircuitError as error:
        raise CircuitError(
            f"the program of an ansatz, which has the weights w_0, w_1 and so on alone: {error}"
        ) from None


def _shifted(gate: Gate, first_weight: int) -> Gate:
    """Return a gate whose weight 0 is `first_weight`."""
    if not first_weight or not gate.parameters:
        return gate

    def shift(angle: Angle) -> Angle:
        return Angle(angle.source, angle.index + first_weight)

    return replace(gate, parameters=tuple(substitute(parameter, {}, shift) for parameter in gate.parameters))


def _rings(n_qubits: int, layers: int, connectivity: int, rotation_layer: bool) -> Iterator[Gate]:
    weight = 0
    for layer in range(layers):
        for distance in range(1, connectivity + 1):
            for control in range(n_qubits):
                target = (control + distance) % n_qubits
                yield cx(control, target)
                yield ry(target, Angle("weight", weight))
                weight += 1
        if layer == 0 and rotation_layer:
            for qubit in range(n_qubits):
                yield ry(qubit, Angle("weight", weight))
                weight += 1


def _check_rings(n_qubits: int, connectivity: int, **layers: int) -> tuple[int, ...]:
    """Return the checked numbers as Python integers, in the order of the arguments."""
    n_qubits = as_integer(n_qubits, "n_qubits", error=CircuitError)
    connectivity = as_integer(connectivity, "connectivity", error=CircuitError)
    if n_qubits < 2:
        raise CircuitError(f"n_qubits={n_qubits}: a ring needs at least two qubits")
    if not 1 <= connectivity < n_qubits:
        raise CircuitError(f"connectivity={connectivity}: with {n_qubits} qubits it goes from 1 to {n_qubits - 1}")
    return n_qubits, connectivity, *_check_layers(**layers)


def _check_layers(**layers: int) -> tuple[int, ...]:
    """Return the checked numbers of layers as Python integers."""
    whole = {name: as_integer(value, name, error=CircuitError) for name, value in layers.items()}
    for name, value in whole.items():
        if value < 0:
            raise CircuitError(f"{name}={value}: it cannot be negative")
    return tuple(whole.values())
