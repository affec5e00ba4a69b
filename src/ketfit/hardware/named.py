"""Backends by name, as the command line has them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

from ketfit.errors import ConfigError, MissingExtraError
from ketfit.hardware.backend import Backend, Scalar
from ketfit.hardware.cost import DeviceCost
from ketfit.hardware.simulator import Simulator
from ketfit.simulate.noise import NoiseConfig, load_noise

JOBS = "jobs"
"""Folder of a run in which a simulator keeps its jobs."""


def load_backend(
    name: str, folder: Path, options: Mapping[str, Scalar] | None = None, *, seed: int = 0, own_code: bool = False
) -> Backend:
    """A backend by its name.

    ``simulator`` and ``aer`` compute here, with ``:ionq-forte``, ``:ionq-aria`` or ``:FILE.toml`` behind them under
    that noise; ``ionq:qpu.forte-1``, ``ionq:simulator`` and the like are IonQ's machines and ``ibm:ibm_torino`` and the
    like IBM's, with the key from the environment; ``package.module:factory`` calls your own function with `folder`,
    `seed` and the options by name.

    Args:
        name: As above.
        folder: Of the run; simulators keep their jobs in it.
        options: Of the backend, by name; no secrets: they are written down with the run.
        seed: Source of a simulator's shots.
        own_code: Whether the name may be one of a function to import. Only a user says so, never a file.

    Raises:
        ConfigError: there is no such backend or option.
        MissingExtraError: it needs a package that is not installed.
    """
    kind, _, rest = name.partition(":")
    given = dict(options or {})
    try:
        if kind == "simulator":
            profile = _profile(rest)
            return Simulator(folder / JOBS, profile, seed=seed, name=name, device=_device(rest), **given)  # type: ignore[arg-type]
        if kind in ("aer", "ionq", "ibm"):
            return _qiskit(kind, rest, folder, given, seed)
        if "." in kind and rest:
            if not own_code:
                raise ConfigError(
                    f"{name} is code of your own; a run's folder does not call it: name it again with --backend"
                )
            factory: Callable[..., Backend] = getattr(importlib.import_module(kind), rest)
            return factory(folder=folder, seed=seed, **given)
    except (ImportError, AttributeError, TypeError) as error:
        if isinstance(error, MissingExtraError):
            raise
        raise ConfigError(f"the backend {name!r} with the options {given} cannot be made: {error}") from error
    raise ConfigError(
        f"unknown backend {name!r}; known are simulator, aer, ionq:MACHINE, ibm:MACHINE and package.module:factory"
    )


def ask_prices(backend: Backend) -> DeviceCost:
    """A provider's own prices, from its own API; nothing is submitted.

    Raises:
        ConfigError: this backend has nobody to ask.
        BackendError: the provider does not say.
    """
    ask: Callable[[], DeviceCost] | None = getattr(backend, "device_cost", None)
    if ask is None:
        raise ConfigError(f"{backend.describe().name} has no prices to ask for; give a device or a TOML file instead")
    return ask()


def _qiskit(kind: str, rest: str, folder: Path, options: Mapping[str, Scalar], seed: int) -> Backend:
    # They come with the extras "hardware" and "ibm", whose packages take seconds to import.
    if kind in ("ionq", "ibm"):
        machines = importlib.import_module(f"ketfit.hardware.{kind}")
        made: Callable[..., Backend] = machines.IonQBackend if kind == "ionq" else machines.IBMBackend
        return made(rest, **options)
    aer, qiskit = (importlib.import_module(f"ketfit.hardware.{module}") for module in ("aer", "qiskit"))
    noise = _profile(rest)
    noted = {} if noise is None else {"noise": noise.model_dump_json(exclude_defaults=True)}
    simulator: Backend = qiskit.QiskitBackend(
        folder / JOBS,
        aer.aer_simulator(noise),
        name=":".join(filter(None, ("aer", rest))),
        seed=seed,
        options=noted,
        device=_device(rest),
        prepared=noise is not None and noise.preparation > 0,
        **options,
    )
    return simulator


def _profile(name: str) -> NoiseConfig | None:
    return load_noise(name) if name else None


def _device(name: str) -> str | None:
    return name if name in ("ionq-forte", "ionq-aria") else None
