"""Tests of the cost of simulation against the roofline by hand."""

from __future__ import annotations

import pytest

from ketfit.circuit import Angle, Circuit, Gate
from ketfit.circuit.ansatz import reuploading_circuit
from ketfit.energy.profiles import (
    ProcessorProfile,
    SourcedValue,
    StatevectorProfile,
    load_profile,
    profile_names,
)
from ketfit.energy.simulation import arithmetic_of_gate, contraction_cost, statevector_cost
from ketfit.errors import InputError
from tests.circuits_of_any_kind import random_unitary

PROCESSORS = [*profile_names("gpu"), *profile_names("cpu")]


def published(value: float) -> SourcedValue:
    return SourcedValue(value=value, basis="published", source="a test", year=2026)


@pytest.fixture
def plain() -> ProcessorProfile:
    """Round numbers: 100 W, 1 GB, 1 GB/s, 1 TFLOP/s, all of it reached."""
    figures = {"power_watts": 100.0, "memory_gb": 1.0, "bandwidth_gb_s": 1.0, "tflops": 1.0, "link_gb_s": 0.5}
    shares = {"bandwidth_share": 1.0, "tflops_share": 1.0}
    tables = {name: published(value) for name, value in (figures | shares).items()}
    return ProcessorProfile(kind="gpu", name="Plain", **tables)


@pytest.fixture
def program() -> StatevectorProfile:
    figures = {"amplitude_bytes": 8.0, "gates_per_sweep": 1.0, "flops_per_rotation": 6.0}
    return StatevectorProfile(
        kind="statevector", name="Plain", **{name: published(value) for name, value in figures.items()}
    )


def test_statevector_cost_is_bound_by_memory(plain, program):
    circuit = reuploading_circuit(10, 1, 1, 1, 1)
    cost = statevector_cost(circuit, plain, program)
    seconds = len(circuit.gates) * 2 * 2**10 * 8 / 1e9
    assert (cost.devices, cost.bound, cost.energy.kind) == (1, "memory", "modelled")
    assert cost.seconds.value == pytest.approx(seconds)
    assert cost.energy.joules.value == pytest.approx(100 * seconds)


def test_statevector_cost_is_bound_by_arithmetic(plain, program):
    circuit = reuploading_circuit(10, 1, 1, 1, 1)
    cost = statevector_cost(circuit, plain.updated(tflops=published(1e-6)), program)
    assert cost.bound == "arithmetic"
    assert cost.seconds.value == pytest.approx(circuit.gate_counts()["ry"] * 2**10 * 6 / 1e6)


def test_statevector_cost_includes_devices_and_exchange(plain, program):
    circuit = reuploading_circuit(30, 1, 1, 1, 1)  # 8.6 GB: nine of 1 GB, and so sixteen
    cost = statevector_cost(circuit, plain, program)
    assert cost.devices == 16
    local = 2**30 / 16 * 8
    sweeps = len(circuit.gates)
    seconds = sweeps * 2 * local / 1e9 + sweeps * (4 / 30) * local / 2 / 0.5e9
    assert cost.seconds.value == pytest.approx(seconds)
    assert cost.energy.joules.value == pytest.approx(16 * 100 * seconds)


@pytest.mark.parametrize(
    ("gate", "operations"),
    [
        (Gate("ry", 0, [0.3]), 6),
        (Gate("rx", 0, [Angle("weight", 0)]), 14),
        (Gate("h", 0), 6),
        (Gate("u", 0, [0.1, 0.2, 0.3]), 14),
        (Gate("rz", 0, [0.3]), 6),
        (Gate("t", 0), 3),  # one of two amplitudes
        (Gate("z", 0), 1),
        (Gate("x", 0), 0),
        (Gate("cx", (0, 1)), 0),
        (Gate("swap", (0, 1)), 0),
        (Gate("ccx", (0, 1, 2)), 0),
        (Gate("cry", (0, 1), [0.3]), 3),
        (Gate("rxx", (0, 1), [0.3]), 14),
        (Gate("unitary", (0, 1, 2), matrix=random_unitary(3, 0)), 8 * 8 - 2),
    ],
    ids=lambda value: value.name if isinstance(value, Gate) else "",
)
def test_arithmetic_of_gate_matches_count_by_hand(gate, operations):
    assert 6 * arithmetic_of_gate(gate) == pytest.approx(operations)


def test_statevector_cost_of_any_gates_matches_roofline(plain, program):
    gates = [Gate("h", 0), Gate("gphase", (), [0.5]), Gate("rxx", (0, 1), [Angle("weight", 0)]), Gate("ccx", (2, 1, 0))]
    circuit = Circuit.from_gates(10, gates)
    cost = statevector_cost(circuit, plain, program)
    assert cost.bound == "memory"
    assert cost.seconds.value == pytest.approx(3 * 2 * 2**10 * 8 / 1e9)
    slow = statevector_cost(circuit, plain.updated(tflops=published(1e-6)), program)
    assert slow.seconds.value == pytest.approx((6 + 14) * 2**10 / 1e6)


def test_state_too_large_without_link_is_rejected(plain, program):
    with pytest.raises(InputError, match="holds 1; it has no link"):
        statevector_cost(reuploading_circuit(30, 1, 1, 1, 1), plain.updated(link_gb_s=None), program)


@pytest.mark.parametrize("name", PROCESSORS)
def test_cost_range_contains_all_corners(name):
    program, processor = load_profile("statevector", StatevectorProfile), load_profile(name, ProcessorProfile)
    circuit = reuploading_circuit(24, 1, 1, 2, 2)
    whole = statevector_cost(circuit, processor, program).energy.joules
    for owner in (processor, program):
        for field, figure in owner:
            if isinstance(figure, SourcedValue):
                for end in (figure.range.low, figure.range.high):
                    moved = owner.updated(**{field: figure.updated(value=end)})
                    pair = (moved, program) if owner is processor else (processor, moved)
                    value = statevector_cost(circuit, *pair).energy.joules.value
                    assert whole.low <= value * (1 + 1e-12)
                    assert value <= whole.high * (1 + 1e-12)


def test_contraction_cost_matches_roofline(plain):
    cost = contraction_cost(1e9, 1e6, plain)
    assert cost.bound == "memory"
    assert cost.seconds.value == pytest.approx(8e-3)
    assert contraction_cost(1e9, 1e3, plain).seconds.value == pytest.approx(2e9 / 0.5e12)
    assert contraction_cost(1e9, 1e3, plain, element_bytes=4).seconds.value == pytest.approx(2e9 / 1e12)
