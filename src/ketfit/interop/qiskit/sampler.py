"""Qiskit's sampler primitive on KetFit's simulator."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ketfit.errors import optional_imports
from ketfit.interop.qiskit.circuits import ConvertedCircuit, convert
from ketfit.simulate.state import statevector

with optional_imports("KetFitSampler", "qiskit"):
    from qiskit.primitives import (
        BaseSamplerV2,
        BitArray,
        DataBin,
        PrimitiveJob,
        PrimitiveResult,
        SamplerPubLike,
        SamplerPubResult,
    )
    from qiskit.primitives.containers.sampler_pub import SamplerPub

Integers = npt.NDArray[np.int64]
Seed = np.random.Generator | int | None

MAX_AMPLITUDES = 2**21
"""Number of amplitudes that are kept at a time, unless one state has more; larger batches are simulated in parts."""


class KetFitSampler(BaseSamplerV2):
    """Qiskit's `BaseSamplerV2` on KetFit's simulator, in the place of `StatevectorSampler`.

    All sets of parameter values of a pub are simulated in one batch, as far as the memory of their states is moderate.
    Qubits are measured at the end, in any order and into any registers; classical bits without a measurement are 0.

    Gates that KetFit does not have are replaced by their definitions, so nothing needs to be transpiled. Mid-circuit
    measurements, control flow, and resets of qubits that gates acted on are refused when `run` is called.

    Args:
        default_shots: Number of shots of pubs where neither they nor `run` have one.
        seed: Seed or generator of the shots. An integer starts the same shots at every `run`; those of pubs and
            parameter values in one run are independent.

    >>> from qiskit import QuantumCircuit
    >>> bell = QuantumCircuit(2)
    >>> _ = bell.h(0), bell.cx(0, 1), bell.measure_all()
    >>> sorted(KetFitSampler(seed=1).run([bell], shots=100).result()[0].data.meas.get_counts())
    ['00', '11']
    """

    def __init__(self, *, default_shots: int = 1024, seed: Seed = None) -> None:
        self._default_shots = default_shots
        self._seed = seed

    @property
    def default_shots(self) -> int:
        """The number of shots where neither `run` nor a pub has one."""
        return self._default_shots

    @property
    def seed(self) -> Seed:
        """The seed or generator of the shots."""
        return self._seed

    def run(
        self, pubs: Iterable[SamplerPubLike], *, shots: int | None = None
    ) -> PrimitiveJob[PrimitiveResult[SamplerPubResult]]:
        """Return a job that samples the measurements of each pub.

        Args:
            pubs: Circuits, or tuples (circuit,), (circuit, parameter values) or (circuit, parameter values, shots).
            shots: Number of shots of pubs that have none of their own; None is `default_shots`.

        Raises:
            QiskitCircuitError: a circuit has a part that cannot be simulated.
            ValueError: a pub is invalid, as in Qiskit.
            TypeError: a pub has parts of wrong types, as in Qiskit.
        """
        if shots is None:
            shots = self._default_shots
        coerced = [SamplerPub.coerce(pub, shots) for pub in pubs]
        if any(not pub.circuit.cregs for pub in coerced):
            warnings.warn(
                "a circuit has no classical register, so its result is empty; add measurements, for instance with "
                "measure_all()",
                UserWarning,
                stacklevel=2,
            )
        prepared = [_Sampling(pub, convert(pub.circuit, "KetFitSampler", measures=True)) for pub in coerced]
        job = PrimitiveJob(_sample, prepared, self._seed)
        job._submit()
        return job


@dataclass(frozen=True)
class _Sampling:
    """A pub with its converted circuit."""

    pub: SamplerPub
    converted: ConvertedCircuit

    def outcomes(self, rng: np.random.Generator) -> Integers:
        """Return the index of the measured basis state in each shot, shape (sets of values, shots)."""
        sets, shots = self.pub.parameter_values.size, self.pub.shots
        if not self.converted.measured:
            return np.zeros((sets, shots), np.int64)
        rows = [_sample_rows(distribution, shots, rng) for distribution in self._distributions()]
        return np.concatenate(rows) if rows else np.zeros((0, shots), np.int64)

    def _distributions(self) -> Iterator[npt.NDArray[np.float64]]:
        """Yield the probabilities of the basis states for some sets of values at a time."""
        circuit, values = self.converted.circuit, self.converted.values(self.pub.parameter_values)
        size = max(1, MAX_AMPLITUDES >> circuit.n_qubits)
        for first in range(0, len(values), size):
            part = values[first : first + size]
            states = statevector(circuit, part.new_zeros(0), self.converted.inputs(part))
            yield states.abs().square().numpy()

    def bit_array(self, bits: list[int], outcomes: Integers) -> BitArray:
        """Return the classical bits with these indices, the first of them the lowest bit of the array."""
        n_qubits, measured = self.converted.circuit.n_qubits, self.converted.measured
        width = -(-len(bits) // 8)
        columns = np.zeros((*outcomes.shape, 8 * width), np.uint8)
        for place, bit in enumerate(bits):
            if bit in measured:
                columns[..., -1 - place] = outcomes >> (n_qubits - 1 - measured[bit]) & 1
        packed = np.packbits(columns, axis=-1)
        return BitArray(packed.reshape(*self.pub.shape, self.pub.shots, width), len(bits))


def _sample_rows(distributions: npt.NDArray[np.float64], shots: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    cumulative = distributions.cumsum(axis=1)
    cumulative /= cumulative[:, -1:]
    return np.stack([np.searchsorted(row, rng.random(shots), side="right") for row in cumulative])


def _sample(prepared: list[_Sampling], seed: Seed) -> PrimitiveResult[SamplerPubResult]:
    rng = np.random.default_rng(seed)
    results = []
    for each in prepared:
        pub, outcomes = each.pub, each.outcomes(rng)
        registers = {
            register.name: each.bit_array([pub.circuit.find_bit(bit).index for bit in register], outcomes)
            for register in pub.circuit.cregs
        }
        metadata = {"shots": pub.shots, "circuit_metadata": pub.circuit.metadata}
        results.append(SamplerPubResult(DataBin(**registers, shape=pub.shape), metadata=metadata))
    return PrimitiveResult(results, metadata={"version": 2})
