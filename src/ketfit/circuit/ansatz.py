"""Build the circuits of arXiv 2504.08732: the ring ansatz, the encoder and the data re-uploading circuit."""

from __future__ import annotations

from collections.abc import Iterator

from ketfit.circuit.circuit import Angle, Circuit, Gate, cx, ry
from ketfit.errors import CircuitError
from ketfit.integers import as_integer


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
    return Circuit.from_gates(n_qubits, _rings(n_qubits, layers, connectivity, rotation_layer, first_weight=0))


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
    """Return the QPU circuit: N times [RY(input q) on every qubit q, then PQC1], then PQC2.

    PQC1 and PQC2 are ring ansatzes. The inputs are angles in radians: scale them before. Weights come in the order of
    the gates: PQC1 (once if tied, N times if not), then PQC2.

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
    n_reuploads = as_integer(n_reuploads, "n_reuploads", error=CircuitError)
    if n_reuploads < 1:
        raise CircuitError(f"n_reuploads={n_reuploads}: the inputs must be loaded at least once")
    block = count_ring_weights(n_qubits, reupload_layers, connectivity, rotation_layer)
    gates: list[Gate] = []
    for repeat in range(n_reuploads):
        first_weight = 0 if tie_reuploads else repeat * block
        gates.extend(ry(qubit, Angle("input", qubit)) for qubit in range(n_qubits))
        gates.extend(_rings(n_qubits, reupload_layers, connectivity, rotation_layer, first_weight))
    first_weight = block if tie_reuploads else n_reuploads * block
    gates.extend(_rings(n_qubits, main_layers, connectivity, rotation_layer, first_weight))
    return Circuit.from_gates(n_qubits, gates)


def _rings(n_qubits: int, layers: int, connectivity: int, rotation_layer: bool, first_weight: int) -> Iterator[Gate]:
    weight = first_weight
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
    whole = {name: as_integer(value, name, error=CircuitError) for name, value in layers.items()}
    for name, value in whole.items():
        if value < 0:
            raise CircuitError(f"{name}={value}: it cannot be negative")
    return n_qubits, connectivity, *whole.values()
