"""Train a network of Qiskit Machine Learning on KetFit's estimator, and time a step beside Qiskit's own.

The network is a TorchConnector around an EstimatorQNN. Only its estimator and its gradient are KetFit's.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import BaseEstimatorV2, StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.gradients import BaseEstimatorGradient, ParamShiftEstimatorGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ketfit.interop.qiskit import KetFitEstimator, KetFitEstimatorGradient

N_QUBITS = 4
features = ParameterVector("x", N_QUBITS)
feature_map = QuantumCircuit(N_QUBITS)
for qubit, feature in enumerate(features):
    feature_map.ry(feature, qubit)
ansatz = real_amplitudes(N_QUBITS, reps=2)


def network(estimator: BaseEstimatorV2, gradient: BaseEstimatorGradient) -> EstimatorQNN:
    return EstimatorQNN(
        circuit=feature_map.compose(ansatz),
        estimator=estimator,
        observables=SparsePauliOp("I" * (N_QUBITS - 1) + "Z"),
        input_params=features,
        weight_params=ansatz.parameters,
        gradient=gradient,
        input_gradients=True,  # what TorchConnector needs
        default_precision=0.0,  # exact; otherwise EstimatorQNN asks for noise of 1/64
    )


X, y = load_breast_cancer(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
scale = make_pipeline(StandardScaler(), PCA(N_QUBITS, whiten=True)).fit(X_train)
train, test = (torch.tensor(0.5 * scale.transform(part), dtype=torch.float32) for part in (X_train, X_test))
wanted = torch.tensor(2.0 * y_train - 1)

ketfit = network(KetFitEstimator(), KetFitEstimatorGradient())
torch.manual_seed(0)
linear = torch.nn.Linear(N_QUBITS, N_QUBITS)
layer = TorchConnector(ketfit, initial_weights=torch.rand(ansatz.num_parameters).numpy())
model = torch.nn.Sequential(linear, layer)
optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
start = time.perf_counter()
for _ in range(3):
    for rows in torch.randperm(len(train)).split(32):
        optimizer.zero_grad()
        (1 - wanted[rows] * model(train[rows])[:, 0]).clamp(min=0).mean().backward()
        optimizer.step()
steps = 3 * -(-len(train) // 32)
milliseconds = 1e3 * (time.perf_counter() - start) / steps
with torch.no_grad():
    right = ((model(test)[:, 0] > 0).numpy() == y_test).mean()
print(f"{right:.1%} of {len(test)} test samples right after {steps} steps of {milliseconds:.0f} ms")

qiskit = StatevectorEstimator()
samples, weights = train[:4].numpy(), layer.weight.detach().numpy()
gradients, seconds = [], []
for each in (ketfit, network(qiskit, ParamShiftEstimatorGradient(qiskit))):
    start = time.perf_counter()
    each.forward(samples, weights)
    gradients.append(each.backward(samples, weights))
    seconds.append(time.perf_counter() - start)
difference = max(np.abs(one - other).max() for one, other in zip(*gradients, strict=True))
print(
    f"4 samples with gradients: {1e3 * seconds[0]:.1f} ms on KetFit, {1e3 * seconds[1]:,.0f} ms on StatevectorEstimator"
)
print(f"the gradients are the same to {difference:.0e}")
