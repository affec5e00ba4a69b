"""Combine embeddings and numbers in one table, and train a head and an ensemble of heads on it."""

from __future__ import annotations

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from topics import sentences

from ketfit import BodyTransformer, QuantumHeadClassifier, TrainConfig

texts, topics = sentences()
table = pd.DataFrame({"sentence": texts, "words": [len(text.split()) for text in texts]})
# A string selects a column as a list of sentences; a list of names selects a table of numbers.
columns = ColumnTransformer(
    [
        ("text", make_pipeline(BodyTransformer("all-MiniLM-L6-v2"), PCA(14, random_state=0)), "sentence"),
        ("numbers", StandardScaler(), ["words"]),
    ]
)
head = QuantumHeadClassifier(train=TrainConfig(epochs=25))
# Each member gets its own random_state, and therefore other samples, initial angles and batches.
for name, model in {"one head": head, "three heads": BaggingClassifier(head, n_estimators=3, random_state=0)}.items():
    scores = cross_val_score(make_pipeline(columns, model), table, topics, cv=2)
    print(f"{name}: {scores.mean():.1%} of {len(table)} right")
