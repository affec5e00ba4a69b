"""Qiskit's estimator primitive on KetFit's simulator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ketfit.circuit.observable import PauliSum
from ketfit.errors import optional_imports
from ketfit.interop.qiskit.circuits import ConvertedCircuit, convert
from ketfit.simulate.expectation import expectation

with optional_imports("KetFitEstimator", "qiskit"):
    from qiskit.primitives import BaseEstimatorV2, DataBin, EstimatorPubLike, PrimitiveJob, PrimitiveResult, PubResult
    from qiskit.primitives.containers.estimator_pub import EstimatorPub

Floats = npt.NDArray[np.float64]
Seed = np.random.Generator | int | None


class KetFitEstimator(BaseEstimatorV2):
    """Qiskit's `BaseEstimatorV2` on KetFit's simulator, in the place of `StatevectorEstimator`.

    All sets of parameter values of a pub are simulated in one batch, exact and in double precision. A precision other
    than 0 adds Gaussian noise of that standard deviation.

    Gates that KetFit does not have are replaced by their definitions, so nothing needs to be transpiled. Measurements,
    control flow, and resets of qubits that gates acted on are refused when `run` is called.

    Args:
        default_precision: Precision of pubs where neither they nor `run` have one; 0 is exact.
        seed: Seed or generator of the noise. An integer starts the same noise at every `run`; the noise of pubs in
            one run is independent.

    >>> from qiskit import QuantumCircuit
    >>> bell = QuantumCircuit(2)
    >>> _ = bell.h(0), bell.cx(0, 1)
    >>> KetFitEstimator().run([(bell, ["ZZ", "XX", "ZI"])]).result()[0].data.evs.round(4) + 0.0
    array([1., 1., 0.])
    """

    def __init__(self, *, default_precision: float = 0.0, seed: Seed = None) -> None:
        self._default_precision = default_precision
        self._seed = seed

    @property
    def default_precision(self) -> float:
        """The precision where neither `run` nor a pub has one."""
        return self._default_precision

    @property
    def seed(self) -> Seed:
        """The seed or generator of the noise."""
        return self._seed

    def run(
        self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None
    ) -> PrimitiveJob[PrimitiveResult[PubResult]]:
        """Return a job that estimates the observables of each pub.

        Args:
            pubs: Tuples (circuit, observables), (circuit, observables, parameter values) or (circuit, observables,
                parameter values, precision), whose arrays are broadcast against each other.
            precision: Standard deviation of the noise of pubs that have none of their own; None is
                `default_precision`.

        Raises:
            QiskitCircuitError: a circuit has a part that cannot be simulated.
            ValueError: a pub is invalid, as in Qiskit.
            TypeError: a pub has parts of wrong types, as in Qiskit.
        """
        if precision is None:
            precision = self._default_precision
        prepared = [_Estimation.from_pub(EstimatorPub.coerce(pub, precision)) for pub in pubs]
        job = PrimitiveJob(_estimate, prepared, self._seed)
        job._submit()
        return job


@dataclass(frozen=True)
class _Estimation:
    """A pub with its converted circuit and the distinct ones of its observables."""

    pub: EstimatorPub
    converted: ConvertedCircuit
    observables: tuple[PauliSum, ...]
    columns: npt.NDArray[np.intp]  # the number of each of the pub's observables

    @classmethod
    def from_pub(cls, pub: EstimatorPub) -> _Estimation:
        """Return the converted circuit of a pub, and its observables without those that occur again."""
        converted = convert(pub.circuit, "KetFitEstimator", measures=False)
        array = np.asarray(pub.observables)
        numbers: dict[PauliSum, int] = {}
        columns = np.empty(array.shape, np.intp)
        for place, observable in np.ndenumerate(array):
            columns[place] = numbers.setdefault(converted.observable(observable), len(numbers))
        return cls(pub, converted, tuple(numbers), columns)

    def expectations(self) -> Floats:
        """Return the exact expectations, in the shape of the pub."""
        bindings = self.pub.parameter_values
        rows = np.arange(bindings.size).reshape(bindings.shape)
        if not self.pub.size:
            return np.zeros(self.pub.shape)
        inputs = self.converted.inputs(self.converted.values(bindings))
        weights = inputs.new_zeros(0)
        table = expectation(self.converted.circuit, weights, inputs, observables=self.observables).numpy()
        return np.asarray(table[rows, self.columns])  # which broadcasts both


def _estimate(prepared: list[_Estimation], seed: Seed) -> PrimitiveResult[PubResult]:
    rng = np.random.default_rng(seed)
    results = []
    for each in prepared:
        pub, values = each.pub, each.expectations()
        if pub.precision:
            values = np.asarray(rng.normal(values, pub.precision))
        data: Any = DataBin(evs=values, stds=np.zeros(values.shape), shape=values.shape)
        metadata = {"target_precision": pub.precision, "circuit_metadata": pub.circuit.metadata}
        results.append(PubResult(data, metadata=metadata))
    return PrimitiveResult(results, metadata={"version": 2})
