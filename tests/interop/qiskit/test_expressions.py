from __future__ import annotations

import pytest
import sympy
import torch
from qiskit.circuit import Parameter

from ketfit.errors import CircuitError
from ketfit.interop.qiskit.expressions import differentiable_function

A, B = Parameter("a"), Parameter("b[0]")


@pytest.mark.parametrize(
    "expression",
    [
        A * B,
        A**2 - B / A,
        1 / (2 + A * A),
        (A * B).sin() + A.cos() * B.tan(),
        (A / 9).arcsin() + (B / 9).arccos() * (A * B).arctan(),
        A.exp() * (B * B).log(),
        (A * B).abs() + 3,
        (A * B).sign() * A,
        (A * B).conjugate(),
        A * (2 * B - 3.5) ** 3,
    ],
    ids=str,
)
def test_function_and_its_gradient_equal_qiskits_numbers(expression):
    values = {"a": torch.tensor([0.7, -1.2], dtype=torch.double), "b[0]": torch.tensor([0.9, 0.4], dtype=torch.double)}
    function = differentiable_function(expression)

    def number(a: float, b: float) -> float:
        return float(expression.bind({each: {A: a, B: b}[each] for each in expression.parameters}))

    expected = [number(a, b) for a, b in zip(values["a"].tolist(), values["b[0]"].tolist(), strict=True)]
    torch.testing.assert_close(function(values), torch.tensor(expected, dtype=torch.double))
    torch.autograd.gradcheck(
        lambda a, b: function({"a": a, "b[0]": b}), [each.clone().requires_grad_() for each in values.values()]
    )


def test_complex_number_is_refused():
    with pytest.raises(CircuitError, match=r"the angle .* has the number .*I, which is not finite and real"):
        differentiable_function(1j * A * B)


def test_expression_that_qiskit_does_not_convert_is_refused():
    class PowerOfTwo:  # as 2**a is in Qiskit 2.4
        def sympify(self):
            return NotImplemented

        def __str__(self):
            return "2**a"

    with pytest.raises(CircuitError, match=r"the angle 2\*\*a to SymPy; write .* as \(math.log\(2\) \* a\).exp\(\)"):
        differentiable_function(PowerOfTwo())


def test_unknown_function_is_refused():
    class Expression:
        def sympify(self):
            return sympy.Function("gamma")(sympy.Symbol("a"))

        def __str__(self):
            return "gamma(a)"

    with pytest.raises(CircuitError, match=r"the angle gamma\(a\) has the unknown function 'gamma'"):
        differentiable_function(Expression())
