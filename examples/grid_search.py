"""Search over the layers of a quantum head in a scikit-learn pipeline, on measurements instead of embeddings."""

from __future__ import annotations

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ketfit import HeadConfig, QuantumHeadClassifier, TrainConfig

X, y = load_breast_cancer(return_X_y=True)  # 30 measurements of a cell: 5 qubits hold 32 amplitudes
X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=200, stratify=y, random_state=0)

head = HeadConfig(n_qubits=5, reference_amplitude=1.0)  # without a constant, x and -x are the same
pipeline = make_pipeline(StandardScaler(), QuantumHeadClassifier(head, TrainConfig(epochs=30)))
grid = {
    "quantumheadclassifier__head__encoder_layers": [1, 4],
    "quantumheadclassifier__head__main_layers": [1, 2],
}
search = GridSearchCV(pipeline, grid, cv=3).fit(X_train, y_train)

for settings, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True):
    print(f"{score:.1%}  " + ", ".join(f"{name.rpartition('__')[2]}={value}" for name, value in settings.items()))
best = search.best_estimator_
print(f"\n{best[-1].n_parameters_} parameters, {best.score(X_test, y_test):.1%} of {len(y_test)} test samples")
linear = make_pipeline(StandardScaler(), LogisticRegression()).fit(X_train, y_train)
print(f"{X.shape[1] + 1} parameters, {linear.score(X_test, y_test):.1%}: logistic regression")
