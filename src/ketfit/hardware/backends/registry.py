"""Backends by name, as on the command line."""

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
from ketfit.hardware.backends.base import Backend, Description, Scalar, checked_options
from ketfit.hardware.backends.local import Simulator
from ketfit.hardware.backends.retry import RetryPolicy
from ketfit.hardware.pricing import DeviceCost
from ketfit.integers import as_integer
from ketfit.simulate.noise import NoiseConfig, load_noise

JOBS = "jobs"
"""Subfolder of a run in which a simulator stores its jobs."""

OPTIONS = {
    "simulator": {"trajectories", "max_circuits"},
    "aer": {"optimization_level", "max_circuits"},
    "ionq": {"mitigation", "gateset", "optimization_level", "max_circuits", "noise_model"},
    "ibm": {"optimization_level", "decoupling", "max_seconds", "max_circuits"},
}
"""Names of options by the kind of backend."""

KNOWN = "simulator, aer, ionq:MACHINE, ibm:MACHINE and module:function"
_METHODS = ("describe", "count_gates", "submit", "status", "result", "cancel", "jobs")


def load_backend(
    name: str, folder: Path, options: Mapping[str, Scalar] | None = None, *, seed: int = 0, allow_import: bool = False
) -> Backend:
    """Return a backend by its name.

    ``simulator`` and ``aer`` compute on this machine; the suffix ``:ionq-forte``, ``:ionq-aria`` or ``:FILE.toml`` adds
    that noise. ``ionq:qpu.forte-1``, ``ionq:simulator`` and the like are IonQ's machines and ``ibm:ibm_torino`` and the
    like IBM's, with the key from the environment. ``module:function`` calls your own function with `folder`, `seed` and
    the options by name; the module is one that Python finds, or else a file or package in the current folder.

    Args:
        name: Name as above.
        folder: Folder of the run; simulators store their jobs in it.
        options: Options of the backend; no secrets, since they are stored with the run.
        seed: Seed of a simulator's shots.
        allow_import: Allow ``module:function``, which runs code. Set it for a name from a user, never from a file.

    Raises:
        ConfigError: The backend or an option is unknown, or your own function fails or returns no backend.
        MissingExtraError: The backend needs a package that is not installed.
    """
    kind, _, rest = name.partition(":")
    checked: dict[str, Any] = checked_options(options or {})
    seed = as_integer(seed, "seed", minimum=0)
    if kind in OPTIONS:
        unknown = sorted(checked.keys() - OPTIONS[kind])
        if unknown:
            raise ConfigError(f"{kind} has no option {unknown[0]!r}; known are {', '.join(sorted(OPTIONS[kind]))}")
        if kind == "simulator":
            return Simulator(folder / JOBS, _noise(rest), seed=seed, name=name, device=_device(rest), **checked)
        return _qiskit_backend(kind, rest, folder, checked, seed)
    if rest.isidentifier() and all(part.isidentifier() for part in kind.split(".")):
        if not allow_import:
            raise ConfigError(
                f"{name} is code of your own; a run's folder does not call it: name it again with --backend"
            )
        return _custom_backend(name, kind, rest, folder, checked, seed)
    raise ConfigError(f"unknown backend {name!r}; known are {KNOWN}")


def fetch_prices(backend: Backend, retry: RetryPolicy | None = None) -> DeviceCost:
    """Return the prices that a provider's API gives; nothing is submitted.

    Args:
        backend: Backend of the provider.
        retry: Retry policy for the requests; None uses the default one.

    Raises:
        ConfigError: The backend's provider has no API for prices.
        BackendError: The provider does not answer.
    """
    device_cost: Callable[[], DeviceCost] | None = getattr(backend, "device_cost", None)
    if device_cost is None:
        raise ConfigError(f"{backend.describe().name} has no prices to fetch; give a device or a TOML file instead")
    return (retry or RetryPolicy()).call(device_cost, f"the prices of {backend.describe().name}")


def _custom_backend(
    name: str, module: str, function: str, folder: Path, options: Mapping[str, Scalar], seed: int
) -> Backend:
    """Return the backend that a user's own function makes; its exceptions become errors that name it."""
    try:
        factory = getattr(_import(module), function)
        backend: Backend = factory(folder=folder, seed=seed, **options)
        missing = [method for method in _METHODS if not callable(getattr(backend, method, None))]
        if missing or not isinstance(backend.describe(), Description):
            raise ConfigError(
                f"{name} returned {type(backend).__name__}, which is no backend: "
                f"implement {(*missing, 'describe')[0]}()"
            )
    except KetFitError:
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"the backend {name!r} with the options {dict(options)} cannot be made: {message}; known are {KNOWN}"
        ) from error
    return backend


def _import(module: str) -> ModuleType:
    """Return a module that Python finds, or else one from the current folder.

    The current folder is not put on the path: only the named module can come from it, and it cannot replace an
    installed package.
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


def _qiskit_backend(kind: str, rest: str, folder: Path, options: Mapping[str, Scalar], seed: int) -> Backend:
    # These modules need the extras "hardware" and "ibm", whose packages take seconds to import.
    if kind in ("ionq", "ibm"):
        provider = importlib.import_module(f"ketfit.hardware.backends.{kind}")
        make: Callable[..., Backend] = provider.IonQBackend if kind == "ionq" else provider.IBMBackend
        return make(rest, **options)
    aer, qiskit = (importlib.import_module(f"ketfit.hardware.backends.{module}") for module in ("aer", "qiskit"))
    noise = _noise(rest)
    noise_option = {} if noise is None else {"noise": noise.model_dump_json(exclude_defaults=True)}
    simulator: Backend = qiskit.QiskitBackend(
        folder / JOBS,
        aer.aer_simulator(noise),
        name=":".join(filter(None, ("aer", rest))),
        seed=seed,
        options=noise_option,
        device=_device(rest),
        reset_first=noise is not None and noise.preparation > 0,
        **options,
    )
    return simulator


def _noise(name: str) -> NoiseConfig | None:
    return load_noise(name) if name else None


def _device(name: str) -> str | None:
    return name if name in ("ionq-forte", "ionq-aria") else None
