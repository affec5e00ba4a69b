"""Backends by name, as the command line has them."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ketfit.errors import ConfigError, KetFitError
from ketfit.hardware.backends.base import Backend, Description, Scalar, plain_options
from ketfit.hardware.backends.local import Simulator
from ketfit.hardware.pricing import DeviceCost
from ketfit.integers import as_integer
from ketfit.simulate.noise import NoiseConfig, load_noise

JOBS = "jobs"
"""Folder of a run in which a simulator keeps its jobs."""

OPTIONS = {
    "simulator": {"trajectories", "max_circuits"},
    "aer": {"optimization_level", "max_circuits"},
    "ionq": {"mitigation", "gateset", "optimization_level", "max_circuits", "noise_model"},
    "ibm": {"optimization_level", "decoupling", "max_seconds", "max_circuits"},
}
"""Names that `--option` takes, by the kind of backend."""

KNOWN = "simulator, aer, ionq:MACHINE, ibm:MACHINE and module:function"
_METHODS = ("describe", "count_gates", "submit", "status", "result", "cancel", "jobs")


def load_backend(
    name: str, folder: Path, options: Mapping[str, Scalar] | None = None, *, seed: int = 0, own_code: bool = False
) -> Backend:
    """A backend by its name.

    ``simulator`` and ``aer`` compute here, with ``:ionq-forte``, ``:ionq-aria`` or ``:FILE.toml`` behind them under
    that noise; ``ionq:qpu.forte-1``, ``ionq:simulator`` and the like are IonQ's machines and ``ibm:ibm_torino`` and the
    like IBM's, with the key from the environment; ``module:function`` calls your own function with `folder`, `seed` and
    the options by name. The module is one that Python finds, or else a file or package in the current folder.

    Args:
        name: As above.
        folder: Of the run; simulators keep their jobs in it.
        options: Of the backend, by name; no secrets: they are written down with the run.
        seed: Source of a simulator's shots.
        own_code: Whether the name may be one of a function to import. Only a user says so, never a file.

    Raises:
        ConfigError: there is no such backend or option, or your own function fails or returns something else.
        MissingExtraError: it needs a package that is not installed.
    """
    kind, _, rest = name.partition(":")
    given = plain_options(options or {})
    seed = as_integer(seed, "seed", minimum=0)
    if kind in OPTIONS:
        unknown = sorted(given.keys() - OPTIONS[kind])
        if unknown:
            raise ConfigError(f"{kind} has no option {unknown[0]!r}; known are {', '.join(sorted(OPTIONS[kind]))}")
        return (
            _simulator(rest, folder, given, seed, name)
            if kind == "simulator"
            else _qiskit(kind, rest, folder, given, seed)
        )
    if rest.isidentifier() and all(part.isidentifier() for part in kind.split(".")):
        if not own_code:
            raise ConfigError(
                f"{name} is code of your own; a run's folder does not call it: name it again with --backend"
            )
        return _own_backend(name, kind, rest, folder, given, seed)
    raise ConfigError(f"unknown backend {name!r}; known are {KNOWN}")


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


def _simulator(rest: str, folder: Path, options: Mapping[str, Any], seed: int, name: str) -> Simulator:
    return Simulator(folder / JOBS, _profile(rest), seed=seed, name=name, device=_device(rest), **options)


def _own_backend(
    name: str, module: str, function: str, folder: Path, options: Mapping[str, Scalar], seed: int
) -> Backend:
    """Return the backend that a user's own function makes; anything it raises becomes an error that names it."""
    try:
        factory = getattr(_import(module), function)
        made: Backend = factory(folder=folder, seed=seed, **options)
        lacking = [method for method in _METHODS if not callable(getattr(made, method, None))]
        if lacking or not isinstance(made.describe(), Description):
            raise ConfigError(
                f"{name} returned {type(made).__name__}, which is no backend: look at {(*lacking, 'describe')[0]}()"
            )
    except KetFitError:
        raise
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"the backend {name!r} with the options {dict(options)} cannot be made: {told}; known are {KNOWN}"
        ) from error
    return made


def _import(module: str) -> ModuleType:
    """A module that Python finds, or else one from the current folder, as the user named it.

    The current folder is not put on the path: nothing but the module that was named can come from it, and nothing
    there takes the place of an installed package.
    """
    top = module.partition(".")[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        spec = importlib.machinery.PathFinder.find_spec(top, [str(Path.cwd())])
        if spec is not None and spec.loader is not None:
            sys.modules[top] = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(sys.modules[top])
            except BaseException:
                del sys.modules[top]
                raise
    return importlib.import_module(module)


def _qiskit(kind: str, rest: str, folder: Path, options: Mapping[str, Scalar], seed: int) -> Backend:
    # They come with the extras "hardware" and "ibm", whose packages take seconds to import.
    if kind in ("ionq", "ibm"):
        machines = importlib.import_module(f"ketfit.hardware.backends.{kind}")
        made: Callable[..., Backend] = machines.IonQBackend if kind == "ionq" else machines.IBMBackend
        return made(rest, **options)
    aer, qiskit = (importlib.import_module(f"ketfit.hardware.backends.{module}") for module in ("aer", "qiskit"))
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
