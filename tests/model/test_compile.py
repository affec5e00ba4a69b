"""Models with a head under torch.compile: a graph break, and the values of eager execution."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ketfit import HeadConfig, NoiseConfig, QuantumHead, expectation, expectation_and_gradients
from ketfit.circuit import reuploading_circuit
from ketfit.simulate.mitigation import mitigated_expectation

SMALL = HeadConfig(n_qubits=3, connectivity=1, main_layers=1)
NOISE = NoiseConfig(depolarizing_2q=0.05, readout=((0.9, 0.2), (0.1, 0.8)))
CIRCUIT = reuploading_circuit(3, 1, 1, 1, 1)
WEIGHTS = torch.linspace(-1, 1, CIRCUIT.n_weights, dtype=torch.float64)
ROWS = torch.linspace(-2, 2, 20, dtype=torch.float64).view(5, 4)
BACKENDS = pytest.mark.parametrize("backend", ["eager", "aot_eager"])


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    import torch._dynamo

    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def model(**settings: Any) -> nn.Sequential:
    chance = torch.Generator().manual_seed(1)
    head = QuantumHead(SMALL.updated(**settings), 8, 2, chance)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), head, nn.Tanh()).double()


@pytest.mark.slow
@BACKENDS
def test_compiled_model_equals_eager_values_and_gradients(backend):
    eager = model()
    compiled = copy.deepcopy(eager)
    result = torch.compile(compiled, backend=backend)(ROWS)
    torch.testing.assert_close(result, eager(ROWS), rtol=0, atol=1e-12)
    result.square().sum().backward()
    eager(ROWS).square().sum().backward()
    for (name, mine), theirs in zip(compiled.named_parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-12, msg=name)


@pytest.mark.slow
@BACKENDS
def test_compiled_model_trains_as_eager(backend):
    eager = model(shots=50, gradient="straight_through")
    compiled = copy.deepcopy(eager)
    run = torch.compile(compiled, backend=backend)
    for module, call in ((eager, eager), (compiled, run)):
        module[1].generator = torch.Generator().manual_seed(5)
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
        for size in (5, 4, 3):  # also batches of other sizes
            optimizer.zero_grad()
            nn.functional.cross_entropy(call(ROWS[:size]), torch.tensor([0, 1, 1, 0, 1])[:size]).backward()
            optimizer.step()
    for mine, theirs in zip(compiled.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("settings", [{"shots": 40}, {"shots": 40, "noise": NOISE, "mitigation": ("zero_noise",)}])
def test_compiled_head_in_evaluation_samples_and_mitigates(settings):
    eager = model(**settings).eval()
    compiled = copy.deepcopy(eager)
    results = []
    for module, call in ((eager, eager), (compiled, torch.compile(compiled, backend="eager"))):
        module[1].generator = torch.Generator().manual_seed(5)
        results.append(call(ROWS))
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)


def values(weights: Tensor, inputs: Tensor) -> Tensor:
    return expectation(CIRCUIT, weights.sin(), 2 * inputs, qubits=(2, 0)).cos()


def gradients(weights: Tensor, inputs: Tensor) -> Tensor:
    found = expectation_and_gradients(CIRCUIT, weights.sin(), 2 * inputs).weights
    assert found is not None
    return found.cos()


def mitigated(weights: Tensor, inputs: Tensor) -> Tensor:
    return mitigated_expectation(CIRCUIT, weights.sin(), 2 * inputs, mitigation=("readout",), noise=NOISE).cos()


ENCODER = model()[1].encoder


def encoded(weights: Tensor, inputs: Tensor) -> Tensor:
    return ENCODER(inputs.repeat(1, 2)).cos()


@pytest.mark.slow
@BACKENDS
@pytest.mark.parametrize("function", [values, gradients, mitigated, encoded], ids=lambda function: function.__name__)
def test_compiled_function_with_expectation_equals_eager(function, backend):
    run = torch.compile(function, backend=backend)
    for rows in (4, 2):
        inputs = torch.linspace(-1, 1, 3 * rows, dtype=torch.float64).view(rows, 3)
        inputs = torch.cat([inputs, inputs[:, :1]], dim=1) if function is encoded else inputs
        torch.testing.assert_close(run(WEIGHTS, inputs), function(WEIGHTS, inputs), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_compiled_model_compiles_modules_around_head():
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    module = model()

    def run(rows: Tensor) -> Tensor:
        return module[2](module[1](module[0](rows).exp()))

    torch.testing.assert_close(torch.compile(run, backend=backend)(ROWS), run(ROWS), rtol=0, atol=1e-12)
    called = [{node.name for node in graph.graph.nodes if node.op.startswith("call")} for graph in graphs]
    assert len(called) == 2
    assert "exp" in called[0]
    assert any("tanh" in name or "module" in name for name in called[1])


@pytest.mark.slow
def test_compile_fullgraph_is_refused_by_torch():
    with pytest.raises(torch._dynamo.exc.Unsupported, match="expectation"):
        torch.compile(values, backend="eager", fullgraph=True)(WEIGHTS, torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.slow
def test_head_import_does_not_load_compiler():
    program = (
        "import sys\n"
        "import ketfit.estimators.quantum, ketfit.model.head, ketfit.simulate.mitigation\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
