"""Time and energy of a run: those of each circuit on the device, with their basis."""

from __future__ import annotations

from pathlib import Path

import pytest

from ketfit.energy.profiles import QpuProfile, load_profile
from ketfit.energy.qpu import NativeGates, qpu_cost
from ketfit.errors import ConfigError
from ketfit.hardware.backends.base import GateCounts
from ketfit.hardware.pricing import FREE, estimate, load_device, read_device

GATES = [GateCounts(10, 5), GateCounts(3, 1), GateCounts(10, 5)]


@pytest.mark.parametrize("name", ["ionq-forte", "ionq-aria"])
def test_estimate_energy_is_sum_over_circuits(name: str) -> None:
    found = estimate(GATES, 500, load_device(name))
    profile = load_profile(name, QpuProfile)
    each = [qpu_cost(NativeGates(gates.one_qubit, gates.two_qubit), 1, 500, profile).energy.joules for gates in GATES]
    assert found.energy_j is not None and found.energy_range_j is not None
    assert found.energy_j == pytest.approx(sum(one.value for one in each))
    assert found.energy_range_j == pytest.approx([sum(getattr(one, end) for one in each) for end in ("low", "high")])
    assert found.energy_range_j[0] < found.energy_j < found.energy_range_j[1]
    assert found.machine_s == pytest.approx(_seconds(name))
    assert any(line.startswith("QPU power (W): assumed") for line in found.assumptions)


def _seconds(name: str) -> float:
    profile = load_profile(name, QpuProfile)
    parts = (qpu_cost(NativeGates(gates.one_qubit, gates.two_qubit), 1, 500, profile).seconds for gates in GATES)
    return sum(part.value for part in parts)


def test_device_file_names_or_contains_a_profile(tmp_path: Path) -> None:
    (tmp_path / "named.toml").write_text('name = "ours"\nprofile = "ionq-aria"\n')
    named = load_device(tmp_path / "named.toml")
    assert named.price is None and named.profile == load_profile("ionq-aria", QpuProfile)
    assert read_device(named.model_dump(mode="json"), "plan") == named, "a plan holds it whole"
    (tmp_path / "wrong.toml").write_text('name = "ours"\nprofile = "nvidia-a100"\n')
    with pytest.raises(ConfigError, match="of kind 'gpu', which cannot stand here"):
        load_device(tmp_path / "wrong.toml")


def test_estimate_without_profile_has_no_energy() -> None:
    found = estimate(GATES, 500, FREE)
    assert found.energy_j is None and found.energy_range_j is None and found.machine_s is None
    assert not any("power" in line for line in found.assumptions)
