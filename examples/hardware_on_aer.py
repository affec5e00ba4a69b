"""Plan, submit and fetch a trained head on Qiskit Aer with the noise of IonQ Forte. Needs the extra ``hardware``.

    python examples/hardware_on_aer.py [FOLDER]

With ``ionq:qpu.forte-1`` instead of ``aer:ionq-forte``, and a key in IONQ_API_KEY, the same lines buy the same circuits
from IonQ. Each step may run in another process on another day, because the folder contains everything that it needs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from ketfit import HeadConfig, QuantumHeadClassifier, TrainConfig
from ketfit.hardware.backends.registry import load_backend
from ketfit.hardware.runs.plan import plan_run, write_plan
from ketfit.hardware.runs.run import fetch_run, submit_run

BACKEND, SHOTS = "aer:ionq-forte", 1000


def main(folder: Path) -> None:
    """Train a head, run it on the backend and compare the accuracies."""
    x, y = load_breast_cancer(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        StandardScaler().fit_transform(x), y, test_size=40, random_state=0
    )
    head = HeadConfig(n_qubits=5, encoder_layers=2, main_layers=1, reference_amplitude=1.0)
    classifier = QuantumHeadClassifier(head, TrainConfig(epochs=40), seed=0).fit(x_train, y_train)

    backend = load_backend(BACKEND, folder)
    planned = plan_run(classifier, x_test, backend, name=BACKEND, labels=list(map(int, y_test)), shots=SHOTS)
    cost = write_plan(folder, planned).cost
    print(f"{cost.circuits} circuits, {cost.two_qubit_gates:,} CNOTs, {cost.price:,.2f} {cost.currency} on Forte")

    submit_run(folder)
    report = fetch_run(folder, wait_s=60)
    print(f"accuracy: {classifier.score(x_test, y_test):.3f} computed here, {report['accuracy']:.3f} from the backend")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary) / "run")
