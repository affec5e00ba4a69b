"""Energy counters of this machine: RAPL for the processor, NVML for an NVIDIA GPU. A missing counter is an error.

RAPL is read from the kernel's powercap files, a stable interface of Linux, and NVML through NVIDIA's nvidia-ml-py.
Neither contacts another machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ketfit.energy.quantities import Measured, UncertainValue
from ketfit.errors import EnergyMeterError, optional_imports

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class Meter:
    """Monotonic energy counters of this machine.

    Attributes:
        name: Name of the counted hardware.
        device: The torch device that must do the work, such as "cpu" or "cuda:0".
        read: Returns the counter of each part, or raises EnergyMeterError.
        joules_per_count: Unit of the counters.
        limits: The largest value of each counter, after which it starts again at 0. One such overflow between two
            readings is corrected, a second one is lost.
    """

    name: str
    device: str
    read: Callable[[], tuple[int, ...]]
    joules_per_count: float
    limits: tuple[int, ...]

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Return the joules of all parts together between two readings."""
        parts = zip(before, after, self.limits, strict=True)
        counts = sum(end - start if end >= start else end - start + limit for start, end, limit in parts)
        return self.joules_per_count * counts


def rapl_meter(root: Path | None = None) -> Meter:
    """Return a meter of all processor packages, whose RAPL counters start again after some minutes at full power.

    Args:
        root: Folder of the packages; None is the kernel's.

    Raises:
        EnergyMeterError: There are no packages, or they cannot be read.
    """
    root = POWERCAP if root is None else root
    if not root.is_dir():
        raise EnergyMeterError(
            f"{root} does not exist: this machine shows no RAPL counters (virtual machines seldom do)"
        )
    zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if zone.name.count(":") == 1]
    packages = [zone for zone in zones if _text(zone / "name").startswith("package")]
    if not packages:
        raise EnergyMeterError(f"{root} has no processor package (intel-rapl:N named package-N)")
    limits = tuple(_number(package / "max_energy_range_uj") for package in packages)

    def read() -> tuple[int, ...]:
        return tuple(_number(package / "energy_uj") for package in packages)

    read()
    return Meter("this machine's processor (RAPL)", "cpu", read, 1e-6, limits)


def nvml_meter(index: int = 0) -> Meter:
    """Return a meter of an NVIDIA GPU, which counts from the loading of its driver.

    Args:
        index: Index of the GPU in torch, as in "cuda:0".

    Raises:
        EnergyMeterError: Torch or NVML has no such GPU, or it has no energy counter: it is older than Volta.
        MissingExtraError: nvidia-ml-py is not installed.
    """
    with optional_imports("Reading a GPU's energy", "energy"):
        import pynvml
    # Not by index: NVML ignores CUDA_VISIBLE_DEVICES and orders GPUs of several kinds differently.
    uuid = _gpu_uuid(index)
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        name = f"{pynvml.nvmlDeviceGetName(handle)} (NVML)"
    except pynvml.NVMLError as error:
        raise EnergyMeterError(f"the GPU cuda:{index} ({uuid}) cannot be read: {error}") from error

    def read() -> tuple[int, ...]:
        try:
            return (int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)),)
        except pynvml.NVMLError as error:
            raise EnergyMeterError(f"{name}: the energy counter cannot be read: {error}") from error

    read()
    return Meter(name, f"cuda:{index}", read, 1e-3, (0,))


def _gpu_uuid(index: int) -> str:
    """Return the UUID of a GPU of torch in NVML's spelling."""
    import torch

    try:
        properties: Any = torch.cuda.get_device_properties(index)
    except (RuntimeError, AssertionError) as error:  # the latter also from a torch without CUDA
        raise EnergyMeterError(f"torch cannot use the GPU cuda:{index}: {error}") from error
    uuid = getattr(properties, "uuid", None)
    if uuid is None:
        raise EnergyMeterError(
            f"torch {torch.__version__} has no UUID of cuda:{index}, by which NVML finds the same GPU; upgrade torch"
        )
    return f"GPU-{uuid}"


@dataclass(frozen=True, slots=True)
class EnergyReading:
    """Energy and time of `runs` runs of a function."""

    energy: Measured
    seconds: float
    runs: int


def read_while(meter: Meter, work: Callable[[], object], seconds: float = 2.0) -> EnergyReading:
    """Measure the energy of repeated calls of `work`, after one warm-up call.

    Args:
        meter: Energy counter, read before and after.
        work: Function to measure.
        seconds: Shortest time to repeat it.

    Raises:
        EnergyMeterError: The counter cannot be read, or did not move.
    """
    work()
    before, start, runs = meter.read(), time.perf_counter(), 0
    while time.perf_counter() - start < seconds or not runs:
        work()
        runs += 1
    elapsed = time.perf_counter() - start
    joules = meter.joules(before, meter.read())
    if joules <= 0:
        raise EnergyMeterError(f"{meter.name}: the counter did not move in {elapsed:.1f} s; it does not work here")
    return EnergyReading(Measured(UncertainValue(joules, joules, joules)), elapsed, runs)


def _number(path: Path) -> int:
    text = _text(path)
    if not text.isdecimal():
        raise EnergyMeterError(f"{path} holds {text[:40]!r} and no number")
    return int(text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise EnergyMeterError(
            f"{path} cannot be read ({error}); by default the kernel allows only root to read it"
        ) from error
