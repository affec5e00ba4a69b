"""Tests of profiles, prices and noise files: an odd number is rejected by name, or all computed numbers are finite."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ketfit.base_config import Config, read_toml
from ketfit.circuit.ansatz import reuploading_circuit
from ketfit.energy.profiles import (
    MAX_VALUE,
    ProcessorProfile,
    QpuProfile,
    SourcedValue,
    StatevectorProfile,
    load_profile,
    profile_names,
    read_profile,
)
from ketfit.energy.qpu import NativeGates, native_gates, qpu_cost
from ketfit.energy.quantities import UncertainValue
from ketfit.energy.simulation import contraction_cost, statevector_cost
from ketfit.errors import ConfigError, InputError
from ketfit.hardware.backends.base import GateCounts
from ketfit.hardware.pricing import DeviceCost, estimate, read_device
from ketfit.simulate.noise import NoiseConfig
from tests.cli.running import run

FOLDER = Path(load_profile.__code__.co_filename).parent / "profiles"
ODD: tuple[Any, ...] = (
    0, 0.0, -1, -0.5, math.inf, -math.inf, math.nan, 1e308, 5e-324, 10**400, "", "a", True, [1.0],
    MAX_VALUE, 1 / MAX_VALUE,
)  # fmt: skip
CIRCUIT = reuploading_circuit(30, 1, 1, 1, 1)
MAY_BE_ZERO = ("time_1q_us", "time_2q_us", "readout_us", "reset_us", "overhead_us")


def tables_of(name: str) -> dict[str, Any]:
    return read_toml(FOLDER / f"{name}.toml")


FIGURES = [
    (name, table) for name in profile_names() for table, content in tables_of(name).items() if isinstance(content, dict)
]


def computed(profile: Config) -> list[UncertainValue]:
    """All that is worked out from a profile."""
    if isinstance(profile, QpuProfile):
        cost = qpu_cost(native_gates(CIRCUIT, profile.entangler), 10, 10**12, profile)
        return [cost.seconds, cost.energy.joules]
    program = profile if isinstance(profile, StatevectorProfile) else load_profile("statevector", StatevectorProfile)
    processor = profile if isinstance(profile, ProcessorProfile) else load_profile("nvidia-a100", ProcessorProfile)
    costs = [contraction_cost(1e20, 1e20, processor)]
    try:
        costs.append(statevector_cost(CIRCUIT, processor, program))
    except InputError as error:
        assert "no link to others" in str(error)
    return [part for cost in costs for part in (cost.seconds, cost.energy.joules)]


@pytest.mark.parametrize(("name", "table"), FIGURES)
def test_odd_profile_number_is_rejected_by_name_or_gives_finite_costs(name: str, table: str) -> None:
    taken = []
    for field in ("value", "low", "high"):
        for value in ODD:
            tables = copy.deepcopy(tables_of(name))
            tables[table][field] = value
            if field == "value":  # else most are out of the range that the file has
                tables[table] |= {"low": value, "high": value}
            try:
                profile = read_profile(tables, "mine", Config)
            except ConfigError as error:
                assert table in str(error), (field, value, error)
                continue
            taken.append((field, value))
            json.dumps([asdict(part) for part in computed(profile)], allow_nan=False)
    zero = any(field == "value" and value == 0 for field, value in taken)
    assert zero == (table in MAY_BE_ZERO)
    assert ("value", MAX_VALUE) in taken and not any(value == 1e308 for _, value in taken)


def test_command_with_zero_in_profile_names_the_number(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = (FOLDER / "laptop.toml").read_text()
    (tmp_path / "laptop.toml").write_text(text.replace("value = 89.6", "value = 0"))
    code, _, err = run(capsys, "energy", "--against", tmp_path / "laptop.toml")
    assert code == 2
    assert "bandwidth_gb_s" in err and "must be positive" in err and "--against" in err


PRICES = ("per_circuit", "per_circuit_mitigated", "per_shot", "per_one_qubit_gate_shot", "minimum", "year")


@pytest.mark.parametrize("field", PRICES)
def test_odd_price_is_rejected_by_name_or_gives_finite_cost(field: str) -> None:
    for value in ODD:
        price = {"currency": "USD", "source": "ours", "year": 2025, "per_shot": 1e12, field: value}
        try:
            device: DeviceCost = read_device({"name": "ours", "price": price}, "mine")
        except ConfigError as error:
            assert field in str(error), (value, error)
            continue
        for mitigated in (False, True):
            cost = estimate([GateCounts(10**6, 10**6)] * 3, 2**53, device, mitigated=mitigated)
            assert cost.price is not None and math.isfinite(cost.price)


@pytest.mark.parametrize("field", [name for name in NoiseConfig.model_fields if name not in ("readout", "pauli_twirl")])
def test_odd_noise_number_is_rejected_by_name_or_gives_channel(tmp_path: Path, field: str) -> None:
    timed = {"t1_us": 1e3, "t2_us": 1e3, "time_1q_us": 1.0, "time_2q_us": 1.0} if "_us" in field else {}
    for value in ("0", "-1", "inf", "nan", "1e308", "5e-324", "1e400", '""', '"a"', "true", "[1.0]", "9" * 400):
        path = tmp_path / "noise.toml"
        path.write_text("".join(f"{name} = {number}\n" for name, number in {**timed, field: value}.items()))
        try:
            noise = NoiseConfig.from_toml(path)
        except ConfigError as error:
            assert field in str(error), (value, error)
            continue
        for channel in (noise.after_rotation, noise.after_cnot):
            assert all(map(math.isfinite, (channel.x, channel.y, channel.z, channel.shift)))


@pytest.mark.parametrize("count", [-1, 1.5, True, "3", math.nan])
def test_gate_and_shot_counts_reject_what_is_no_whole_number(count: Any) -> None:
    forte = load_profile("ionq-forte", QpuProfile)
    for call in (
        lambda: NativeGates(count, 1),
        lambda: qpu_cost(NativeGates(1, 1), count, 1, forte),
        lambda: qpu_cost(NativeGates(1, 1), 1, count, forte),
    ):
        with pytest.raises(InputError, match=r"one_qubit|circuits|shots"):
            call()


def test_too_many_shots_are_rejected() -> None:
    with pytest.raises(InputError, match="at most 1e"):
        qpu_cost(NativeGates(1, 1), 1, 10**400, load_profile("ionq-forte", QpuProfile))


def published(value: float) -> SourcedValue:
    return SourcedValue(value=value, basis="published", source="a test", year=2026)


def test_bundled_profiles_have_sources_and_ranges():
    types = {
        "qpu": QpuProfile,
        "gpu": ProcessorProfile,
        "cpu": ProcessorProfile,
        "statevector": StatevectorProfile,
    }
    assert len(profile_names()) == 8
    for kind, cls in types.items():
        for name in profile_names(kind):
            figures = [figure for _, figure in load_profile(name, cls) if isinstance(figure, SourcedValue)]
            assert len(figures) >= 3
            for figure in figures:
                assert len(figure.source) > 10
                assert 2015 <= figure.year <= 2026
                assert figure.basis == "published" or figure.range.low < figure.range.high


def test_invalid_profiles_are_rejected(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown profile 'ionq'; known are .*ionq-forte"):
        load_profile("ionq", QpuProfile)
    with pytest.raises(ConfigError, match="cannot stand here"):
        load_profile("ionq-forte", ProcessorProfile)
    with pytest.raises(ConfigError, match="give low and high"):
        SourcedValue(value=1, basis="assumed", source="nobody", year=2026)
    with pytest.raises(ConfigError, match="not in order"):
        SourcedValue(value=1, low=2, high=3, basis="published", source="somebody", year=2026)
    path = tmp_path / "mine.toml"
    path.write_text('kind = "tpu"\n')
    with pytest.raises(ConfigError, match=r"mine.toml: kind='tpu'; known are qpu, gpu"):
        load_profile(path, QpuProfile)
