"""Jacobians of tapes, and their products with vectors, from torch's graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pennylane as qml
import torch
from pennylane.tape import QuantumScript
from torch import Tensor

from ketfit.interop.pennylane.measurements import exact_results
from ketfit.interop.pennylane.tape_circuit import TapeReader

Array = npt.NDArray[Any]


def vector_jacobian_product(tape: QuantumScript, cotangents: Any, reader: TapeReader) -> tuple[Array, ...]:
    """Return the derivative of the sum of results times cotangents by each trainable parameter.

    A complex parameter z = x + iy has d/dx - i d/dy, as in autograd and JAX.

    Args:
        tape: A tape that the device runs.
        cotangents: An array shaped like the result, or a sequence of arrays for several measurements. An additional
            first axis is one of the products; arrays without it are the same for all products.
        reader: Reader of the device's tapes.

    Returns:
        Arrays shaped like the parameters, with the additional axis first.
    """
    parameters, leaves, results = _recorded_results(tape, reader)
    rows = [cotangents] if len(results) == 1 else list(cotangents)
    vectors = [torch.as_tensor(np.asarray(row)) for row in rows]
    pairs = list(zip(vectors, results, strict=True))
    stacks = [len(vector) for vector, result in pairs if vector.ndim > result.ndim]
    if not stacks:
        return _cast(_backward(leaves, results, vectors), parameters)
    columns = [vector.expand(max(stacks), *result.shape) for vector, result in pairs]
    products = [_backward(leaves, results, each) for each in zip(*columns, strict=True)]
    return _cast([torch.stack(each) for each in zip(*products, strict=True)], parameters)


def jacobian(tape: QuantumScript, reader: TapeReader) -> Any:
    """Return the Jacobian of a tape as PennyLane's devices do.

    Returns:
        For each measurement and each trainable parameter an array with the axes of the result and then those of the
        parameter. A single measurement, or a single parameter, is not in a tuple.
    """
    parameters, leaves, results = _recorded_results(tape, reader)
    rows = []
    for result in results:
        units = torch.eye(result.numel(), dtype=result.dtype).reshape(-1, *result.shape)
        products = [_backward(leaves, [result], [unit]) for unit in units]
        stacked = _cast([torch.stack(each) for each in zip(*products, strict=True)], parameters)
        row = tuple(each.reshape((*result.shape, *each.shape[1:])) for each in stacked)
        rows.append(row[0] if len(row) == 1 else row)
    return rows[0] if len(rows) == 1 else tuple(rows)


def _recorded_results(tape: QuantumScript, reader: TapeReader) -> tuple[list[Any], list[Tensor], list[Tensor]]:
    """Return the trainable parameters, tensors in their places, and the results with torch's graph.

    Integer angles become floats. The bits of a basis state stay the constants that they are.
    """
    parameters = tape.get_parameters()
    with torch.enable_grad():
        leaves = [torch.tensor(np.asarray(value, _float_dtype(value))).requires_grad_() for value in parameters]
        is_bits = [isinstance(tape.par_info[number]["op"], qml.BasisState) for number in tape.trainable_params]
        given = [value if bits else leaf for value, leaf, bits in zip(parameters, leaves, is_bits, strict=True)]
        bound = tape.bind_new_parameters(given, tape.trainable_params)
        results = exact_results(reader.read(bound), bound.measurements)
    return parameters, leaves, results


def _backward(leaves: Sequence[Tensor], results: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradient of each leaf, with the signs of imaginary parts as in autograd and JAX."""
    pairs = [
        (result, vector.conj().to(result.dtype) if result.is_complex() else vector.real.to(result.dtype))
        for result, vector in zip(results, vectors, strict=True)
        if result.requires_grad
    ]
    if not pairs or not leaves:
        return [torch.zeros_like(leaf) for leaf in leaves]
    outputs, grad_outputs = zip(*pairs, strict=True)
    gradients = torch.autograd.grad(outputs, leaves, grad_outputs, retain_graph=True, allow_unused=True)
    pairs_of = zip(leaves, gradients, strict=True)
    return [torch.zeros_like(leaf) if gradient is None else gradient.conj() for leaf, gradient in pairs_of]


def _cast(gradients: Sequence[Tensor], parameters: Sequence[Any]) -> tuple[Array, ...]:
    """Return arrays of the dtypes of the parameters, and of float64 for integers."""
    pairs = zip(gradients, parameters, strict=True)
    return tuple(gradient.resolve_conj().numpy().astype(_float_dtype(value)) for gradient, value in pairs)


def _float_dtype(value: Any) -> np.dtype[Any]:
    """Return the dtype of a parameter, or float64 if it is an integer, which has no derivative."""
    dtype = np.asarray(value).dtype
    return dtype if dtype.kind in "fc" else np.dtype(np.float64)
