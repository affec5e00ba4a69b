"""The PennyLane device ``ketfit.qubit``: statevectors in KetFit's kernel, with gradients by the adjoint method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pennylane.devices import Device, ExecutionConfig
from pennylane.devices.modifiers import simulator_tracking, single_tape_support
from pennylane.devices.qubit.simulate import measure_final_state
from pennylane.exceptions import DeviceError
from pennylane.gradients import param_shift
from pennylane.math import Interface
from pennylane.ops import SparseHamiltonian
from pennylane.tape import QuantumScript
from pennylane.transforms.core import CompilePipeline

from ketfit.interop.pennylane.jacobian import jacobian, vector_jacobian_product
from ketfit.interop.pennylane.measurements import exact_results, final_state
from ketfit.interop.pennylane.preprocessing import NAME, device_transforms
from ketfit.interop.pennylane.tape_circuit import TapeReader

_DTYPES = {np.dtype(np.complex128): torch.float64, np.dtype(np.complex64): torch.float32}
_GRADIENT_METHODS = ("adjoint", "backprop", "best", "device")


@simulator_tracking
@single_tape_support
class KetFitQubit(Device):  # type: ignore[misc]
    """A simulator of pure states that computes gradients by the adjoint method and broadcasts over parameters.

    The methods of differentiation "best", "adjoint" and "backprop" all mean the adjoint method. Gradients in torch are
    part of torch's graph and can be differentiated again; with autograd and JAX the device computes vector-Jacobian
    products. Gradients of broadcast parameters, of prepared amplitudes and of any measurement without shots are
    supported. PennyLane differentiates by the parameter shift with shots, and for ``max_diff=2`` with autograd or JAX.

    Args:
        wires: Number of wires, or their labels; None takes those of the circuit.
        shots: Number of shots of each circuit, as in PennyLane; None computes exact values.
        seed: Seed or generator of the shots, as numpy.random.default_rng takes it; "global" draws a seed from NumPy's
            global generator, as PennyLane's devices do.
        c_dtype: numpy.complex128, or numpy.complex64 for single precision, which takes half the time.

    Raises:
        DeviceError: `c_dtype` is another type, or `seed` another word.

    >>> import pennylane as qml
    >>> device = KetFitQubit(wires=2)
    >>> @qml.qnode(device)
    ... def circuit(angle):
    ...     qml.RX(angle, wires=0)
    ...     qml.CNOT(wires=[0, 1])
    ...     return qml.expval(qml.PauliZ(1))
    >>> float(circuit(0.0))
    1.0
    """

    def __init__(self, wires: Any = None, shots: Any = None, *, seed: Any = "global", c_dtype: Any = np.complex128):
        super().__init__(wires=wires, shots=shots)
        try:
            dtype = _DTYPES[np.dtype(c_dtype)]
        except (KeyError, TypeError):
            raise DeviceError(f"c_dtype={c_dtype!r}: use numpy.complex128 or numpy.complex64") from None
        if isinstance(seed, str):
            if seed != "global":
                raise DeviceError(f"seed={seed!r}: pass a number, None or a generator, or 'global'")
            seed = np.random.randint(2**31 - 1)  # noqa: NPY002
        self._rng = np.random.default_rng(seed)
        self._reader = TapeReader(dtype)

    @property
    def name(self) -> str:
        """The name of the device."""
        return NAME

    def supports_derivatives(
        self, execution_config: ExecutionConfig | None = None, circuit: QuantumScript | None = None
    ) -> bool:
        """Return True if the device computes the gradients of a configuration and a circuit."""
        if execution_config is None:
            return True
        if execution_config.gradient_method not in _GRADIENT_METHODS:
            return False
        if execution_config.gradient_method in ("adjoint", "device") and _needs_shifts(execution_config):
            return False  # PennyLane would return zeros for second derivatives
        if circuit is None:
            return True
        return not circuit.shots and not any(isinstance(each.obs, SparseHamiltonian) for each in circuit.measurements)

    def setup_execution_config(
        self, config: ExecutionConfig | None = None, circuit: QuantumScript | None = None
    ) -> ExecutionConfig:
        """Return the configuration with the device's choices: how gradients and mid-circuit measurements are done.

        Raises:
            DeviceError: A device option is unknown, or the method of mid-circuit measurement is not supported.
        """
        config = config or ExecutionConfig()
        for option in config.device_options:
            raise DeviceError(f"device option {option} not present on {self}")
        method = config.mcm_config.mcm_method
        if method not in (None, "deferred", "device"):
            raise DeviceError(f"mcm_method {method} not supported on {NAME}; use 'deferred'")
        config = replace(config, mcm_config=replace(config.mcm_config, mcm_method="deferred"))
        if config.gradient_method not in _GRADIENT_METHODS:
            return config
        if _needs_shifts(config):
            return replace(
                config, gradient_method=param_shift, use_device_gradient=False, use_device_jacobian_product=False
            )
        # PennyLane calls a device that computes with the interface's tensors "backprop", whatever method it uses.
        in_torch = config.interface == Interface.TORCH
        return replace(
            config,
            gradient_method="backprop" if in_torch else "adjoint",
            use_device_gradient=True,
            use_device_jacobian_product=not in_torch,
            grad_on_execution=False,
            # With NumPy's numbers, PennyLane would ask for Jacobians inside jax.jit, and only by scalars.
            convert_to_numpy=config.interface != Interface.JAX_JIT,
        )

    def preprocess_transforms(self, execution_config: ExecutionConfig | None = None) -> CompilePipeline:
        """Return the transforms from a user's tape to tapes that the device runs."""
        return device_transforms(self.wires, execution_config or ExecutionConfig())

    def execute(self, circuits: Sequence[QuantumScript], execution_config: ExecutionConfig | None = None) -> Any:
        """Return the results of each circuit: exact, or from shots if it has them."""
        in_torch = execution_config is not None and execution_config.gradient_method == "backprop"
        return tuple(self._sample(each) if each.shots else self._compute(each, in_torch=in_torch) for each in circuits)

    def compute_derivatives(
        self, circuits: Sequence[QuantumScript], execution_config: ExecutionConfig | None = None
    ) -> Any:
        """Return the Jacobian of each circuit with respect to its trainable parameters."""
        return tuple(jacobian(each, self._reader) for each in circuits)

    def compute_vjp(
        self, circuits: Sequence[QuantumScript], cotangents: Any, execution_config: ExecutionConfig | None = None
    ) -> Any:
        """Return the product of `cotangents`, shaped like the results, and the Jacobian of each circuit."""
        pairs = zip(circuits, cotangents, strict=True)
        return tuple(vector_jacobian_product(each, cotangent, self._reader) for each, cotangent in pairs)

    def _compute(self, circuit: QuantumScript, in_torch: bool) -> Any:
        with torch.set_grad_enabled(in_torch and torch.is_grad_enabled()):
            results: list[Any] = exact_results(self._reader.read(circuit), circuit.measurements)
        if not in_torch:
            results = [result.detach().numpy()[()] for result in results]
        return results[0] if len(results) == 1 else tuple(results)

    def _sample(self, circuit: QuantumScript) -> Any:
        with torch.no_grad():
            batch = self._reader.read(circuit)
            state = final_state(batch).to(torch.complex128)
            # Single precision is too coarse for PennyLane's test that probabilities add up to 1.
            norms = torch.linalg.vector_norm(state.flatten(int(batch.is_batched)), dim=-1)
            state = state / norms.reshape(*norms.shape, *[1] * batch.circuit.n_qubits)
        mapped = circuit.copy(measurements=[each.map_wires(batch.wires) for each in circuit.measurements])
        return measure_final_state(mapped, state.numpy(), batch.is_batched, rng=self._rng)


def _needs_shifts(config: ExecutionConfig) -> bool:
    """Return True for derivatives of higher order, which the device has in torch alone."""
    return bool(config.derivative_order > 1 and config.interface != Interface.TORCH)
