from __future__ import annotations

import numpy as np
import pennylane as qml
import pytest
import torch

from ketfit.interop.pennylane.jacobian import jacobian, vector_jacobian_product
from ketfit.interop.pennylane.tape_circuit import TapeReader

READER = TapeReader(torch.float64)


def tape(*measurements, trainable=None):
    operations = [qml.RX(0.3, 0), qml.AngleEmbedding(np.array([[0.1, 0.5], [1.0, 1.4]]), [0, 1]), qml.CNOT([0, 1])]
    made = qml.tape.QuantumScript(operations, measurements)
    if trainable is not None:
        made.trainable_params = trainable
    return made


def test_products_are_rows_of_the_jacobian():
    given = tape(qml.probs(wires=[0, 1]), qml.expval(qml.Y(1)))
    (first, second) = jacobian(given, READER)
    assert [each.shape for each in (*first, *second)] == [(2, 4), (2, 4, 2, 2), (2,), (2, 2, 2)]
    rng = np.random.default_rng(0)
    cotangents = rng.normal(size=(2, 4)), rng.normal(size=2)
    products = vector_jacobian_product(given, cotangents, READER)
    for product, one, other in zip(products, first, second, strict=True):
        expected = np.tensordot(cotangents[0], one, 2) + np.tensordot(cotangents[1], other, 1)
        np.testing.assert_allclose(product, expected, atol=1e-12)
    stacked = vector_jacobian_product(given, tuple(np.stack([each, 2 * each]) for each in cotangents), READER)
    for several, product in zip(stacked, products, strict=True):
        np.testing.assert_allclose(several, [product, 2 * product], atol=1e-12)
    shared = vector_jacobian_product(given, (np.stack([cotangents[0], 0 * cotangents[0]]), cotangents[1]), READER)
    expected = vector_jacobian_product(given, (0 * cotangents[0], cotangents[1]), READER)
    for several, product, other in zip(shared, products, expected, strict=True):
        np.testing.assert_allclose(several, [product, other], atol=1e-12)


def test_jacobian_equals_finite_differences():
    step = 1e-6

    def value(angle):
        made = qml.tape.QuantumScript([qml.RX(angle, 0), qml.RZ(0.4, 0), qml.RY(1.0, 0)], [qml.probs(wires=0)])
        return qml.device("default.qubit").execute(made), made

    made = value(0.3)[1]
    made.trainable_params = [0]
    expected = (value(0.3 + step)[0] - value(0.3 - step)[0]) / (2 * step)
    np.testing.assert_allclose(jacobian(made, READER), expected, atol=1e-8)


def test_products_of_a_state_follow_autograd():
    made = qml.tape.QuantumScript([qml.RX(0.4, 0)], [qml.state()])
    derivative = np.array([-0.5 * np.sin(0.2), -0.5j * np.cos(0.2)])
    cotangent = np.array([1.0 + 2j, 0.5 - 1j])
    (product,) = vector_jacobian_product(made, cotangent, READER)
    np.testing.assert_allclose(product, (cotangent @ derivative).real, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_have_the_dtype_of_the_parameters(dtype):
    made = qml.tape.QuantumScript([qml.RX(np.array(0.4, dtype), 0)], [qml.expval(qml.Z(0))])
    assert vector_jacobian_product(made, np.array(1.0), READER)[0].dtype == dtype


def test_parameters_without_effect_have_gradient_zero():
    made = qml.tape.QuantumScript([qml.RX(0.4, 0), qml.RX(0.2, 1)], [qml.expval(qml.Z(0))])
    np.testing.assert_allclose(jacobian(made, READER), [-np.sin(0.4), 0], atol=1e-12)
    identity = qml.tape.QuantumScript([qml.RX(0.4, 0)], [qml.expval(qml.Identity(0))])
    np.testing.assert_allclose(vector_jacobian_product(identity, np.array(1.0), READER), [0], atol=1e-12)
    assert vector_jacobian_product(tape(qml.expval(qml.Z(0)), trainable=[]), np.ones(2), READER) == ()


def test_integer_angles_have_float_gradients_and_bits_have_gradient_zero():
    operations = [qml.BasisState(np.array([1, 0]), [0, 1]), qml.RX(np.array(1), 0), qml.RX(np.array(2), 1)]
    made = qml.tape.QuantumScript(operations, [qml.expval(qml.Z(0) @ qml.Z(1))])
    bits, *angles = jacobian(made, READER)
    np.testing.assert_array_equal(bits, [0, 0])
    np.testing.assert_allclose(angles, [np.sin(1) * np.cos(2), np.cos(1) * np.sin(2)], atol=1e-12)
    products = vector_jacobian_product(made, np.array(2.0), READER)
    np.testing.assert_allclose(products[1:], 2 * np.array(angles), atol=1e-12)
