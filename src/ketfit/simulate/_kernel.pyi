"""The compiled part (kernel/). Arrays go in as addresses, 0 for none: the caller answers for shapes and types."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_Table = npt.NDArray[np.int32]

def instruction_sets() -> list[str]: ...
def lanes(name: str, itemsize: int) -> int: ...
def cache_bytes() -> int: ...

class Plan:
    size: int
    n_columns: int
    def __init__(
        self,
        isa: str,
        bits: int,
        sample_bits: int,
        n_weights: int,
        n_inputs: int,
        n_rotations: int,
        joint: bool,
        ops: _Table,
        term_offsets: _Table,
        terms: _Table,
        stages: _Table,
        positions: _Table,
        measured: _Table,
        /,
    ) -> None: ...
    def units(self, batch: int, /) -> int: ...
    def forward_f32(
        self,
        batch: int,
        weights: int,
        inputs: int,
        initial: int,
        signs: int,
        result: int,
        saved: int,
        threads: int,
        /,
    ) -> tuple[float, bool]: ...
    def backward_f32(
        self,
        batch: int,
        weights: int,
        inputs: int,
        signs: int,
        product: bool,
        scale: float,
        state: int,
        grads: int,
        grad_weights: int,
        grad_inputs: int,
        grad_initial: int,
        threads: int,
        /,
    ) -> None: ...
    def step_f32(
        self,
        batch: int,
        weights: int,
        inputs: int,
        initial: int,
        grads: int,
        result: int,
        grad_weights: int,
        grad_inputs: int,
        grad_initial: int,
        threads: int,
        /,
    ) -> bool: ...
    forward_f64 = forward_f32
    backward_f64 = backward_f32
    step_f64 = step_f32

class DensityPlan:
    def __init__(
        self,
        isa: str,
        n_qubits: int,
        n_weights: int,
        n_inputs: int,
        ops: _Table,
        observables: Sequence[int],
        after_rotation: Sequence[float],
        after_cnot: Sequence[float],
        depolarizing: float,
        /,
    ) -> None: ...
    def forward_f32(
        self, batch: int, weights: int, inputs: int, start: int, shared: bool, result: int, threads: int, /
    ) -> None: ...
    def pull_f32(self, weights: int, result: int, threads: int, /) -> None: ...
    def backward_f32(
        self,
        batch: int,
        weights: int,
        inputs: int,
        start: int,
        shared: bool,
        grads: int,
        grad_weights: int,
        grad_inputs: int,
        grad_start: int,
        threads: int,
        /,
    ) -> None: ...
    forward_f64 = forward_f32
    pull_f64 = pull_f32
    backward_f64 = backward_f32
