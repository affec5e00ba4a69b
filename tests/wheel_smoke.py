"""Test an installed wheel, without extras or sources: `make wheel`, `make manylinux` and the workflow Wheels."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import ketfit
from ketfit import HeadConfig, QuantumHeadClassifier, TrainConfig

installed = Path(ketfit.__file__).parent
assert "site-packages" in installed.parts, installed
assert (installed / "py.typed").exists()

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 6)).astype(np.float32)
y = np.where(X[:, 0] > 0, "up", "down")
classifier = QuantumHeadClassifier(HeadConfig.recommended(6), TrainConfig(epochs=30)).fit(X, y)
assert classifier.score(X, y) > 0.9, classifier.score(X, y)
with tempfile.TemporaryDirectory() as folder:
    model = Path(folder) / "model"
    classifier.save_pretrained(model)
    assert (QuantumHeadClassifier.from_pretrained(model).predict_proba(X) == classifier.predict_proba(X)).all()

ketfit_command = [str(Path(sys.executable).parent / "ketfit"), "doctor", "--json"]
report = json.loads(subprocess.run(ketfit_command, check=True, capture_output=True, text=True).stdout)
assert report["ketfit"] == ketfit.__version__
assert report["engine"].startswith("native, "), report["engine"]
assert report["extras"]["bundled"] == "pip install 'ketfit[bundled]'"
ketfit_command[1] = "energy"
report = json.loads(subprocess.run(ketfit_command, check=True, capture_output=True, text=True).stdout)
assert report["crossover_qubits"] and report["assumptions"], "the profiles are in the wheel"
print(f"the wheel of ketfit {ketfit.__version__} passed the smoke test on Python {sys.version.split()[0]}")
