"""Parts of the library that know RY and CNOT alone refuse other gates, by name and before anything runs."""

from __future__ import annotations

import pytest
import torch

from ketfit import NoiseConfig, expectation
from ketfit.circuit import Angle, Circuit, Gate, cx, ring_layers, ry
from ketfit.energy.profiles import ProcessorProfile, StatevectorProfile, load_profile
from ketfit.energy.simulation import statevector_cost
from ketfit.errors import CircuitError, InputError
from ketfit.simulate.mitigation import fold_gates, mitigated_expectation
from ketfit.simulate.shots import rotations_as_inputs, step_cost
from ketfit.simulate.tensor_network import network_expectation
from ketfit.simulate.trajectories import sample_frames

GENERAL = Circuit.from_gates(2, [ry(0, Angle("weight", 0)), Gate("cz", (0, 1)), cx(0, 1)])
BY_SUM = Circuit.from_gates(2, [ry(0, 2 * Angle("weight", 0))])
NOISE, WEIGHTS = NoiseConfig(depolarizing_1q=0.01), torch.ones(1)
CALLS = {
    "density matrix": lambda c: expectation(c, WEIGHTS, noise=NOISE),
    "trajectories": lambda c: expectation(c, WEIGHTS, noise=NOISE, trajectories=3),
    "sample_frames": lambda c: sample_frames(c, (0,), NOISE, 1, None),
    "parameter shift": lambda c: expectation(c, torch.ones(1, requires_grad=True), shots=3, gradient="parameter_shift"),
    "step_cost": lambda c: step_cost(c, 1, 1, "parameter_shift"),
    "rotations_as_inputs": rotations_as_inputs,
    "mitigation": lambda c: mitigated_expectation(c, WEIGHTS, mitigation=("zero_noise",), noise=NOISE),
    "fold_gates": lambda c: fold_gates(c, 3),
    "tensor network": lambda c: network_expectation(c, [1.0]),
    "statevector_cost": lambda c: statevector_cost(
        c, load_profile("laptop", ProcessorProfile), load_profile("statevector", StatevectorProfile)
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_other_gates_are_refused_by_name(call):
    with pytest.raises(CircuitError, match=r"knows RY by one weight or input, and CNOT; gate 1 is 'cz'"):
        call(GENERAL)
    with pytest.raises(CircuitError, match=r"gate 0 is 'ry' by a number or a sum"):
        call(BY_SUM)


@pytest.mark.parametrize(
    "options", [{"noise": NOISE}, {"noise": NOISE, "trajectories": 2}, {"shots": 3, "gradient": "parameter_shift"}]
)
def test_complex_amplitudes_are_refused_where_they_are_unknown(options):
    initial = torch.tensor([[1, 0, 0, 0]], dtype=torch.complex64)
    with pytest.raises(InputError, match="takes real initial amplitudes and initial is complex"):
        expectation(ring_layers(2, 1, 1), torch.ones(4, requires_grad=True), None, initial, **options)
