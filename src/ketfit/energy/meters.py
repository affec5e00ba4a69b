"""Counters of energy that this machine has: RAPL for the processor, NVML for an NVIDIA GPU. Nothing stands in for one.

RAPL is read from the kernel's powercap files, whose format is a stable interface of Linux; NVML through NVIDIA's own
nvidia-ml-py. Neither talks to any other machine.
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
    """A counter that only rises."""

    @property
    def name(self) -> str:
        """What it counts, for a person."""

    @property
    def of(self) -> Literal["cpu", "gpu"]:
        """Where the work has to run to be counted."""

    def read(self) -> tuple[int, ...]:
        """The counter now, a number for each part."""

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Between two readings."""


@dataclass(frozen=True, slots=True)
class RaplMeter:
    """All processor packages of this machine, as the kernel's powercap files count them, in microjoules.

    A package's counter starts again at 0 after `max_energy_range_uj`, some minutes at full power; one such turn between
    two readings is seen, two are not.
    """

    packages: tuple[Path, ...]
    limits: tuple[int, ...]
    name: str = "this machine's processor (RAPL)"
    of: Literal["cpu"] = "cpu"

    @classmethod
    def find(cls, root: Path | None = None) -> RaplMeter:
        """The packages below `root`, which is the kernel's own folder unless given.

        Raises:
            EnergyMeterError: there are none, or they cannot be read.
        """
        root = POWERCAP if root is None else root
        if not root.is_dir():
            raise EnergyMeterError(
                f"{root} is not there: this machine shows no RAPL counters (virtual machines seldom do)"
            )
        packages = tuple(
            zone for zone in sorted(root.glob("intel-rapl:*")) if zone.name.count(":") == 1 and _is_package(zone)
        )
        if not packages:
            raise EnergyMeterError(f"{root} has no processor package (intel-rapl:N named package-N)")
        limits = tuple(_number(package / "max_energy_range_uj") for package in packages)
        meter = cls(packages, limits)
        meter.read()
        return meter

    def read(self) -> tuple[int, ...]:
        """Microjoules of each package.

        Raises:
            EnergyMeterError: a file cannot be read.
        """
        return tuple(_number(package / "energy_uj") for package in self.packages)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Of all packages together, between two readings."""
        parts = zip(before, after, self.limits, strict=True)
        return 1e-6 * sum(end - start if end >= start else end - start + limit for start, end, limit in parts)


@dataclass(frozen=True, slots=True)
class NvmlMeter:
    """The first NVIDIA GPU, as its own counter has it, in millijoules since the driver was loaded."""

    nvml: Any
    handle: Any
    name: str
    of: Literal["gpu"] = "gpu"

    @classmethod
    def find(cls, index: int = 0) -> NvmlMeter:
        """The GPU of this number.

        Raises:
            EnergyMeterError: there is none, or it has no such counter.
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
        """Millijoules.

        Raises:
            EnergyMeterError: the GPU does not answer, or is older than this counter (Volta).
        """
        try:
            return (int(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)),)
        except self.nvml.NVMLError as error:
            raise EnergyMeterError(f"{self.name}: the energy counter cannot be read: {error}") from error

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Between two readings."""
        return 1e-3 * (after[0] - before[0])


@dataclass(frozen=True, slots=True)
class EnergyReading:
    """What a counter said while something ran `runs` times."""

    energy: Measured
    seconds: float
    runs: int


def read_while(meter: Meter, work: Callable[[], object], seconds: float = 2.0) -> EnergyReading:
    """Run `work` once unread, then for at least so many seconds with the meter read before and after.

    Raises:
        EnergyMeterError: the counter cannot be read, or stood still, which a counter does that nothing feeds.
    """
    work()
    before, start, runs = meter.read(), time.perf_counter(), 0
    while time.perf_counter() - start < seconds or not runs:
        work()
        runs += 1
    took = time.perf_counter() - start
    joules = meter.joules(before, meter.read())
    if joules <= 0:
        raise EnergyMeterError(f"{meter.name}: the counter did not move in {took:.1f} s; nothing seems to feed it")
    return EnergyReading(Measured(UncertainValue(joules, joules, joules)), took, runs)


def _is_package(zone: Path) -> bool:
    return _text(zone / "name").startswith("package")


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
            f"{path} cannot be read ({error}); the kernel lets only root read it unless told"
        ) from error
