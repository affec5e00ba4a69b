"""Tests of the local simulator backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ketfit.circuit.circuit import Circuit
from ketfit.errors import ConfigError, InputError
from ketfit.hardware.backends.base import BoundCircuit, check_submission
from ketfit.hardware.backends.local import Simulator
from ketfit.simulate.noise import NoiseConfig

NOISE = NoiseConfig(depolarizing_1q=0.01)


@pytest.mark.parametrize("trajectories", [0, -1, 0.5, 2.0, True, "2", np.float64(3)])
def test_simulator_rejects_invalid_trajectories(tmp_path: Path, trajectories: Any) -> None:
    with pytest.raises(ConfigError, match="trajectories"):
        Simulator(tmp_path, NOISE, trajectories=trajectories)


def test_simulator_rejects_what_expectation_rejects(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=" is given without noise; pass noise"):
        Simulator(tmp_path, trajectories=5)
    with pytest.raises(ConfigError, match="noise is of type dict"):
        Simulator(tmp_path, {"depolarizing_1q": 0.1})  # type: ignore[arg-type]
    relaxing = NoiseConfig(t1_us=100.0, time_1q_us=1.0)
    with pytest.raises(ConfigError, match="pauli_twirl"):
        Simulator(tmp_path, relaxing, trajectories=5)
    many = BoundCircuit(Circuit(13, (), 0, 0), (), (), tuple(range(13)))
    with pytest.raises(InputError, match="measures 13 qubits; simulator reads at most 12"):
        check_submission(Simulator(tmp_path).describe(), [many], 1, "t")
    wide = BoundCircuit(Circuit(16, (), 0, 0), ())
    with pytest.raises(InputError, match="16 qubits"):
        check_submission(Simulator(tmp_path, NOISE).describe(), [wide], 1, "t")
    check_submission(Simulator(tmp_path, NOISE, trajectories=5).describe(), [wide], 1, "t")
