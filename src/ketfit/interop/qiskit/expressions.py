"""Angles that are no sums of parameters times factors, as differentiable functions of tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce
from operator import add, mul, pow
from typing import Any

import sympy
import torch
from torch import Tensor

from ketfit.errors import CircuitError

Function = Callable[[Mapping[str, Tensor]], Any]
"""Computes an expression from a tensor for each parameter, by name."""

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": lambda *terms: reduce(add, terms),
    "Mul": lambda *factors: reduce(mul, factors),
    "Pow": pow,
    "Abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "conjugate": lambda value: value,  # parameters are real
    "cos": torch.cos,
    "exp": torch.exp,
    "log": torch.log,
    "sign": torch.sign,
    "sin": torch.sin,
    "tan": torch.tan,
}


def differentiable_function(expression: Any) -> Function:
    """Return a `qiskit.circuit.ParameterExpression` with free parameters as a function of tensors.

    Raises:
        CircuitError: the expression has a number that is not real or finite, an unknown function, or a form that Qiskit
            does not convert to SymPy.

    >>> from qiskit.circuit import Parameter
    >>> a, b = Parameter("a"), Parameter("b")
    >>> differentiable_function(a * b + 1)({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])})
    tensor([4., 9.])
    """
    try:
        tree = sympy.sympify(expression.sympify(), strict=True)  # Qiskit 2.0 returns an expression of symengine
    # Qiskit 2.4 has no sympify() of a number to a parameter's power.
    except (AttributeError, TypeError, sympy.SympifyError) as error:
        raise CircuitError(
            f"Qiskit cannot convert the angle {expression} to SymPy; write a power of a number, such as 2**a, as "
            "(math.log(2) * a).exp()"
        ) from error
    return _convert(tree, expression)


def _convert(node: Any, expression: Any) -> Function:
    """Return a node of a SymPy tree as a function of tensors."""
    if node.is_Symbol:
        name = node.name
        return lambda columns: columns[name]
    if node.is_number:
        number = complex(node)
        if number.imag != 0 or not math.isfinite(number.real):
            raise CircuitError(f"the angle {expression} has the number {node}, which is not finite and real")
        return lambda columns: number.real
    function = _FUNCTIONS.get(node.func.__name__)
    if function is None:
        raise CircuitError(f"the angle {expression} has the unknown function {node.func.__name__!r}")
    arguments = [_convert(each, expression) for each in node.args]
    return lambda columns: function(*(argument(columns) for argument in arguments))
