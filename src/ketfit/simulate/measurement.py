"""Measurements of qubits and of observables: exact, under noise, and from shots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from ketfit.circuit.circuit import Circuit, cached_on_circuit, observable_light_cone
from ketfit.circuit.gate import Gate
from ketfit.circuit.observable import PauliSum, PauliTerm, Projector
from ketfit.errors import InputError
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.density_matrix import Word, density_matrix_words
from ketfit.simulate.native import MAX_JOINT, check_joint
from ketfit.simulate.noise import Confusion, NoiseConfig, noisy_light_cone
from ketfit.simulate.readout import BASIS_CHANGES
from ketfit.simulate.readout_error import (
    MeasuredObservable,
    ShiftedPauliSum,
    apply_readout_error,
    observable_after_readout_error,
)
from ketfit.simulate.shots import Gradient, estimate_from_shots, sample
from ketfit.simulate.statevector import Engine, observable_expectation, statevector_expectation
from ketfit.simulate.trajectories import trajectory_expectation, trajectory_products, trajectory_words


@dataclass(frozen=True)
class MeasurementContext:
    """The measured qubits of a circuit, and the noise and the engine that they are simulated with.

    Attributes:
        measured: Qubits to measure.
        noise: Noise, or None.
        trajectories: Number of trajectories of each sample; None is the density matrix.
        generator: Random generator; None is torch's default one.
        engine: Engine, as in `ketfit.expectation`.
        basis: The Pauli matrix X, Y or Z that is measured on each qubit; empty is Z on all. The change of basis is part
            of the measurement and has no noise of its own.
    """

    measured: tuple[int, ...]
    noise: NoiseConfig | None = None
    trajectories: int | None = None
    generator: torch.Generator | None = None
    engine: Engine = "auto"
    basis: str = ""

    @property
    def has_gate_noise(self) -> bool:
        """Return True if gates or preparation are noisy."""
        return self.noise is not None and not self.noise.is_gate_noiseless

    def light_cone(self, circuit: Circuit) -> Circuit:
        """Return the circuit without the gates that cannot affect <Z> of the measured qubits."""
        return noisy_light_cone(circuit, self.measured) if self.has_gate_noise else circuit.light_cone(self.measured)

    def expectations(self, batch: CircuitBatch) -> Tensor:
        """Return <Z> of each measured qubit, after readout error, shape (size, measured)."""
        result = self._run(batch, joint=False)
        return result if self.noise is None else apply_readout_error(result, self.noise.readout)

    def distribution(self, batch: CircuitBatch) -> Tensor:
        """Return the joint distribution of outcomes, shape (size, 2**measured), the first qubit the highest bit."""
        if len(self.measured) == 1:
            values = self.expectations(batch)
            return torch.cat([1 + values, 1 - values], dim=1) / 2
        result = self._run(batch, joint=True)
        return result if self.noise is None else apply_readout_error_to_distribution(result, self.noise.readout)

    def sample(self, batch: CircuitBatch, shots: int) -> Tensor:
        """Return estimates of <Z> from `shots` shots, shape (size, measured), without a gradient."""
        return sample(self.distribution(batch), shots, self.generator)

    def estimate(self, batch: CircuitBatch, shots: int, gradient: Gradient | None) -> Tensor:
        """Return estimates of <Z> from `shots` shots, shape (size, measured), with the gradient of a policy."""
        return estimate_from_shots(self.distribution(batch), shots, self.generator, gradient)

    def _run(self, batch: CircuitBatch, joint: bool) -> Tensor:
        basis = self.basis or "Z" * len(self.measured)
        if not self.has_gate_noise:
            circuit = in_basis(batch.circuit, self.measured, basis) if set(basis) != {"Z"} else batch.circuit
            return statevector_expectation(batch.with_circuit(circuit), self.measured, joint=joint, engine=self.engine)
        assert self.noise is not None
        if self.trajectories is None:
            return self._density_matrix_result(batch, self.noise, basis, joint)
        return trajectory_expectation(
            batch,
            self.measured,
            self.noise,
            self.trajectories,
            joint=joint,
            generator=self.generator,
            engine=self.engine,
            basis=basis,
        ).mean

    def _density_matrix_result(self, batch: CircuitBatch, noise: NoiseConfig, basis: str, joint: bool) -> Tensor:
        letters = list(zip(basis, self.measured, strict=True))
        if not joint:
            return density_matrix_words(batch, [(letter, (qubit,)) for letter, qubit in letters], noise, self.engine)
        check_joint(self.measured, joint)
        words = []
        for subset in product((False, True), repeat=len(letters)):
            chosen = [pair for pair, is_chosen in zip(letters, subset, strict=True) if is_chosen]
            words.append(("".join(letter for letter, _ in chosen), tuple(qubit for _, qubit in chosen)))
        values = density_matrix_words(batch, words, noise, self.engine)
        # p(b) = 2**-m sum over subsets S of (-1)**(number of bits of b that are 1 in S) <P_S>
        return _apply_to_each_bit(values.new_tensor([[1, 1], [1, -1]]) / 2, values)


@cached_on_circuit
def in_basis(circuit: Circuit, qubits: tuple[int, ...], basis: str) -> Circuit:
    """Return the circuit with gates behind it that turn a Pauli matrix on each of some qubits into Z."""
    change = [
        Gate(name, (qubit,)) for qubit, letter in zip(qubits, basis, strict=True) for name in BASIS_CHANGES[letter]
    ]
    return circuit.with_gates([*circuit.gates, *change])


@dataclass
class WordGroup:
    """Pauli words whose values follow from a joint measurement of one Pauli matrix on each of some qubits.

    Attributes:
        letters: Pauli matrix X, Y or Z of each measured qubit.
        terms: Pairs of the number of an observable and a term of it.
    """

    letters: dict[int, str]
    terms: list[tuple[int, PauliTerm]] = field(default_factory=list)

    def values(self, n_observables: int) -> Tensor:
        """Return what each outcome adds to each observable, shape (2**len(letters), n_observables)."""
        places = {qubit: len(self.letters) - 1 - place for place, qubit in enumerate(self.letters)}
        coefficients = torch.zeros(n_observables, 2 ** len(self.letters), dtype=torch.float64)
        for row, term in self.terms:
            coefficients[row, sum(1 << places[qubit] for qubit in term.qubits)] += term.coefficient
        return _apply_to_each_bit(coefficients.new_tensor([[1, 1], [1, -1]]), coefficients).t()


def group_words(sums: Sequence[PauliSum]) -> list[WordGroup]:
    """Return the words of all sums, without identities, in groups of words with equal letters on shared qubits.

    Words of more qubits come first, and each joins the first group that it fits in. A group has at most 12 qubits.

    Raises:
        InputError: A word acts on more than 12 qubits.

    >>> [group.letters for group in group_words([PauliSum([(1, "ZZ", (0, 1)), (1, "X", (0,)), (1, "X", (2,))])])]
    [{0: 'Z', 1: 'Z', 2: 'X'}, {0: 'X'}]
    """
    groups: list[WordGroup] = []
    entries = [(number, term) for number, each in enumerate(sums) for term in each.terms if term.word]
    for number, term in sorted(entries, key=lambda entry: -len(entry[1].word)):
        letters = dict(zip(term.qubits, term.word, strict=True))
        if len(letters) > MAX_JOINT:
            raise InputError(
                f"shots of a Pauli word on {len(letters)} qubits need their joint distribution; use words on at most "
                f"{MAX_JOINT}, or leave shots out"
            )
        for group in groups:
            agrees = all(group.letters.get(qubit, letter) == letter for qubit, letter in letters.items())
            if agrees and len(group.letters | letters) <= MAX_JOINT:
                group.letters.update(letters)
                group.terms.append((number, term))
                break
        else:
            groups.append(WordGroup(letters, [(number, term)]))
    return groups


def group_circuits(circuit: Circuit, groups: Sequence[WordGroup]) -> list[tuple[Circuit, tuple[int, ...]]]:
    """Return the circuit of each group, with changes of basis and without gates that cannot reach it, and its qubits.

    >>> from ketfit.circuit.observable import read_pauli_word
    >>> groups = group_words([read_pauli_word("X0"), read_pauli_word("Z0")])
    >>> [(circuit.gate_counts(), qubits) for circuit, qubits in group_circuits(Circuit.from_gates(1, []), groups)]
    [({'ry': 0, 'cx': 0, 'h': 1}, (0,)), ({'ry': 0, 'cx': 0}, (0,))]
    """
    pairs = [(tuple(group.letters), "".join(group.letters.values())) for group in groups]
    return [(in_basis(circuit, qubits, basis).light_cone(qubits), qubits) for qubits, basis in pairs]


@dataclass(frozen=True)
class ObservableContext:
    """Observables of a circuit, and the noise and the engine that they are simulated with.

    With noise, and for shots, the observables are sums of Pauli words. Shots measure the words in groups that agree in
    the Pauli matrix on every qubit, each with shots of its own.

    Attributes:
        observables: What the expectations are taken of.
        measurement: Noise, trajectories, generator and engine; its qubits are not used.

    Raises:
        InputError: A projector acts on more than 12 qubits.
    """

    observables: tuple[MeasuredObservable, ...]
    measurement: MeasurementContext

    def __post_init__(self) -> None:
        for index, each in enumerate(self.observables):
            if isinstance(each, Projector) and len(each.qubits) > MAX_JOINT:
                raise InputError(
                    f"observable {index} is a projector on {len(each.qubits)} qubits; with noise or shots it acts on "
                    f"at most {MAX_JOINT}: leave both out"
                )

    @cached_property
    def _sums(self) -> tuple[PauliSum, ...]:
        return tuple(each.pauli_sum() for each in self.observables)

    def light_cone(self, circuit: Circuit) -> Circuit:
        """Return the circuit without the gates that cannot affect the observables."""
        support = frozenset(qubit for each in self._sums for qubit in each.qubits)
        if self.measurement.has_gate_noise:
            return noisy_light_cone(circuit, support)
        return observable_light_cone(
            circuit, support, frozenset(qubit for each in self._sums for qubit in each.not_diagonal)
        )

    def expectations(self, batch: CircuitBatch) -> Tensor:
        """Return the expectation of each observable, after readout error, shape (size, observables)."""
        noise, measurement = self.measurement.noise, self.measurement
        observables: tuple[MeasuredObservable, ...] = self.observables
        if noise is not None and noise.readout is not None:
            observables = tuple(observable_after_readout_error(each, noise.readout) for each in observables)
        if noise is None or noise.is_gate_noiseless:
            return observable_expectation(batch, observables, measurement.engine)
        if measurement.trajectories is not None and any(isinstance(each, ShiftedPauliSum) for each in observables):
            products = [ShiftedPauliSum.from_observable(each) for each in observables]
            return trajectory_products(
                batch,
                products,
                noise,
                measurement.trajectories,
                generator=measurement.generator,
                engine=measurement.engine,
            ).mean
        return self._means_of_words(batch, noise, [each.pauli_sum() for each in observables])

    def _means_of_words(self, batch: CircuitBatch, noise: NoiseConfig, sums: Sequence[PauliSum]) -> Tensor:
        """Return the expectations from the means of all words under noise of gates."""
        measurement = self.measurement
        words = tuple({(term.word, term.qubits): None for each in sums for term in each.terms})
        coefficients = batch.weights.new_tensor([_coefficients(each, words) for each in sums])
        if measurement.trajectories is None:
            means = density_matrix_words(batch, words, noise, measurement.engine)
        else:
            means = trajectory_words(
                batch,
                words,
                noise,
                measurement.trajectories,
                generator=measurement.generator,
                engine=measurement.engine,
            ).mean
        return means @ coefficients.t()

    def sample(self, batch: CircuitBatch, shots: int) -> Tensor:
        """Return estimates from `shots` shots of each group of words, shape (size, observables), without a gradient."""
        return self.estimate(batch, shots, None)

    def estimate(self, batch: CircuitBatch, shots: int, gradient: Gradient | None) -> Tensor:
        """Return estimates from `shots` shots of each group, shape (size, observables), with a policy's gradient."""
        constants = [sum(term.coefficient for term in each.terms if not term.word) for each in self._sums]
        total = batch.weights.new_tensor(constants).expand(batch.size, -1)
        for group in group_words(self._sums):
            context = replace(self.measurement, measured=tuple(group.letters), basis="".join(group.letters.values()))
            values = group.values(len(self._sums)).to(total)
            total = total + estimate_from_shots(
                context.distribution(batch), shots, self.measurement.generator, gradient, values
            )
        return total


def _coefficients(observable: PauliSum, words: Iterable[Word]) -> list[float]:
    own = {(term.word, term.qubits): term.coefficient for term in observable.terms}
    return [own.get(word, 0.0) for word in words]


def apply_readout_error_to_distribution(distribution: Tensor, readout: Confusion | None) -> Tensor:
    """Return a joint distribution after a readout error on each qubit."""
    if readout is None:
        return distribution
    return _apply_to_each_bit(distribution.new_tensor(readout), distribution)


def _apply_to_each_bit(matrix: Tensor, distribution: Tensor) -> Tensor:
    """Apply a 2 x 2 matrix to each bit of an array of shape (batch, 2**bits)."""
    batch, outcomes = distribution.shape
    result = distribution
    for bit in range(outcomes.bit_length() - 1):
        result = matrix @ result.reshape(batch, 2**bit, 2, outcomes >> (bit + 1))
    return result.reshape(distribution.shape)
