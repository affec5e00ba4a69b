"""Energy of a run: that of each circuit on the device, with the range and the basis of its power."""

from __future__ import annotations

import pytest

from ketfit.energy.profiles import QpuProfile, load_profile
from ketfit.energy.qpu import NativeGates, qpu_cost
from ketfit.hardware.backend import GateCounts
from ketfit.hardware.cost import FREE, estimate, load_device

GATES = [GateCounts(10, 5), GateCounts(3, 1), GateCounts(10, 5)]


@pytest.mark.parametrize("name", ["ionq-forte", "ionq-aria"])
def test_the_energy_of_a_run_is_that_of_its_circuits(name: str) -> None:
    found = estimate(GATES, 500, load_device(name))
    profile = load_profile(name, QpuProfile)
    each = [qpu_cost(NativeGates(gates.one_qubit, gates.two_qubit), 1, 500, profile).energy.joules for gates in GATES]
    assert found.energy_j == pytest.approx([sum(getattr(one, end) for one in each) for end in ("value", "low", "high")])
    assert found.energy_j is not None and found.energy_j[1] < found.energy_j[0] < found.energy_j[2]
    assert any(line.startswith("energy: assumed") for line in found.assumptions)


def test_a_machine_whose_power_is_unknown_has_none() -> None:
    found = estimate(GATES, 500, FREE)
    assert found.energy_j is None
    assert not any(line.startswith("energy") for line in found.assumptions)
