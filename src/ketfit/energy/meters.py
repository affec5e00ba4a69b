"""Energy counters of this machine: RAPL for the processor, NVML for an NVIDIA GPU. A missing counter is an error.

RAPL is read from the kernel's powercap files, a stable interface of Linux, and NVML through NVIDIA's nvidia-ml-py.
Neither contacts another machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ketfit.energy.quantities import Measured, UncertainValue
from ketfit.errors import EnergyMeterError, MissingExtraError

POWERCAP = Path("/sys/class/powercap")


class Meter(Protocol):
    """A monotonic energy counter."""

    @property
    def name(self) -> str:
        """Name of the counted hardware."""

    @property
    def processor(self) -> Literal["cpu", "gpu"]:
        """The processor that must do the work."""

    def read(self) -> tuple[int, ...]:
        """Return the counter of each part."""

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Return the joules between two readings."""


@dataclass(frozen=True, slots=True)
class RaplMeter:
    """The RAPL counters of all processor packages of this machine, in microjoules.

    A package's counter starts again at 0 after `max_energy_range_uj`, some minutes at full power. One such overflow
    between two readings is corrected, a second one is lost.
    """

    packages: tuple[Path, ...]
    limits: tuple[int, ...]
    name: str = "this machine's processor (RAPL)"
    processor: Literal["cpu"] = "cpu"

    @classmethod
    def find(cls, root: Path | None = None) -> RaplMeter:
        """Return a meter of the packages below `root`; None is the kernel's folder.

        Raises:
            EnergyMeterError: There are no packages, or they cannot be read.
        """
        root = POWERCAP if root is None else root
        if not root.is_dir():
            raise EnergyMeterError(
                f"{root} does not exist: this machine shows no RAPL counters (virtual machines seldom do)"
            )
        zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        packages = tuple(zone for zone in zones if _text(zone / "name").startswith("package"))
        if not packages:
            raise EnergyMeterError(f"{root} has no processor package (intel-rapl:N named package-N)")
        limits = tuple(_number(package / "max_energy_range_uj") for package in packages)
        meter = cls(packages, limits)
        meter.read()
        return meter

    def read(self) -> tuple[int, ...]:
        """Return the microjoules of each package.

        Raises:
            EnergyMeterError: A file cannot be read.
        """
        return tuple(_number(package / "energy_uj") for package in self.packages)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Return the joules of all packages together between two readings."""
        parts = zip(before, after, self.limits, strict=True)
        return 1e-6 * sum(end - start if end >= start else end - start + limit for start, end, limit in parts)


@dataclass(frozen=True, slots=True)
class NvmlMeter:
    """The counter of an NVIDIA GPU, in millijoules since the driver was loaded."""

    nvml: Any
    handle: Any
    name: str
    processor: Literal["gpu"] = "gpu"

    @classmethod
    def find(cls, index: int = 0) -> NvmlMeter:
        """Return a meter of the GPU with this index.

        Raises:
            EnergyMeterError: There is no such GPU, or it has no energy counter.
            MissingExtraError: nvidia-ml-py is not installed.
        """
        try:
            import pynvml
        except ImportError as error:
            raise MissingExtraError("Reading a GPU's energy", "'ketfit[energy]'") from error
        try:
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            meter = cls(pynvml, handle, f"{pynvml.nvmlDeviceGetName(handle)} (NVML)")
        except pynvml.NVMLError as error:
            raise EnergyMeterError(f"no NVIDIA GPU {index} can be read: {error}") from error
        meter.read()
        return meter

    def read(self) -> tuple[int, ...]:
        """Return the millijoules.

        Raises:
            EnergyMeterError: The GPU does not answer, or is older than this counter (Volta).
        """
        try:
            return (int(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)),)
        except self.nvml.NVMLError as error:
            raise EnergyMeterError(f"{self.name}: the energy counter cannot be read: {error}") from error

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Return the joules between two readings."""
        return 1e-3 * (after[0] - before[0])


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
