"""Parts of the library that know RY and CNOT alone refuse other gates, by name and before anything runs."""

from __future__ import annotations

import pytest
import torch

from ketfit import NoiseConfig
from ketfit.circuit import Angle, Circuit, Gate, cx, ry
from ketfit.energy.profiles import ProcessorProfile, StatevectorProfile, load_profile
from ketfit.energy.simulation import statevector_cost
from ketfit.errors import CircuitError
from ketfit.simulate.trajectories import sample_frames

GENERAL = Circuit.from_gates(2, [ry(0, Angle("weight", 0)), Gate("cz", (0, 1)), cx(0, 1)])
BY_SUM = Circuit.from_gates(2, [ry(0, 2 * Angle("weight", 0))])
NOISE, WEIGHTS = NoiseConfig(depolarizing_1q=0.01), torch.ones(1)
CALLS = {
    "sample_frames": lambda c: sample_frames(c, (0,), NOISE, 1, None),
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
