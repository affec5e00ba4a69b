from __future__ import annotations

import sys
from importlib import import_module

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from ketfit.circuit import Angle, Circuit, Gate
from ketfit.errors import MissingExtraError
from ketfit.interop.qiskit import circuits
from ketfit.interop.qiskit.circuits import QiskitCircuitError, convert

A, B = Parameter("a"), Parameter("b")


def example() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 3)
    circuit.rx(2 * B + 1, 1)
    circuit.ry(A * B, 0)
    circuit.rz(A * B, 0)
    circuit.measure([0, 1], [2, 0])
    return circuit


def test_parameters_and_expressions_become_inputs():
    converted = convert(example(), "test", measures=True)
    x0, x1, x2 = (Angle("input", index) for index in range(3))
    gates = [Gate("rx", 1, [2 * x1 + 1]), Gate("ry", 0, [x2]), Gate("rz", 0, [x2])]
    assert x0 not in [angle for gate in converted.circuit.gates for angle in gate.parameters]
    assert converted.circuit == Circuit(2, gates, 0, 3)
    assert (converted.parameters, converted.measured) == (("a", "b"), {2: 0, 0: 1})


def test_qubits_without_gates_are_left_out():
    circuit = QuantumCircuit(4, 3)
    circuit.cx(3, 1)
    circuit.measure([3, 0, 1], [0, 1, 2])
    converted = convert(circuit, "test", measures=True)
    assert converted.circuit == Circuit(2, [Gate("cx", (1, 0))], 0, 0)
    assert (converted.active, converted.measured) == ((1, 3), {0: 1, 2: 0})


def test_inputs_are_differentiable_functions_of_the_values():
    values = torch.tensor([[2.0, 3.0], [-1.0, 0.5]], dtype=torch.double, requires_grad=True)
    inputs = convert(example(), "test", measures=True).inputs(values)
    torch.testing.assert_close(inputs[:, 2], values[:, 0] * values[:, 1])
    (gradient,) = torch.autograd.grad(inputs[:, 2].sum(), values)
    torch.testing.assert_close(gradient, values.flip(1))


def test_conversion_is_kept_while_the_content_is_the_same(monkeypatch):
    monkeypatch.setattr(circuits, "_cache", {})
    circuit = example()
    first = convert(circuit, "test", measures=True)
    assert convert(circuit, "test", measures=True) is first
    circuit.global_phase = 1.0
    assert convert(circuit, "test", measures=True) is not first


def test_number_of_kept_conversions_is_bounded(monkeypatch):
    monkeypatch.setattr(circuits, "_cache", {})
    monkeypatch.setattr(circuits, "MAX_CACHED", 2)
    given = [example() for _ in range(4)]
    last = [convert(circuit, "test", measures=True) for circuit in given][-1]
    assert [key[0] for key in circuits._cache] == [id(circuit) for circuit in given[2:]]
    assert convert(given[-1], "test", measures=True) is last


def test_error_of_a_definition_names_the_circuit_and_the_position():
    inner = QuantumCircuit(1, name="inner")
    inner.reset(0)
    circuit = QuantumCircuit(1, name="outer")
    circuit.append(inner.to_instruction(), [0])
    message = (
        r"test cannot run the circuit 'outer': instruction 0 \(reset\) in the definition of inner is an instruction"
    )
    with pytest.raises(QiskitCircuitError, match=message):
        convert(circuit, "test", measures=False)


@pytest.mark.parametrize("name", ["barrier", "delay", "initialize", "measure", "reset", "unitary"])
def test_gate_with_the_name_of_an_instruction_is_a_gate(name):
    inner = QuantumCircuit(1, name=name)
    inner.x(0)
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.append(inner.to_gate(), [0])
    converted = convert(circuit, "test", measures=False)
    assert converted.circuit.gates == (Gate("h", 0), Gate("x", 0))
    assert convert(circuit, "test", measures=False) is converted


def test_package_is_lazy_and_has_a_listing():
    import ketfit.interop.qiskit as package

    assert dir(package) == sorted(package.__all__)
    assert package.KetFitEstimator is sys.modules["ketfit.interop.qiskit.estimator"].KetFitEstimator
    with pytest.raises(AttributeError, match="has no attribute 'KetFitEstimater'"):
        _ = package.KetFitEstimater


@pytest.mark.parametrize("name", ["estimator", "sampler", "circuits"])
def test_import_without_qiskit_names_the_extra(monkeypatch, name):
    for package in ("qiskit", "qiskit.primitives"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"ketfit.interop.qiskit.{name}", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'ketfit\[qiskit\]'"):
        import_module(f"ketfit.interop.qiskit.{name}")


def test_gradient_without_qiskit_machine_learning_names_the_extra(monkeypatch):
    for package in ("qiskit_machine_learning", "qiskit_machine_learning.algorithm_job"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "ketfit.interop.qiskit.gradient", raising=False)
    package = import_module("ketfit.interop.qiskit")
    with pytest.raises(MissingExtraError, match=r"KetFitEstimatorGradient needs .* 'ketfit\[qiskit\]'"):
        _ = package.KetFitEstimatorGradient
