"""Train a quantum head on principal components: 5 qubits for a sentence embedding that would need 9."""

from __future__ import annotations

import numpy as np

from ketfit import HeadConfig, QuantumHeadClassifier
from ketfit.bodies.body import load_body
from ketfit.data.dataset import load_dataset
from ketfit.data.splits import few_shot_split

dataset = load_dataset("rotten-tomatoes")
split = few_shot_split(dataset, per_label=256)
body = load_body("all-MiniLM-L6-v2")
train, test = dataset.take(split.train), dataset.take(split.test[:400])
X_train, X_test = body.encode(train.texts), body.encode(test.texts)
y_train, y_test = np.asarray(train.labels), np.asarray(test.labels)

# A head uses as many qubits as its input needs: 31 components and a reference amplitude are 32 numbers. The components
# are fitted on the training sentences and saved with the head.
for name, config in {
    "whole embedding": HeadConfig.recommended(body.dimension),
    "31 components": HeadConfig.recommended(body.dimension, for_qpu=True),
}.items():
    head = QuantumHeadClassifier(config).fit(X_train, y_train)
    print(
        f"{name}: {head.head_config_.n_qubits} qubits, {head.n_parameters_} parameters, "
        f"{head.score(X_test, y_test):.1%} of {len(y_test)} right"
    )
