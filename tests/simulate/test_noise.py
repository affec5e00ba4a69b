from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from qiskit.quantum_info import PTM, Kraus, SuperOp, average_gate_fidelity
from qiskit_aer.noise import amplitude_damping_error, pauli_error

from ketfit import simulate
from ketfit.circuit import Angle, Circuit, cx, ry
from ketfit.errors import ConfigError
from ketfit.simulate import NoiseConfig, load_noise
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.density_matrix import _Density, make_plan, pauli_coefficients
from ketfit.simulate.noise import DEVICES, Channel, noise_from_fidelities, noisy_light_cone
from tests.circuits import random_circuit
from tests.simulate.aer_reference import ALL, NOISES, aer_channels, density_matrix_expectation, twirl
from tests.simulate.dense_reference import assert_close, random_tensors, values_and_gradients

EACH_NOISE = pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
CHANNELS = [
    channel for noise in NOISES.values() for channel in (noise.after_rotation, noise.after_cnot) if channel != Channel()
]
TIMES = {"time_1q_us": 1.0, "time_2q_us": 5.0}
FIGURES = {"ionq-forte": (0.9998, 0.9941, 0.9962), "ionq-aria": (0.9995, 0.996, 0.9961)}


def transfer_matrix(channel: Channel) -> np.ndarray:
    """Return the transfer matrix in Qiskit's order I, X, Y, Z."""
    matrix = np.diag([1, channel.x, channel.y, channel.z])
    matrix[3, 0] = channel.shift
    return matrix


def channel_of(matrix: np.ndarray) -> Channel:
    return Channel(matrix[1, 1], matrix[3, 3], matrix[2, 2], matrix[3, 0])


# --- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bit_flip": -0.1}, "^bit_flip=-0.1: input should be greater than or equal to 0$"),
        ({"phase_flip": 1.01}, "^phase_flip=1.01: input should be less than or equal to 1$"),
        ({"depolarizing_1q": 2}, "^depolarizing_1q=2: input should be less than or equal to 1$"),
        ({"depolarizing_2q": -1e-9}, "depolarizing_2q=-1e-09: input should be greater than or equal to 0"),
        ({"preparation": math.nan}, "preparation=nan: input should be"),
        ({"preparation": math.inf}, "preparation=inf: input should be"),
        ({"bit_flip": "0.1"}, "bit_flip='0.1': input should be a valid number"),
        ({"bit_flip": None}, "bit_flip=None: input should be a valid number"),
        ({"pauli_twirl": 1}, "pauli_twirl=1: input should be a valid boolean"),
        ({"t1_us": 0.0, **TIMES}, "t1_us=0.0: input should be greater than 0"),
        ({"t2_us": -1.0, **TIMES}, "t2_us=-1.0: input should be greater than 0"),
        ({"t1_us": math.inf, **TIMES}, "t1_us=inf: input should be a finite number"),
        ({"t1_us": 1.0, "time_1q_us": 0.0}, "time_1q_us=0.0: input should be greater than 0"),
        ({"bit_flips": 0.1}, "^NoiseConfig has no setting 'bit_flips'; did you mean 'bit_flip'[?]$"),
        ({"depolarising_1q": 0.1}, "no setting 'depolarising_1q'; did you mean 'depolarizing_1q'[?]"),
        ({"t1_ms": 0.1}, "no setting 't1_ms'; did you mean 't1_us'[?]"),
        ({"zzz": 0.1}, "no setting 'zzz'; known are depolarizing_1q, depolarizing_2q, bit_flip,"),
        ({"t1_us": 1.0, "t2_us": 2.5, **TIMES}, "^t2_us=2.5 is more than its physical limit 2 t1_us=2.0; lower it$"),
        (
            {"t1_us": 1.0},
            "need durations of gates; give time_1q_us or time_2q_us, or both, too, or none of the four$",
        ),
        ({"t2_us": 1.0}, "give time_1q_us or time_2q_us, or both, too, or none of the four$"),
        ({"time_1q_us": 1.0}, "give t1_us or t2_us, or both, too, or none of the four$"),
        ({"time_2q_us": 1.0}, "give t1_us or t2_us, or both, too, or none of the four$"),
        (
            {"readout": ((0.9, 0.2), (0.2, 0.8))},
            "^readout: column 0 of the confusion matrix sums to 1.1, not to 1; col",
        ),
        (
            {"readout": ((0.9, 0.1), (0.1, 0.8))},
            "^readout: column 1 of the confusion matrix sums to 0.9, not to 1; col",
        ),
        ({"readout": ((1.1, 0.0), (-0.1, 1.0))}, "^readout.0.0=1.1: .*; readout.1.0=-0.1: input should be greater"),
        ({"readout": ((0.9, 0.1),)}, "^readout.1=.*: field required$"),
        ({"readout": [[0.9], [0.1]]}, "^readout.0.1=.*: field required"),
        ({"readout": [0.9, 0.1]}, "^readout.0=0.9: input should be a valid tuple"),
        ({"readout": 0.9}, "^readout=0.9: input should be a valid tuple$"),
        ({"readout": "ab"}, "^readout='ab': input should be a valid tuple$"),
    ],
)
def test_noise_config_invalid_settings_raise_config_error(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        NoiseConfig(**settings)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError):
        NoiseConfig().updated(**settings)


def test_noise_config_extreme_values_are_accepted():
    for name in ("depolarizing_1q", "depolarizing_2q", "bit_flip", "phase_flip", "preparation"):
        assert [getattr(NoiseConfig(**{name: value}), name) for value in (0, 1, np.float32(0.5))] == [0, 1, 0.5]
    assert NoiseConfig(t1_us=1.0, t2_us=2.0, **TIMES).after_rotation.x == math.exp(-0.5)
    assert NoiseConfig(readout=((0, 1), (1, 0))).readout == ((0, 1), (1, 0))


def test_noise_config_readout_as_lists_becomes_tuples(tmp_path):
    path = tmp_path / "noise.toml"
    path.write_text("readout = [[0.98, 0.03], [0.02, 0.97]]\nbit_flip = 0.01\n", encoding="utf-8")
    expected = NoiseConfig(readout=((0.98, 0.03), (0.02, 0.97)), bit_flip=0.01)
    assert NoiseConfig.from_toml(path) == expected
    assert NoiseConfig.from_mapping(json.loads(expected.model_dump_json())) == expected
    assert NoiseConfig(readout=np.array(expected.readout).tolist(), bit_flip=0.01) == expected


def test_noise_config_equal_settings_compare_and_hash_equal():
    noise = NoiseConfig(**ALL.model_dump())
    assert noise == ALL
    assert hash(noise) == hash(ALL)
    assert len({noise, ALL, *NOISES.values()}) == len(NOISES)
    with pytest.raises(ValidationError, match="Instance is frozen"):
        noise.bit_flip = 0.2


def test_noise_config_fields_have_description_and_no_noise_default():
    for name, field in NoiseConfig.model_fields.items():
        assert len(field.description) > 5, name
        assert not field.default, name


def test_is_gate_noiseless_ignores_readout_only():
    readout = ((0.9, 0.1), (0.1, 0.9))
    assert NoiseConfig().is_gate_noiseless
    assert NoiseConfig(readout=readout, pauli_twirl=True).is_gate_noiseless
    assert [name for name, noise in NOISES.items() if noise.is_gate_noiseless] == []
    assert not NoiseConfig(t1_us=1.0, time_2q_us=1.0).is_gate_noiseless


# --- channels -----------------------------------------------------------------------------------------------------


@EACH_NOISE
def test_channels_after_gates_match_aer(noise):
    one, two = (PTM(channel).data for channel in aer_channels(noise))
    np.testing.assert_allclose(transfer_matrix(noise.after_rotation), one, rtol=0, atol=1e-12)
    each = transfer_matrix(noise.after_cnot)
    depolarizing = np.diag([1.0, *[1 - noise.depolarizing_2q] * 15])
    np.testing.assert_allclose(np.kron(each, each) @ depolarizing, two, rtol=0, atol=1e-12)


def test_compose_is_product_of_transfer_matrices():
    for first, later in itertools.product(CHANNELS, CHANNELS):
        product = transfer_matrix(later) @ transfer_matrix(first)
        np.testing.assert_allclose(transfer_matrix(first.compose(later)), product, rtol=0, atol=1e-15)


def test_compose_is_associative_but_not_commutative():
    for a, b, c in itertools.product(CHANNELS, repeat=3):
        left, right = transfer_matrix(a.compose(b).compose(c)), transfer_matrix(a.compose(b.compose(c)))
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-15)
    for channel in CHANNELS:
        assert channel.compose(Channel()) == Channel().compose(channel) == channel
    damping = NoiseConfig(t1_us=5.0, **TIMES).after_rotation
    flip = NoiseConfig(bit_flip=0.25).after_rotation
    assert damping.compose(flip).shift == pytest.approx(damping.shift / 2)
    assert flip.compose(damping).shift == pytest.approx(damping.shift)


@pytest.mark.parametrize("channel", [each for each in CHANNELS if not each.shift])
def test_pauli_probabilities_mixture_has_channel_factors(channel):
    probabilities = channel.pauli_probabilities()
    assert sum(probabilities) == pytest.approx(1, abs=1e-15)
    assert min(probabilities) >= 0
    mixture = pauli_error(list(zip("IXZY", probabilities, strict=True)))
    np.testing.assert_allclose(transfer_matrix(channel), PTM(SuperOp(mixture)).data, rtol=0, atol=1e-14)


def test_pauli_probabilities_round_trip_through_factors():
    for probabilities in np.random.default_rng(0).dirichlet([0.3, 0.3, 0.3, 0.3], size=20):
        i, x, z, y = probabilities
        channel = Channel(x=i + x - z - y, z=i + z - x - y, y=i + y - x - z)
        np.testing.assert_allclose(channel.pauli_probabilities(), probabilities, rtol=0, atol=1e-15)
    assert Channel().pauli_probabilities() == (1, 0, 0, 0)
    assert NoiseConfig(bit_flip=1).after_cnot.pauli_probabilities() == (0, 1, 0, 0)
    assert NoiseConfig(phase_flip=1).after_cnot.pauli_probabilities() == (0, 0, 1, 0)
    assert NoiseConfig(bit_flip=1, phase_flip=1).after_cnot.pauli_probabilities() == (0, 0, 0, 1)
    assert NoiseConfig(depolarizing_1q=1).after_rotation.pauli_probabilities() == (0.25,) * 4


def test_pauli_probabilities_amplitude_damping_raises_config_error():
    noise = NoiseConfig(t1_us=5.0, time_2q_us=1.0)
    assert noise.after_rotation.pauli_probabilities() == (1, 0, 0, 0)
    message = "^amplitude damping .t1_us. is not a mixture of Pauli errors, .* or approximate with pauli_twirl=True$"
    for refused in (noise.after_cnot.pauli_probabilities, noise.check_pauli_channel):
        with pytest.raises(ConfigError, match=message):
            refused()
    noise.updated(pauli_twirl=True).check_pauli_channel()
    NoiseConfig(t2_us=5.0, **TIMES).check_pauli_channel()


@pytest.mark.parametrize("t1", [0.01, 0.3, 1.0, 5.0, 1e4, 1e8])
@pytest.mark.parametrize("ratio", [None, 0.01, 1.0, 1.9, 2.0])
def test_pauli_twirl_is_mean_over_paulis(t1, ratio):
    exact = NoiseConfig(t1_us=t1, t2_us=None if ratio is None else ratio * t1, **TIMES)
    twirled = exact.updated(pauli_twirl=True)
    for before, after in (
        (exact.after_rotation, twirled.after_rotation),
        (exact.after_cnot, twirled.after_cnot),
    ):
        assert sum(after.pauli_probabilities()) == pytest.approx(1, abs=1e-14)
        mean = PTM(twirl(SuperOp(PTM(transfer_matrix(before))))).data
        np.testing.assert_allclose(transfer_matrix(after), mean, rtol=0, atol=1e-14)
        assert before.shift > 0


def test_pauli_twirl_keeps_pauli_mixtures():
    for noise in NOISES.values():
        if not noise.after_cnot.shift:
            twirled = noise.updated(pauli_twirl=True)
            assert (twirled.after_rotation, twirled.after_cnot) == (noise.after_rotation, noise.after_cnot)


def test_relaxation_without_t2_is_amplitude_damping():
    alone = NoiseConfig(t1_us=3.0, **TIMES)
    assert alone.after_cnot == alone.updated(t2_us=6.0).after_cnot
    damping = PTM(SuperOp(amplitude_damping_error(1 - math.exp(-5 / 3)))).data
    np.testing.assert_allclose(transfer_matrix(alone.after_cnot), damping, rtol=0, atol=1e-14)


def test_relaxation_without_t1_has_no_damping():
    channel = NoiseConfig(t2_us=4.0, **TIMES).after_rotation
    assert channel == Channel(x=math.exp(-0.25), y=math.exp(-0.25))


# --- devices ------------------------------------------------------------------------------------------------------


def fidelities(noise: NoiseConfig) -> list[float]:
    """Return the average fidelities (sum |tr K|**2 + d) / (d**2 + d) of the channels after a rotation and a CNOT."""
    result = []
    for channel in aer_channels(noise):
        operators = Kraus(channel).data
        d = len(operators[0])
        result.append((sum(abs(np.trace(operator)) ** 2 for operator in operators) + d) / (d * d + d))
        assert result[-1] == pytest.approx(average_gate_fidelity(channel), abs=1e-9)
    return result


@pytest.mark.parametrize("device", DEVICES)
def test_devices_have_published_fidelities(device):
    noise = load_noise(device)
    assert noise == load_noise(device)
    assert fidelities(noise) == pytest.approx(FIGURES[device][:2], abs=1e-9)
    assert np.trace(noise.readout) / 2 == pytest.approx(FIGURES[device][2], abs=1e-12)
    assert min(noise.depolarizing_1q, noise.depolarizing_2q) > 0
    assert not noise.preparation


@pytest.mark.parametrize("figures", [(0.999, 0.98, 0.95), (0.95, 0.8, 1.0), (0.99, 0.9, 0.5)])
@pytest.mark.parametrize("t1", [200.0, 1e3, 1e6])
def test_noise_from_fidelities_reproduces_fidelities(figures, t1):
    noise = noise_from_fidelities(*figures, t1_us=t1, t2_us=1.5 * t1, time_1q_us=0.1, time_2q_us=1.0)
    assert fidelities(noise) == pytest.approx(figures[:2], abs=1e-9)
    assert (noise.t1_us, noise.t2_us, noise.time_1q_us, noise.time_2q_us) == (t1, 1.5 * t1, 0.1, 1.0)
    np.testing.assert_allclose(noise.readout, [[figures[2], 1 - figures[2]], [1 - figures[2], figures[2]]])


def test_noise_from_fidelities_strong_relaxation_has_no_depolarizing():
    noise = noise_from_fidelities(0.9999, 0.99, 1.0, t1_us=50.0, t2_us=50.0, time_1q_us=1.0, time_2q_us=5.0)
    assert (noise.depolarizing_1q, noise.depolarizing_2q) == (0, 0)
    assert all(mine < figure for mine, figure in zip(fidelities(noise), (0.9999, 0.99), strict=True))


def test_noise_from_fidelities_out_of_range_raises_config_error():
    times = {"t1_us": 1e6, "t2_us": 1e6, "time_1q_us": 1.0, "time_2q_us": 1.0}
    for figures, name in (
        ((0.99, 0.98, 1.2), "readout"),
        ((0.2, 0.98, 1), "a gate fidelity of 0.2 is out of range; on dimension 2"),
    ):
        with pytest.raises(ConfigError, match=f"^{name}"):
            noise_from_fidelities(*figures, **times)


def test_load_noise_toml_file_returns_config(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("t1_us = 50\nt2_us = 70.5\ntime_2q_us = 0.4\ndepolarizing_2q = 1e-2\n", encoding="utf-8")
    expected = NoiseConfig(t1_us=50.0, t2_us=70.5, time_2q_us=0.4, depolarizing_2q=0.01)
    assert load_noise(path) == load_noise(str(path)) == expected
    path.write_text("t1_ms = 50\n", encoding="utf-8")
    message = f"^{re.escape(str(path))}: NoiseConfig has no setting 't1_ms'; did you mean 't1_us'[?]$"
    with pytest.raises(ConfigError, match=message):
        load_noise(path)
    with pytest.raises(ConfigError, match="^cannot read .*none.toml: No such file"):
        load_noise(tmp_path / "none.toml")


@pytest.mark.parametrize("name", ["ionq", "IonQ-Forte", "", "noise.json", Path("ionq-forte"), "mine.toml.txt"])
def test_load_noise_unknown_device_raises_config_error(name):
    message = f"^unknown device {str(name)!r}; known are ionq-forte, ionq-aria, or name a .toml file$"
    with pytest.raises(ConfigError, match=message if name else "^unknown device "):
        load_noise(name)
    assert simulate.load_noise is load_noise


# --- light cone ---------------------------------------------------------------------------------------------------


def by_the_whole_circuit(circuit: Circuit, tensors, parities, noise: NoiseConfig) -> torch.Tensor:
    weights, inputs, initial = tensors
    strings = [sum(2 << 2 * (circuit.n_qubits - 1 - qubit) for qubit in parity) for parity in parities]
    plan, start = make_plan(circuit, strings, noise), pauli_coefficients(initial, noise.preparation)
    return _Density.apply(plan, len(initial), weights, inputs, start)


@EACH_NOISE
@pytest.mark.parametrize("seed", range(4))
def test_noisy_light_cone_keeps_expectation(seed, noise):
    circuit = random_circuit(5, n_gates=18, seed=seed)
    rng = np.random.default_rng(seed)
    parities = [tuple(rng.permutation(5)[:count].tolist()) for count in (1, 2)]
    for chosen in ([parities[0]], [parities[1]], parities):
        cone = noisy_light_cone(circuit, {qubit for parity in chosen for qubit in parity})
        assert cone == noisy_light_cone(cone, itertools.chain(*chosen))
        tensors = random_tensors(circuit, 2, seed=seed)
        values = density_matrix_expectation(CircuitBatch(circuit, *tensors), chosen, noise)
        whole = by_the_whole_circuit(circuit, tensors, chosen, noise)
        assert_close(values_and_gradients(values, tensors), values_and_gradients(whole, tensors), 1e-13)


def test_noisy_light_cone_keeps_gates_that_reach_measured_qubits():
    indices = [Angle("weight", k) for k in range(5)]
    gates = (
        ry(0, indices[0]),
        ry(2, indices[1]),
        cx(0, 1),
        ry(1, indices[2]),
        cx(2, 3),
        ry(0, indices[3]),
        ry(3, indices[4]),
    )
    circuit = Circuit(4, gates, 6, 1)
    assert noisy_light_cone(circuit, (0,)).gates == (gates[0], gates[2], gates[5])
    assert noisy_light_cone(circuit, [1]).gates == (gates[0], gates[2], gates[3])
    assert noisy_light_cone(circuit, {3}).gates == (gates[1], gates[4], gates[6])
    assert noisy_light_cone(circuit, ()) == Circuit(4, (), 6, 1)
    assert noisy_light_cone(circuit, range(4)) == circuit
    weights, inputs, _ = random_tensors(circuit, 2)
    density_matrix_expectation(CircuitBatch(circuit, weights, inputs), [(0,)], ALL).sum().backward()
    assert [k for k, slope in enumerate(weights.grad) if slope] == [0, 3]
    assert not inputs.grad.any()


def test_noisy_light_cone_keeps_cnot_with_noise_only():
    circuit = Circuit(2, (cx(0, 1),), 0, 0)
    assert not circuit.light_cone((0,)).gates
    assert noisy_light_cone(circuit, (0,)) == circuit
    values = density_matrix_expectation(
        CircuitBatch(circuit, torch.zeros(0)), [(0,)], NoiseConfig(depolarizing_2q=0.25)
    )
    assert values.item() == 0.75


# --- scaled error rates -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("factor", [0.1, 1.0, 3.0])
def test_scaled_noise_of_a_device_has_that_many_times_its_infidelity(name: str, factor: float) -> None:
    def infidelity(noise: NoiseConfig) -> float:
        matrix = transfer_matrix(noise.after_rotation)
        return 1 - average_gate_fidelity(SuperOp(PTM(matrix)))

    device = load_noise(name)
    scaled = device.scaled(factor)
    assert infidelity(scaled) == pytest.approx(factor * infidelity(device), rel=1e-3)
    assert scaled.depolarizing_2q == pytest.approx(factor * device.depolarizing_2q)
    assert device.readout is not None and scaled.readout is not None
    assert scaled.readout[0][1] == pytest.approx(factor * device.readout[0][1])
    assert (scaled.time_1q_us, scaled.time_2q_us) == (device.time_1q_us, device.time_2q_us)
    assert (scaled == device) == (factor == 1)


def test_scaled_noise_has_all_rates_scaled_and_keeps_what_is_absent() -> None:
    rates = {
        "depolarizing_1q": 0.01,
        "depolarizing_2q": 0.02,
        "bit_flip": 0.03,
        "phase_flip": 0.04,
        "preparation": 0.05,
    }
    noise = NoiseConfig(**rates, readout=((0.9, 0.2), (0.1, 0.8)), t1_us=10.0, t2_us=5.0, **TIMES, pauli_twirl=True)
    scaled = noise.scaled(2)
    assert {name: getattr(scaled, name) for name in rates} == pytest.approx({n: 2 * rate for n, rate in rates.items()})
    assert np.array(scaled.readout) == pytest.approx(np.array([[0.8, 0.4], [0.2, 0.6]]))
    assert (scaled.t1_us, scaled.t2_us, scaled.pauli_twirl) == (5.0, 2.5, True)
    assert NoiseConfig().scaled(7) == NoiseConfig()


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (0, "factor=0 of error rates must be a number above zero"),
        (-1.0, "factor=-1.0 of error rates"),
        (math.inf, "factor=inf of error rates"),
        (math.nan, "factor=nan of error rates"),
        (60.0, "depolarizing_2q=1.2: input should be less than or equal to 1"),
    ],
)
def test_scaled_noise_with_impossible_factor_raises(factor: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NoiseConfig(depolarizing_2q=0.02).scaled(factor)
