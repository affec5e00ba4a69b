"""Tests of the energy counters, on files and a library that imitate them."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch

from ketfit import HeadConfig
from ketfit.cli.energy import _measure
from ketfit.energy.crossover import CrossoverModel
from ketfit.energy.meters import Meter, nvml_meter, rapl_meter, read_while
from ketfit.energy.profiles import QpuProfile, StatevectorProfile, load_profile
from ketfit.energy.quantities import Measured, UncertainValue
from ketfit.errors import ConfigError, EnergyMeterError, MissingExtraError


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """A tree like the kernel's: two packages, a part of one, and the whole machine's own counter."""
    for zone, name in {
        "intel-rapl:0": "package-0",
        "intel-rapl:1": "package-1",
        "intel-rapl:0:0": "core",
        "intel-rapl:2": "psys",
    }.items():
        folder = tmp_path / zone
        folder.mkdir()
        (folder / "name").write_text(f"{name}\n")
        (folder / "energy_uj").write_text("1000000\n")
        (folder / "max_energy_range_uj").write_text("5000000\n")
    return tmp_path


def set_counter(root: Path, package: int, microjoules: object) -> None:
    (root / f"intel-rapl:{package}" / "energy_uj").write_text(f"{microjoules}\n")


def test_rapl_meter_adds_packages_without_their_parts(powercap):
    meter = rapl_meter(powercap)
    before = meter.read()
    set_counter(powercap, 0, 1_500_000)
    set_counter(powercap, 1, 2_000_000)
    assert meter.joules(before, meter.read()) == pytest.approx(1.5)


def test_rapl_meter_corrects_overflow(powercap):
    meter = rapl_meter(powercap)
    before = meter.read()
    set_counter(powercap, 0, 250_000)  # 4 J to the end, and a quarter
    assert meter.joules(before, meter.read()) == pytest.approx(4.25)


def test_read_while_counts_runs(powercap):
    meter, runs = rapl_meter(powercap), []

    def work():
        runs.append(1)
        set_counter(powercap, 0, 1_000_000 + 10_000 * len(runs))

    reading = read_while(meter, work, seconds=0)
    assert (reading.runs, len(runs)) == (1, 2)
    assert reading.energy.per(1).value == pytest.approx(0.01)
    assert reading.energy.kind == "measured"


def test_read_while_with_stopped_counter_fails(powercap):
    with pytest.raises(EnergyMeterError, match="did not move"):
        read_while(rapl_meter(powercap), lambda: None, seconds=0)


@pytest.mark.parametrize("content", ["", "many", "-5"])
def test_rapl_meter_rejects_counter_without_number(powercap, content):
    set_counter(powercap, 1, content)
    with pytest.raises(EnergyMeterError, match="no number"):
        rapl_meter(powercap)


def test_rapl_meter_without_counters_fails(tmp_path, powercap):
    with pytest.raises(EnergyMeterError, match="does not exist"):
        rapl_meter(tmp_path / "none")
    (powercap / "intel-rapl:1" / "energy_uj").unlink()
    with pytest.raises(EnergyMeterError, match="energy_uj cannot be read"):
        rapl_meter(powercap)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(EnergyMeterError, match="no processor package"):
        rapl_meter(empty)


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs that torch has in the order "b", "a" and NVML in the order "a", "b"."""
    properties = [types.SimpleNamespace(uuid=uuid) for uuid in ("b", "a")]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties[index])


def fake_nvml(energies, uuids=("GPU-a", "GPU-b")):
    class NVMLError(Exception):
        pass

    def find(uuid):
        if uuid not in uuids:
            raise NVMLError("Not Found")
        return uuids.index(uuid)

    def energy(handle):
        value = energies.pop(0)
        if value is None:
            raise NVMLError("Not Supported")
        return value

    return types.SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=find,
        nvmlDeviceGetName=lambda handle: f"Some GPU {handle}",
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )


def test_nvml_meter_reads_millijoules(monkeypatch, gpus):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([0, 1000, 3500]))
    reading = read_while(nvml_meter(), lambda: None, seconds=0)
    assert reading.energy == Measured(UncertainValue(2.5, 2.5, 2.5))


@pytest.mark.parametrize(("index", "nvml_index"), [(0, 1), (1, 0)])
def test_nvml_meter_reads_gpu_of_torch(monkeypatch, gpus, index, nvml_index):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([0]))
    meter = nvml_meter(index)
    assert (meter.name, meter.device) == (f"Some GPU {nvml_index} (NVML)", f"cuda:{index}")


def test_nvml_meter_without_gpu_of_torch_fails(monkeypatch, gpus):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([0], uuids=("GPU-a",)))
    with pytest.raises(EnergyMeterError, match=r"cuda:0 \(GPU-b\) cannot be read: Not Found"):
        nvml_meter()
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: types.SimpleNamespace())
    with pytest.raises(EnergyMeterError, match="has no UUID of cuda:0.*upgrade torch"):
        nvml_meter()

    def without_cuda(index):
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch.cuda, "get_device_properties", without_cuda)
    with pytest.raises(EnergyMeterError, match="torch cannot use the GPU cuda:0: Torch not compiled"):
        nvml_meter()


def test_measure_runs_on_device_of_meter(monkeypatch):
    readings = iter([(0,), (5,)])
    meter = Meter("a GPU", "meta", lambda: next(readings), 1e-3, (0,))  # a device without values
    model = CrossoverModel(
        HeadConfig.paper(),
        load_profile("ionq-forte", QpuProfile),
        load_profile("statevector", StatevectorProfile),
    )
    devices = []

    def fake_expectation(circuit, weights, inputs, **read):
        devices.extend([weights.device.type, inputs.device.type])
        return torch.zeros(1)

    monkeypatch.setattr(sys.modules["ketfit.simulate.expectation"], "expectation", fake_expectation)
    assert model.measure(meter, 4, seconds=0).device == "a GPU"
    assert set(devices) == {"meta"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a torch that cannot use a GPU")
def test_measure_nvml_without_gpu_of_torch_is_config_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([0]))
    with pytest.raises(ConfigError, match="--measure nvml: device='cuda' cannot be used here"):
        _measure(None, "nvml")


def test_nvml_meter_without_counter_or_package_fails(monkeypatch, gpus):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([None]))
    with pytest.raises(EnergyMeterError, match="Some GPU.*Not Supported"):
        nvml_meter()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingExtraError, match=r"ketfit\[energy\]"):
        nvml_meter()
