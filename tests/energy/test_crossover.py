"""Tests of the energy crossover of a QPU and simulations."""

from __future__ import annotations

import pytest
import torch

from ketfit.circuit.ansatz import reuploading_circuit
from ketfit.circuit.gate import Gate
from ketfit.energy.crossover import FOLLOW_UP, PAPER, CrossoverModel, _z_circuits
from ketfit.energy.profiles import ProcessorProfile, QpuProfile, StatevectorProfile, load_profile
from ketfit.energy.qpu import native_gates, qpu_cost
from ketfit.energy.simulation import statevector_cost
from ketfit.errors import InputError
from ketfit.model.config import HeadConfig
from ketfit.simulate.expectation import expectation


@pytest.fixture(scope="module")
def model() -> CrossoverModel:
    qpu, program = load_profile("ionq-forte", QpuProfile), load_profile("statevector", StatevectorProfile)
    return CrossoverModel(HeadConfig.paper(), qpu, program)


@pytest.fixture(scope="module")
def a100() -> ProcessorProfile:
    return load_profile("nvidia-a100", ProcessorProfile)


def reading(model: CrossoverModel, *words: str) -> CrossoverModel:
    return CrossoverModel(HeadConfig.paper(readout=words), model.qpu, model.program)


def test_points_of_the_word_z_equal_those_of_z(model, a100):
    assert list(reading(model, "Z0").points([a100], [6, 9])) == list(model.points([a100], [6, 9]))


def test_words_take_one_circuit_for_each_group_on_the_qpu_and_one_state_in_simulation(model, a100):
    words = ("Z0", "Y0", "X0 X1")
    points = list(reading(model, *words).points([a100], [6]))
    circuit = HeadConfig.paper().qpu_circuit(6)
    changes = ([Gate("h", (0,)), Gate("h", (1,))], [], [Gate("sdg", (0,)), Gate("h", (0,))])  # X0 X1; Z0; Y0
    circuits = [
        circuit.with_gates([*circuit.gates, *change]).light_cone(measured)
        for change, measured in zip(changes, ((0, 1), (0,), (0,)), strict=True)
    ]
    parts = [qpu_cost(native_gates(each, "zz"), 1, 1000, model.qpu) for each in circuits]
    assert points[0].seconds == pytest.approx(sum(part.seconds.value for part in parts))
    assert points[0].joules == pytest.approx(sum(part.energy.joules.value for part in parts))
    assert points[0].kind == parts[0].energy.kind
    simulated = statevector_cost(HeadConfig.paper(readout=words).light_cone(6), a100, model.program)
    assert points[1].joules == simulated.energy.joules.value
    assert reading(model, "X7").min_qubits == 8


def test_tensor_network_circuits_of_words_have_their_expectations():
    words = ("Z1", "X0 Y2", "Y1 Z3")
    head = HeadConfig.paper(readout=words, n_qubits=4, connectivity=1)
    circuit, rng = head.qpu_circuit(4), torch.Generator().manual_seed(0)
    weights, inputs = (
        torch.rand(shape, generator=rng, dtype=torch.float64) for shape in (circuit.n_weights, (2, circuit.n_inputs))
    )
    exact = expectation(circuit, weights, inputs, observables=head.observables)
    for column, (turned, qubit) in enumerate(_z_circuits(head, 4)):
        torch.testing.assert_close(expectation(turned, weights, inputs, qubits=(qubit,))[:, 0], exact[:, column])


def test_network_points_of_words_sum_over_the_words(model, a100):
    both, one, other = (
        next(reading(model, *words).network_points(a100, [6])) for words in (("Z0", "X1"), ("Z0",), ("X1",))
    )
    assert both.joules == pytest.approx(one.joules + other.joules, rel=0.3)
    assert both.joules > max(one.joules, other.joules)


@pytest.mark.parametrize("ansatz", ["strongly_entangling", "ising"])
def test_points_of_heads_with_other_gates_follow_the_models(ansatz, model, a100):
    head = HeadConfig.paper(ansatz=ansatz)
    qpu, simulated = CrossoverModel(head, model.qpu, model.program).points([a100], [12])
    circuit = head.qpu_circuit(12).light_cone((0,))
    assert qpu.joules == qpu_cost(native_gates(circuit, "zz"), 1, 1000, model.qpu).energy.joules.value
    assert simulated.joules == statevector_cost(circuit, a100, model.program).energy.joules.value


@pytest.mark.slow
def test_qpu_energy_is_lower_from_the_crossover_on(model, a100):
    found = model.crossover(a100)
    assert found.qubits is not None
    for qubits, less in ((found.qubits - 1, False), (found.qubits, True), (found.qubits + 5, True)):
        circuit = reuploading_circuit(qubits, 1, 1, 4, 2).light_cone((0,))
        quantum = qpu_cost(native_gates(circuit, "zz"), 1, 1000, model.qpu).energy.joules.value
        simulated = statevector_cost(circuit, a100, model.program).energy.joules.value
        assert (quantum <= simulated) is less


def test_published_crossovers_are_inside_the_range(model, a100):
    found = model.crossover(a100)
    assert found.earliest is not None and found.latest is not None
    assert found.earliest <= FOLLOW_UP < found.qubits < PAPER <= found.latest


def test_likely_constants_of_the_paper_give_its_crossover(model, a100):
    """20 kW, 1,000 shots, complex gates, and GPUs that only their arithmetic limits, all of it reached."""
    figure = model.qpu.power_watts
    strong = model.qpu.updated(power_watts=figure.updated(value=20_000))
    high = model.program.gates_per_sweep
    rotation = model.program.flops_per_rotation
    fused = model.program.updated(
        gates_per_sweep=high.updated(value=1e6, high=1e6), flops_per_rotation=rotation.updated(value=14)
    )
    all_of_it = a100.updated(tflops_share=a100.tflops_share.updated(value=1, high=1))
    found = CrossoverModel(model.head, strong, fused).crossover(all_of_it)
    assert abs(found.qubits - PAPER) <= 1


@pytest.mark.slow
def test_number_of_layers_hardly_moves_the_crossover(model, a100):
    deep = CrossoverModel(HeadConfig.paper(main_layers=16), model.qpu, model.program)
    assert abs(deep.crossover(a100).qubits - model.crossover(a100).qubits) <= 1


def test_sensitivities_are_sorted_and_inside_the_range(model, a100):
    found = model.crossover(a100)
    widths = [shift.width for shift in found.shifts]
    assert widths == sorted(widths, reverse=True)
    assert found.shifts[0].name == "shots"
    for shift in found.shifts:
        assert found.earliest <= min(shift.at_low, shift.at_high) <= max(shift.at_low, shift.at_high) <= found.latest


def test_points_skip_states_that_do_not_fit(model):
    laptop = load_profile("laptop", ProcessorProfile)
    rows = list(model.points([laptop], [30, 40]))
    assert [(row.device, row.qubits) for row in rows if row.device == laptop.name] == [(laptop.name, 30)]
    assert all(row.low <= row.joules <= row.high for row in rows)


def test_nearest_neighbour_ring_has_no_crossover_with_tensor_network(model, a100):
    ring = CrossoverModel(HeadConfig.paper(connectivity=1), model.qpu, model.program)
    widths = [20, 60]
    networks = list(ring.network_points(a100, widths))
    quantum = list(ring.points([], widths))
    assert [row.qubits for row in networks] == widths
    assert all(network.high < 1e-3 * row.low for network, row in zip(networks, quantum, strict=True))


def test_network_points_skip_networks_that_do_not_fit(model, a100):
    assert [row.qubits for row in model.network_points(a100, [8, 56])] == [8]


def test_shots_out_of_order_are_rejected(model):
    with pytest.raises(InputError, match="the value, the lowest and the highest"):
        CrossoverModel(model.head, model.qpu, model.program, (10, 100, 1000))
