from __future__ import annotations

import json
import sys

import pytest

from ketfit.circuit.ansatz import reuploading_circuit
from ketfit.energy.crossover import FOLLOW_UP, PAPER, CrossoverModel
from ketfit.energy.meters import RaplMeter
from ketfit.energy.profiles import ProcessorProfile, QpuProfile, StatevectorProfile, load_profile
from ketfit.energy.qpu import native_gates, qpu_cost
from ketfit.energy.simulation import statevector_cost
from ketfit.errors import InputError
from ketfit.model.config import HeadConfig
from tests.cli.test_cli import run, run_json


@pytest.fixture(scope="module")
def model() -> CrossoverModel:
    qpu, program = load_profile("ionq-forte", QpuProfile), load_profile("statevector", StatevectorProfile)
    return CrossoverModel(HeadConfig.paper(), qpu, program)


@pytest.fixture(scope="module")
def a100() -> ProcessorProfile:
    return load_profile("nvidia-a100", ProcessorProfile)


@pytest.mark.slow
def test_the_qpu_takes_less_from_the_crossover_on_and_more_before(model, a100):
    found = model.crossover(a100)
    assert found.qubits is not None
    for qubits, less in ((found.qubits - 1, False), (found.qubits, True), (found.qubits + 5, True)):
        circuit = reuploading_circuit(qubits, 1, 1, 4, 2).light_cone((0,))
        quantum = qpu_cost(native_gates(circuit, "zz"), 1, 1000, model.qpu).energy.joules.value
        simulated = statevector_cost(circuit, a100, model.program).energy.joules.value
        assert (quantum <= simulated) is less


def test_both_published_crossovers_are_inside_the_range(model, a100):
    found = model.crossover(a100)
    assert found.earliest is not None and found.latest is not None
    assert found.earliest <= FOLLOW_UP < found.qubits < PAPER <= found.latest


def test_the_papers_46_under_its_likely_constants(model, a100):
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
def test_both_grow_with_the_gates_so_that_layers_hardly_move_it(model, a100):
    deep = CrossoverModel(HeadConfig.paper(main_layers=16), model.qpu, model.program)
    assert abs(deep.crossover(a100).qubits - model.crossover(a100).qubits) <= 1


def test_shifts_are_sorted_and_inside_the_range(model, a100):
    found = model.crossover(a100)
    widths = [shift.width for shift in found.shifts]
    assert widths == sorted(widths, reverse=True)
    assert found.shifts[0].name == "shots"
    for shift in found.shifts:
        assert found.earliest <= min(shift.at_low, shift.at_high) <= max(shift.at_low, shift.at_high) <= found.latest


def test_rows_stop_where_a_state_cannot_be_held(model):
    laptop = load_profile("laptop", ProcessorProfile)
    rows = list(model.points([laptop], [30, 40]))
    assert [(row.device, row.qubits) for row in rows if row.device == laptop.name] == [(laptop.name, 30)]
    assert all(row.low <= row.joules <= row.high for row in rows)


def test_a_nearest_neighbour_ring_has_no_crossover_with_a_tensor_network(model, a100):
    ring = CrossoverModel(HeadConfig.paper(connectivity=1), model.qpu, model.program)
    widths = [20, 60]
    networks = list(ring.network_points(a100, widths))
    quantum = list(ring.points([], widths))
    assert [row.qubits for row in networks] == widths
    assert all(network.high < 1e-3 * row.low for network, row in zip(networks, quantum, strict=True))


def test_a_network_that_does_not_fit_gives_no_row(model, a100):
    assert [row.qubits for row in model.network_points(a100, [8, 56])] == [8]


def test_shots_out_of_order(model):
    with pytest.raises(InputError, match="the value, the lowest and the highest"):
        CrossoverModel(model.head, model.qpu, model.program, (10, 100, 1000))


def test_command(capsys, tmp_path):
    picture = tmp_path / "energy.svg"
    report = run_json(capsys, "energy", "--against", "nvidia-a100", "--against", "laptop", "--plot", str(picture))
    assert report["range"][0] <= FOLLOW_UP < report["crossover_qubits"] < PAPER <= report["range"][1]
    assert report["circuit"] == {"main_layers": 4, "n_reuploads": 1, "connectivity": 2}
    names = {assumption["name"] for assumption in report["assumptions"]}
    assert {"shots", "QPU: power_watts", "simulating device: bandwidth_gb_s", "simulator: amplitude_bytes"} <= names
    assert all(assumption["source"] for assumption in report["assumptions"])
    assert {row["kind"] for row in report["rows"]} <= {"measured", "modelled", "assumed"}
    assert picture.read_text().count("<svg") == 1
    json.dumps(report)


def test_command_without_counters(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("ketfit.energy.meters.POWERCAP", tmp_path / "none")
    code, out, err = run(capsys, "energy", "--measure", "rapl", "--against", "laptop")
    assert code == 1
    assert out == ""
    assert "shows no RAPL counters" in err


@pytest.mark.slow
def test_command_reads_a_counter(capsys, monkeypatch):
    readings = iter([(0,), (3_000_000,)])
    monkeypatch.setattr(RaplMeter, "read", lambda self: next(readings))
    monkeypatch.setattr(RaplMeter, "find", lambda: RaplMeter((), (10**9,)))
    monkeypatch.setattr(sys.modules["ketfit.cli.energy"], "MEASURED_QUBITS", 4)
    report = run_json(capsys, "energy", "--measure", "rapl", "--against", "laptop")
    measured = report["measured"]
    assert (measured["kind"], measured["qubits"]) == ("measured", 4)
    runs = 3 / measured["joules"]
    assert runs == pytest.approx(round(runs))
    assert measured["seconds"] * runs >= 2


def test_command_with_a_config(capsys, tmp_path):
    config = tmp_path / "mine.toml"
    config.write_text("[head]\nn_qubits = 6\nmain_layers = 2\nconnectivity = 1\n")
    report = run_json(capsys, "energy", "--config", config, "--against", "nvidia-h100")
    assert report["circuit"] == {"main_layers": 2, "n_reuploads": 1, "connectivity": 1}


def test_command_used_wrongly(capsys, tmp_path):
    assert run(capsys, "energy", "--plot", tmp_path / "energy.gif")[0] == 2
    assert run(capsys, "energy", "--qpu", "nobodys")[0] == 2
    assert run(capsys, "energy", "model", "--config", tmp_path / "mine.toml")[0] == 2
