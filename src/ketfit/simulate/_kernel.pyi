"""The compiled kernel (kernel/). Arrays are passed as addresses, 0 for none: the caller checks shapes and types."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_IntArray = npt.NDArray[np.int32]

def instruction_sets() -> list[str]: ...
def lanes(name: str, itemsize: int) -> int: ...
def cache_bytes() -> int: ...

class CircuitBatch:
    def __init__(
        self, itemsize: int, size: int, weights: int, inputs: int = 0, initial: int = 0, signs: int = 0
    ) -> None: ...

class Gradients:
    def __init__(self, weights: int = 0, inputs: int = 0, initial: int = 0) -> None: ...

class Plan:
    unit_size: int
    n_columns: int
    def __init__(
        self,
        *,
        instruction_set: str,
        bits: int,
        sample_bits: int,
        n_weights: int,
        n_inputs: int,
        n_rotations: int,
        joint: bool,
        operations: _IntArray,
        term_offsets: _IntArray,
        terms: _IntArray,
        stages: _IntArray,
        positions: _IntArray,
        measured: _IntArray,
    ) -> None: ...
    def n_units(self, batch: int, /) -> int: ...
    def forward(self, batch: CircuitBatch, result: int, saved: int, n_threads: int, /) -> tuple[float, bool]: ...
    def backward(
        self,
        batch: CircuitBatch,
        states: int,
        scale: float,
        result_grads: int,
        gradients: Gradients,
        n_threads: int,
        /,
    ) -> None: ...
    def forward_and_backward(
        self, batch: CircuitBatch, result: int, result_grads: int, gradients: Gradients, n_threads: int, /
    ) -> bool: ...

class ComplexPlan:
    unit_numbers: int
    n_words: int
    def __init__(
        self,
        *,
        instruction_set: str,
        itemsize: int,
        is_real: bool,
        bits: int,
        sample_bits: int,
        n_weights: int,
        n_inputs: int,
        n_signs: int,
        groups: npt.NDArray[np.int64],
        rotations: _IntArray,
        offsets: npt.NDArray[np.float64],
        term_offsets: _IntArray,
        term_angles: _IntArray,
        term_factors: npt.NDArray[np.float64],
        stages: _IntArray,
        basis: npt.NDArray[np.int64],
        words: npt.NDArray[np.int64],
        frame_offset: int,
        frame_phase: complex,
        frame: npt.NDArray[np.int64],
    ) -> None: ...
    def n_units(self, batch: int, /) -> int: ...
    def forward(self, batch: CircuitBatch, result: int, saved: int, n_threads: int, /) -> bool: ...
    def backward(
        self,
        batch: CircuitBatch,
        states: int,
        word_grads: int,
        gradients: Gradients,
        n_threads: int,
        /,
    ) -> None: ...
    def forward_and_backward(
        self, batch: CircuitBatch, result: int, word_grads: int, gradients: Gradients, n_threads: int, /
    ) -> bool: ...
    def prepare(self, batch: CircuitBatch, states: int, factors: int, n_threads: int, /) -> None: ...
    def advance(self, batch: CircuitBatch, states: int, result: int, n_threads: int, /) -> None: ...
    def retreat(
        self,
        batch: CircuitBatch,
        states: int,
        adjoints: int,
        word_grads: int,
        gradients: Gradients,
        n_threads: int,
        /,
    ) -> None: ...
    def simulate(self, batch: CircuitBatch, amplitudes: int, n_threads: int, /) -> bool: ...
    def backward_from_states(
        self,
        batch: CircuitBatch,
        amplitudes: int,
        amplitude_grads: int,
        gradients: Gradients,
        n_threads: int,
        /,
    ) -> None: ...

class UnitBlock:
    size: int
    def __init__(
        self, *, instruction_set: str, itemsize: int, is_real: bool, bits: int, masks: Sequence[int], parities: int
    ) -> None: ...
    def gather(self, unit: int, begin: int, end: int, buffer: int, n_threads: int, /) -> None: ...
    def scatter(self, buffer: int, begin: int, end: int, unit: int, n_threads: int, /) -> None: ...

class DensityMatrixPlan:
    n_observables: int
    n_coefficients: int
    def __init__(
        self,
        *,
        instruction_set: str,
        n_qubits: int,
        n_weights: int,
        n_inputs: int,
        operations: _IntArray,
        observables: Sequence[int],
        after_rotation: Sequence[float],
        after_cnot: Sequence[float],
        depolarizing: float,
    ) -> None: ...
    def forward(self, batch: CircuitBatch, shared_initial: bool, result: int, n_threads: int, /) -> None: ...
    def evolve_observables(self, batch: CircuitBatch, result: int, n_threads: int, /) -> None: ...
    def backward(
        self,
        batch: CircuitBatch,
        shared_initial: bool,
        result_grads: int,
        gradients: Gradients,
        n_threads: int,
        /,
    ) -> None: ...
