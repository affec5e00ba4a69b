"""Train a SetFit model with a quantum head on eight film reviews of each class.

Needs the extras ``setfit`` and ``bundled``. SetFit would first tune the body with its trainer. Here the body is frozen,
so that the example takes seconds.
"""

from __future__ import annotations

import numpy as np
from setfit import SetFitModel

from ketfit import HeadConfig, QuantumHeadClassifier, TrainConfig
from ketfit.bodies.body import load_body
from ketfit.data.dataset import load_dataset
from ketfit.data.splits import few_shot_split

reviews = load_dataset("rotten-tomatoes")
split = few_shot_split(reviews, per_label=8, validation_fraction=0)
train, test = reviews.take(split.train), reviews.take(split.test[::80])

body = load_body("all-MiniLM-L6-v2").transformer
head = QuantumHeadClassifier(HeadConfig.recommended(384), TrainConfig(epochs=40))
model = SetFitModel(model_body=body, model_head=head)
model.fit(list(train.texts), list(train.labels), num_epochs=1, show_progress_bar=False)

right = np.asarray(model.predict(list(test.texts))) == np.asarray(test.labels)
print(
    f"{head.n_parameters_} parameters, {len(train)} sentences to learn from, {right.mean():.0%} of {len(test)} right\n"
)
for text, probability in zip(test.texts[:4], model.predict_proba(list(test.texts[:4]), as_numpy=True), strict=True):
    print(f"{head.classes_[1]} {probability[1]:4.0%}  {text[:90]}")
