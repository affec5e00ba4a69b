"""Train a quantum head on principal components: 5 qubits for a sentence embedding that would need 9."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from ketfit import QuantumHeadClassifier, TrainConfig
from ketfit.bodies.body import load_body
from ketfit.data.dataset import load_dataset
from ketfit.data.splits import few_shot_split

dataset = load_dataset("rotten-tomatoes")
split = few_shot_split(dataset, per_label=128)
body = load_body("all-MiniLM-L6-v2")
train, test = dataset.take(split.train), dataset.take(split.test[:400])
X_train, X_test = body.encode(train.texts), body.encode(test.texts)
y_train, y_test = np.asarray(train.labels), np.asarray(test.labels)

# A head uses as many qubits as its input needs: 31 components and a reference amplitude are 32 numbers.
settings = TrainConfig(epochs=60)
for name, model in {
    "whole embedding": QuantumHeadClassifier(train=settings),
    "31 components": make_pipeline(PCA(31), QuantumHeadClassifier(train=settings)),
}.items():
    model.fit(X_train, y_train)
    head = model if isinstance(model, QuantumHeadClassifier) else model[-1]
    print(
        f"{name}: {head.head_config_.n_qubits} qubits, {head.n_parameters_} parameters, "
        f"{model.score(X_test, y_test):.1%} of {len(y_test)} right"
    )
