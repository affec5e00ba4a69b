"""Gradients of expectations for Qiskit Machine Learning, by the adjoint method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ketfit.circuit.observable import PauliSum
from ketfit.errors import ConfigError, optional_imports
from ketfit.interop.qiskit.circuits import ConvertedCircuit, convert
from ketfit.interop.qiskit.estimator import KetFitEstimator
from ketfit.simulate.expectation import expectation_and_gradients

with optional_imports("KetFitEstimatorGradient", "qiskit"):
    from qiskit.circuit import Parameter, QuantumCircuit
    from qiskit.primitives.containers.observables_array import ObservablesArray
    from qiskit.providers import Options
    from qiskit.quantum_info.operators.base_operator import BaseOperator
    from qiskit_machine_learning.algorithm_job import AlgorithmJob
    from qiskit_machine_learning.gradients import BaseEstimatorGradient, EstimatorGradientResult

Floats = npt.NDArray[np.float64]
Values = Sequence[Sequence[float]] | npt.NDArray[Any]


class KetFitEstimatorGradient(BaseEstimatorGradient):
    """Exact gradients of expectations by the adjoint method, on KetFit's simulator.

    Pass it to Qiskit Machine Learning as ``EstimatorQNN(gradient=KetFitEstimatorGradient())``. All sets of parameter
    values of a circuit are differentiated in one batch, and each takes about the time of two simulations, however many
    parameters the circuit has. Angles may be any expressions of the parameters.

    >>> from qiskit.circuit import Parameter, QuantumCircuit
    >>> from qiskit.quantum_info import SparsePauliOp
    >>> circuit = QuantumCircuit(1)
    >>> _ = circuit.rx(2 * Parameter("a"), 0)
    >>> job = KetFitEstimatorGradient().run([circuit], [SparsePauliOp("Z")], [[torch.pi / 4]])
    >>> job.result().gradients[0].round(4)
    array([-2.])
    """

    def __init__(self) -> None:
        super().__init__(KetFitEstimator())

    def run(
        self,
        circuits: QuantumCircuit | Sequence[QuantumCircuit],
        observables: BaseOperator | Sequence[BaseOperator],
        parameter_values: Values,
        parameters: Sequence[Sequence[Parameter] | None] | None = None,
        **options: Any,
    ) -> AlgorithmJob:
        """Return a job that differentiates an observable of each circuit.

        Args:
            circuits: One or several circuits.
            observables: One for each circuit.
            parameter_values: Values of the parameters of each circuit, in radians.
            parameters: Parameters of each circuit to differentiate; None is all.
            options: None are known.

        Raises:
            QiskitCircuitError: a circuit has a part that cannot be simulated.
            ConfigError: an option is given.
            ValueError: the arguments do not fit each other, as in Qiskit Machine Learning.
        """
        if options:
            raise ConfigError(f"KetFitEstimatorGradient is exact and has no option {min(options)!r}; leave it out")
        for circuit, _ in _group_by_identity((circuits,) if isinstance(circuits, QuantumCircuit) else circuits):
            _converted(circuit)
        return super().run(circuits, observables, parameter_values, parameters)

    def _run(
        self,
        circuits: Sequence[QuantumCircuit],
        observables: Sequence[BaseOperator],
        parameter_values: Values,
        parameters: Sequence[Sequence[Parameter]],
        **options: Any,
    ) -> EstimatorGradientResult:
        gradients: list[Any] = [None] * len(circuits)
        for circuit, members in _group_by_identity(circuits):
            converted = _converted(circuit)
            values = np.array([parameter_values[member] for member in members], dtype=np.float64)
            rows = _gradients(converted, [observables[member] for member in members], values)
            columns = {name: column for column, name in enumerate(converted.parameters)}
            for row, member in zip(rows, members, strict=True):
                gradients[member] = row[[columns[parameter.name] for parameter in parameters[member]]]
        metadata = [{"parameters": each} for each in parameters]
        return EstimatorGradientResult(gradients=gradients, metadata=metadata, options=Options())


def _converted(circuit: QuantumCircuit) -> ConvertedCircuit:
    return convert(circuit, "KetFitEstimatorGradient", measures=False)


def _group_by_identity(objects: Sequence[Any]) -> list[tuple[Any, list[int]]]:
    """Return the distinct objects, each with its positions."""
    groups: dict[int, tuple[Any, list[int]]] = {}
    for position, each in enumerate(objects):
        groups.setdefault(id(each), (each, []))[1].append(position)
    return list(groups.values())


def _gradients(converted: ConvertedCircuit, observables: Sequence[BaseOperator], values: Floats) -> Floats:
    """Return the gradient of one observable for each set of values, shape (sets, parameters)."""
    sums: dict[PauliSum, int] = {}
    chosen = np.empty(len(observables), np.intp)
    for observable, members in _group_by_identity(observables):
        array = np.asarray(ObservablesArray.coerce(observable))
        chosen[members] = sums.setdefault(converted.observable(array.item()), len(sums))
    cotangent = torch.zeros(len(values), len(sums), dtype=torch.float64)
    cotangent[torch.arange(len(values)), torch.from_numpy(chosen)] = 1.0
    with torch.enable_grad():
        parameters = torch.from_numpy(values).requires_grad_()
        inputs = converted.inputs(parameters)
        result = expectation_and_gradients(
            converted.circuit,
            parameters.new_zeros(0),
            inputs,
            observables=tuple(sums),
            cotangent=cotangent,
            wrt=("inputs",),
        )
        assert result.inputs is not None
        if not converted.expressions:
            return np.asarray(result.inputs.numpy())
        (gradient,) = torch.autograd.grad(inputs, parameters, result.inputs)  # the chain rule through the expressions
    return np.asarray(gradient.numpy())
