from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from qiskit.quantum_info import SparsePauliOp, Statevector
from sklearn.decomposition import PCA

from ketfit.circuit.export import to_qiskit
from ketfit.errors import ConfigError, InputError
from ketfit.model.config import HeadConfig
from ketfit.model.diagram import draw_overview
from ketfit.model.head import QuantumHead
from ketfit.simulate.mitigation import mitigated_expectation
from ketfit.simulate.noise import NoiseConfig
from ketfit.simulate.shots import StepCost, shift_counts
from tests.circuits import reference_expectation, reference_state

SMALL = HeadConfig(n_qubits=3, main_layers=1)


def embeddings(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=(rows, width)))


def head(config: HeadConfig, width: int, n_classes: int = 2, seed: int = 0) -> QuantumHead:
    """A head in float64 with angles of all sizes."""
    module = QuantumHead(config, width, n_classes, torch.Generator().manual_seed(seed)).double()
    with torch.no_grad():
        module.weights *= 10
        module.encoder.weights *= 10
    return module


# --- principal components ----------------------------------------------------------------------------------------


def projected_head(**settings) -> tuple[QuantumHead, QuantumHead]:
    """A head with fitted components, and the same head on the components."""
    config = HeadConfig(n_qubits=3, main_layers=1, components=6, reference_amplitude=1, **settings)
    module = head(config, 20)
    module.projection.fit(embeddings(40, 20).numpy())
    plain = head(config.updated(components=None), 6)
    plain.load_state_dict({k: v for k, v in module.state_dict().items() if not k.startswith("projection")})
    return module, plain


@pytest.mark.parametrize("settings", [{}, {"n_encoders": 2, "encoder_input": "slices"}, {"skip_connection": True}])
def test_head_with_components_equals_head_on_components(settings):
    module, plain = projected_head(**settings)
    x = embeddings(5, 20, seed=1)
    components = PCA(6, svd_solver="full").fit(embeddings(40, 20).numpy()).transform(x.numpy())
    projected = module.project(x)
    np.testing.assert_allclose(projected.abs(), np.abs(components), atol=1e-12)
    torch.testing.assert_close(module(x), plain(projected))
    torch.testing.assert_close(module.encode(x), plain.encode(projected))
    torch.testing.assert_close(module(module.prepare_states(x)), plain(projected))
    assert torch.equal(plain.project(projected), projected)


def test_head_with_components_counts_and_trains_no_projection():
    module, plain = projected_head()
    assert module.parameter_counts() == plain.parameter_counts()
    assert {*module.state_dict()} - {*plain.state_dict()} == {"projection.mean", "projection.directions"}
    assert dict(module.named_parameters()).keys() == dict(plain.named_parameters()).keys()
    assert "20 -> 1 x 3 qubits" in repr(module)
    copied = module.with_measurement(shots=10)
    assert torch.equal(copied.projection.directions, module.projection.directions)


def test_head_with_components_gradient_of_embedding_equals_finite_differences():
    module, _ = projected_head()
    x = embeddings(2, 20, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(module, (x,))


def test_head_with_unfitted_components_raises():
    module = head(HeadConfig(n_qubits=3, components=6), 20)
    for call in (module, module.encode, module.prepare_states, module.project):
        with pytest.raises(InputError, match="the projection of this head is not fitted"):
            call(embeddings(2, 20))
    with pytest.raises(InputError, match=r"embeddings have shape \(2, 6\); this head needs \(batch, 20\)"):
        module.project(embeddings(2, 6))


# --- the forward pass by hand ------------------------------------------------------------------------------------


def amplitudes(part: np.ndarray, config: HeadConfig) -> np.ndarray:
    loaded = np.zeros(2**config.n_qubits)
    loaded[: len(part)] = part / np.linalg.norm(part)
    if config.reference_amplitude:
        loaded[len(part)] = config.reference_amplitude
    return loaded / np.linalg.norm(loaded)


def ring_gates(n: int, layers: int, connectivity: int, wall: bool) -> list[tuple[int | None, int]]:
    """(control, target) of each block of Figure 3 of the paper; no control in the wall."""
    ring = [(q, (q + d) % n) for d in range(1, connectivity + 1) for q in range(n)]
    column = [(None, q) for q in range(n)] if wall else []
    return [*ring, *column, *ring * (layers - 1)] if layers else []


def run(state: np.ndarray, blocks: list[tuple[int | None, int]], angles: list[float]) -> np.ndarray:
    """CNOT and RY of each block on `state` of shape (2,) * n, written out without the library's circuits."""
    for (control, target), angle in zip(blocks, angles, strict=True):
        if control is not None:
            moved = np.moveaxis(state, (control, target), (0, 1)).copy()
            moved[1] = moved[1, ::-1].copy()
            state = np.moveaxis(moved, (0, 1), (control, target))
        zero, one = np.moveaxis(state, target, 0)
        cos, sin = math.cos(angle / 2), math.sin(angle / 2)
        state = np.moveaxis(np.stack([cos * zero - sin * one, sin * zero + cos * one]), 0, target)
    return state


def by_hand(module: QuantumHead, rows: np.ndarray) -> np.ndarray:
    """The logits from the definition of the model in the paper, one sample and one gate at a time."""
    config, state_dict = module.config, {name: t.detach().numpy() for name, t in module.state_dict().items()}
    n, n_encoders = config.n_qubits, config.n_encoders
    logits = []
    for row in rows:
        parts = np.array_split(row, n_encoders) if config.encoder_input == "slices" else [row] * n_encoders
        blocks = ring_gates(n, config.encoder_layers, config.connectivity, config.rotation_wall)
        readouts = []
        for weights, part in zip(state_dict["encoder.weights"], parts, strict=True):
            state = run(amplitudes(part, config).reshape([2] * n), blocks, weights)
            readouts.append(reference_expectation(state.reshape(-1), range(n)))
        z = np.concatenate(readouts) if config.merge == "concat" else np.mean(readouts, axis=0)

        width = len(z)
        state = np.eye(1, 2**width).reshape([2] * width)
        loading = [(None, q) for q in range(width)]
        block = ring_gates(width, config.reupload_layers, config.connectivity, config.rotation_wall)
        first = list(state_dict["weights"])
        for repeat in range(config.n_reuploads):
            state = run(state, loading, state_dict["angle_scale"] * z)
            if repeat == 0 or not config.tie_reuploads:
                angles, first = first[: len(block)], first[len(block) :]
            state = run(state, block, angles)
        state = run(state, ring_gates(width, config.main_layers, config.connectivity, config.rotation_wall), first)
        features = reference_expectation(state.reshape(-1), range(config.n_measured))
        if config.skip_connection:
            features = np.concatenate([features, z])
        logits.append(state_dict["linear.weight"] @ features + state_dict["linear.bias"])
    return np.array(logits)


@pytest.mark.parametrize(
    ("settings", "n_classes"),
    [
        ({}, 2),
        ({"rotation_wall": False}, 2),
        ({"connectivity": 1, "encoder_layers": 3}, 2),
        ({"n_reuploads": 3}, 2),
        ({"n_reuploads": 3, "tie_reuploads": False}, 2),
        ({"n_reuploads": 2, "tie_reuploads": False, "rotation_wall": False, "reupload_layers": 2}, 2),
        ({"reupload_layers": 0, "main_layers": 2}, 2),
        ({"encoder_layers": 0}, 2),
        ({"n_measured": 3}, 3),
        ({"n_measured": 2, "skip_connection": True}, 4),
        ({"skip_connection": True}, 2),
        ({"reference_amplitude": 0.8, "angle_scale": 1.3}, 2),
        ({"train_angle_scale": True, "angle_scale": 0.4}, 2),
        ({"n_encoders": 2}, 2),
        ({"n_encoders": 2, "merge": "mean"}, 2),
        ({"n_encoders": 2, "encoder_input": "slices"}, 2),
        ({"n_encoders": 2, "encoder_input": "slices", "merge": "mean", "reference_amplitude": 1.0}, 2),
        ({"n_encoders": 2, "n_measured": 5, "skip_connection": True, "n_reuploads": 2, "tie_reuploads": False}, 3),
        ({"n_encoders": 2, "n_measured": 3, "merge": "mean", "skip_connection": True, "rotation_wall": False}, 3),
    ],
)
def test_head_logits_equal_paper_definition(settings, n_classes):
    config = SMALL.updated(**settings)
    module, rows = head(config, 7, n_classes), embeddings(3, 7)
    logits = module(rows)
    assert logits.shape == (3, n_classes)
    np.testing.assert_allclose(logits.detach(), by_hand(module, rows.numpy()), rtol=0, atol=1e-12)
    assert logits.std(dim=0).min() > 1e-6, "equal rows would hide a wrong sample"


def test_fixture_hand_made_gates_equal_circuit():
    module = head(SMALL.updated(n_encoders=2), 7)
    assert ring_gates(3, 2, 2, True) == [
        (0, 1), (1, 2), (2, 0), (0, 2), (1, 0), (2, 1),
        (None, 0), (None, 1), (None, 2),
        (0, 1), (1, 2), (2, 0), (0, 2), (1, 0), (2, 1),
    ]  # fmt: skip
    weights = module.encoder.weights[1].detach().numpy()
    initial = amplitudes(np.arange(1.0, 8.0), SMALL)
    by_circuit = reference_state(module.encoder.circuit, weights, [], initial)
    state = run(initial.reshape(2, 2, 2), ring_gates(3, 2, 2, True), weights)
    np.testing.assert_allclose(state.reshape(-1), by_circuit, rtol=0, atol=1e-13)


def test_head_batch_equals_loop_in_both_modes():
    module, rows = head(SMALL.updated(n_encoders=2), 6), embeddings(5, 6)
    together = module(rows)
    np.testing.assert_allclose(together.detach(), torch.cat([module(row[None]) for row in rows]).detach(), atol=1e-13)
    assert torch.equal(module.eval()(rows), module.train()(rows))


def test_head_empty_batch_gives_no_logits():
    module = head(SMALL, 8, n_classes=3)
    logits = module(torch.zeros(0, 8, dtype=torch.float64))
    assert logits.shape == (0, 3)
    logits.sum().backward()
    assert torch.equal(module.weights.grad, torch.zeros_like(module.weights))


# --- gradients ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"train_angle_scale": True},
        {"n_encoders": 2, "merge": "mean", "reference_amplitude": 0.5, "n_reuploads": 2, "train_angle_scale": True},
        {"n_encoders": 2, "encoder_input": "slices", "n_measured": 2, "skip_connection": True, "tie_reuploads": False},
    ],
)
def test_head_gradients_equal_finite_differences(settings):
    config = HeadConfig(n_qubits=2, connectivity=1, encoder_layers=1, main_layers=1).updated(**settings)
    module = head(config, 3 if config.encoder_input == "whole" else 6)
    names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    values = [module.get_parameter(name).detach().clone().requires_grad_() for name in names]
    rows = embeddings(2, module.embedding_dim).requires_grad_()

    def logits(rows, *values):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (rows,))

    assert torch.autograd.gradcheck(logits, (rows, *values))
    logits(rows, *values).square().sum().backward()
    for name, tensor in zip(["embeddings", *names], [rows, *values], strict=True):
        assert tensor.grad.abs().max() > 1e-6, name


def test_head_angle_scale_trains_only_if_set():
    rows = embeddings(2, 8)
    for trained in (False, True):
        module = head(SMALL.updated(train_angle_scale=trained), 8)
        module(rows).sum().backward()
        assert module.angle_scale.requires_grad is trained
        assert (module.angle_scale.grad is not None) is trained
    assert module.angle_scale.grad.item() != 0
    assert module.angle_scale.item() == pytest.approx(math.pi, rel=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"n_encoders": 2},
        {"connectivity": 1, "main_layers": 0},
        {"main_layers": 0, "n_reuploads": 2, "tie_reuploads": False},
        {"rotation_wall": False, "main_layers": 2},
        {"n_encoders": 2, "n_measured": 6},
        {"n_encoders": 2, "merge": "mean", "n_measured": 2},
    ],
)
def test_unreachable_angles_have_zero_gradient(settings):
    module = head(SMALL.updated(**settings), 8)
    largest = torch.zeros_like(module.weights)
    for seed in range(3):  # a reachable angle may have a vanishing gradient by chance, but not three times
        gradient = torch.autograd.grad(module(embeddings(4, 8, seed))[:, 0].sum(), module.weights)[0]
        largest = torch.maximum(largest, gradient.abs())
    assert module.unreachable_angles() == (largest == 0).sum().item()
    assert largest[largest != 0].min() > 1e-9


def test_unreachable_angles_depend_on_measured_qubits():
    assert head(SMALL.updated(n_encoders=2), 8).unreachable_angles() > 0
    assert head(SMALL.updated(n_encoders=2, n_measured=6), 8).unreachable_angles() == 0


# --- what the model can tell apart -------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"n_encoders": 2, "encoder_input": "slices", "skip_connection": True}])
def test_head_without_reference_amplitude_is_even(settings):
    rows = embeddings(4, 7)
    even = head(SMALL.updated(**settings), 7)
    np.testing.assert_allclose(even(rows).detach(), even(-rows).detach(), rtol=0, atol=1e-13)
    other = head(SMALL.updated(reference_amplitude=1.0, **settings), 7)
    assert (other(rows) - other(-rows)).abs().min() > 1e-5


@pytest.mark.parametrize("reference", [0.0, 1.0])
def test_head_ignores_length_of_embedding(reference):
    module, rows = head(SMALL.updated(reference_amplitude=reference), 7), embeddings(4, 7)
    np.testing.assert_allclose(module(1e5 * rows).detach(), module(rows).detach(), rtol=0, atol=1e-12)


# --- parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_encoders", "merge", "tied", "wall", "train_scale", "skip", "n_measured"),
    [
        case
        for place, case in enumerate(
            itertools.product((1, 3), ("concat", "mean"), *[(True, False)] * 4, (1, 3))  # every third of 128 cases
        )
        if place % 3 == 0
    ],
)
def test_parameter_counts_equal_trainable_parameters(n_encoders, merge, tied, wall, train_scale, skip, n_measured):
    config = HeadConfig(
        n_qubits=3,
        n_encoders=n_encoders,
        merge=merge,
        n_reuploads=2,
        tie_reuploads=tied,
        rotation_wall=wall,
        train_angle_scale=train_scale,
        skip_connection=skip,
        n_measured=n_measured,
    )
    module = QuantumHead(config, 8, 3)
    sizes = {name: p.numel() if p.requires_grad else 0 for name, p in module.named_parameters()}
    width = 3 * n_encoders if merge == "concat" else 3
    pqc1, pqc2 = width * (2 + wall), width * (8 + wall)
    counts = {
        "encoder angles": n_encoders * 3 * (4 + wall),
        "QPU angles": (1 if tied else 2) * pqc1 + pqc2,
        "angle scale": int(train_scale),
        "linear": (n_measured + (width if skip else 0) + 1) * 3,
    }
    assert config.count_parameters(8, 3) == module.parameter_counts() == {**counts, "total": sum(counts.values())}
    assert counts == {
        "encoder angles": sizes["encoder.weights"],
        "QPU angles": sizes["weights"],
        "angle scale": sizes["angle_scale"],
        "linear": sizes["linear.weight"] + sizes["linear.bias"],
    }
    shown = repr(module)
    assert shown.startswith(
        f"QuantumHead(8 -> {n_encoders} x 3 qubits -> {width} qubits, {n_measured} measured -> 3 classes; "
    )
    parts = [f"{count} {part}" for part, count in counts.items() if count]
    assert shown.endswith(f"{sum(counts.values())} parameters: {', '.join(parts)})")
    assert ("angle scale" in shown) is train_scale


def test_head_state_dict_has_five_names():
    module = QuantumHead(SMALL.updated(n_encoders=2, skip_connection=True), 8, 3)
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    assert shapes == {
        "weights": (module.circuit.n_weights,),
        "angle_scale": (),
        "encoder.weights": (2, 15),
        "linear.weight": (3, 7),
        "linear.bias": (3,),
    }


def test_head_state_dict_restores_head():
    first, second = head(SMALL, 8, seed=1), head(SMALL, 8, seed=2)
    rows = embeddings(3, 8)
    assert not torch.equal(first(rows), second(rows))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(rows), second(rows))


def test_head_seed_decides_parameters():
    def state(seed: int | None) -> dict[str, torch.Tensor]:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return QuantumHead(SMALL.updated(n_encoders=2), 8, 2, generator).state_dict()

    first = state(0)
    torch.manual_seed(987)  # torch's own generator has no say
    again, default, other = state(0), state(None), state(1)
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name
        assert torch.equal(tensor, default[name]), name
        assert torch.equal(tensor, other[name]) is (name == "angle_scale"), name
    assert not torch.equal(first["encoder.weights"][0], first["encoder.weights"][1])


def test_head_init_leaves_torch_generator_unchanged():
    before = torch.get_rng_state()
    QuantumHead(SMALL, 8, 2, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_head_init_has_small_angles_and_bounded_linear():
    module = QuantumHead(HeadConfig(n_qubits=8, encoder_layers=8, n_measured=4), 200, 5)
    for angles in (module.weights, module.encoder.weights):
        assert angles.std().item() == pytest.approx(0.1, rel=5 / math.sqrt(2 * angles.numel()))
    for parameter in module.linear.parameters():
        assert 0 < parameter.abs().max().item() <= 0.5


def test_head_dtype_is_float32_until_double():
    module = QuantumHead(SMALL, 8, 2)
    rows = embeddings(3, 8)
    single = module(rows.float())
    assert single.dtype == torch.float32
    double = module.double()(rows)
    assert double.dtype == torch.float64
    np.testing.assert_allclose(single.detach(), double.detach(), rtol=0, atol=1e-5)
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float64}


# --- training and evaluation mode --------------------------------------------------------------------------------

NOISE = NoiseConfig(depolarizing_2q=0.05, readout=((0.9, 0.2), (0.1, 0.8)))
MEASURED = {
    "shots": {"shots": 40},
    "two qubits": {"shots": 40, "n_measured": 2},
    "no shots in training": {"shots": 40, "gradient": "exact"},
    "parameter shift": {"shots": 40, "gradient": "parameter_shift"},
    "noise": {"noise": NOISE},
    "trajectories and shots": {"shots": 40, "noise": NOISE, "trajectories": 4},
    "mitigated": {"noise": NOISE, "mitigation": ("readout", "zero_noise")},
    "mitigated shots": {"shots": 40, "noise": NOISE, "mitigation": ("readout", "zero_noise")},
}
EACH_MEASUREMENT = pytest.mark.parametrize("settings", MEASURED.values(), ids=MEASURED)


def measured(module: QuantumHead, rows: torch.Tensor, seed: int = 3) -> torch.Tensor:
    module.generator = torch.Generator().manual_seed(seed)
    return module(rows)


@EACH_MEASUREMENT
def test_head_eval_with_gradients_equals_inference(settings):
    module, rows = head(SMALL.updated(**settings), 7).eval(), embeddings(5, 7)
    found = measured(module, rows)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(measured(module, rows), found)
    frozen = copy.deepcopy(module).requires_grad_(False)
    assert torch.equal(measured(frozen, rows), found)
    assert found.requires_grad


@pytest.mark.parametrize("readout", [None, ("Z0 X1", "Y2")])
def test_head_eval_mitigated_equals_mitigated_expectation(readout):
    config = SMALL.updated(**MEASURED["mitigated"], readout=readout)
    module, rows = head(config, 7).eval(), embeddings(5, 7)
    z = module.encoder(rows)
    values = mitigated_expectation(
        module.circuit,
        module.weights,
        module.angle_scale * z,
        observables=config.observables,
        mitigation=config.mitigation,
        noise=NOISE,
    )
    torch.testing.assert_close(module(rows), module.classify(values, z))


@pytest.mark.parametrize("gradient", ["reparameterized", "straight_through", "parameter_shift", "exact"])
def test_head_eval_shots_follow_binomial(gradient):
    module = head(SMALL.updated(shots=25, gradient=gradient), 7).eval()
    row = embeddings(1, 7)
    exact = module.with_measurement()._measure(module.angle_scale * module.encoder(row))
    inputs = (module.angle_scale * module.encoder(row)).expand(4000, -1)
    module.generator = torch.Generator().manual_seed(0)
    drawn = module._measure(inputs).detach()
    counts = (drawn + 1) / 2 * 25
    torch.testing.assert_close(counts, counts.round())  # whole numbers, which Gaussian noise is not
    spread = ((1 - exact**2) / 25).sqrt().item()
    assert drawn.mean().item() == pytest.approx(exact.item(), abs=5 * spread / 4000**0.5)
    assert drawn.std().item() == pytest.approx(spread, rel=0.1)


def test_head_eval_shots_have_gradient_of_mean():
    module, rows = head(SMALL.updated(shots=25), 7).eval(), embeddings(5, 7)
    measured(module, rows).sum().backward()
    exact = module.with_measurement().eval()
    exact.zero_grad()
    exact(rows).sum().backward()
    torch.testing.assert_close(module.weights.grad, exact.weights.grad)
    torch.testing.assert_close(module.encoder.weights.grad, exact.encoder.weights.grad)


@pytest.mark.parametrize("skip", [False, True])
def test_head_eval_mitigated_differentiates_linear_layer_only(skip):
    module = head(SMALL.updated(**MEASURED["mitigated"], skip_connection=skip), 7).eval()
    module(embeddings(5, 7)).sum().backward()
    assert module.linear.weight.grad.abs().max() > 0
    assert module.weights.grad is None
    assert (module.encoder.weights.grad is not None) == skip


def test_head_train_mode_applies_no_mitigation():
    rows = embeddings(5, 7)
    noisy = head(SMALL.updated(noise=NOISE), 7)
    mitigated = head(SMALL.updated(**MEASURED["mitigated"]), 7)
    torch.testing.assert_close(mitigated(rows), noisy(rows))
    with torch.no_grad():  # the mode decides, not the gradients
        torch.testing.assert_close(mitigated(rows), noisy(rows))
    exact = head(SMALL.updated(shots=9, gradient="exact"), 7)
    torch.testing.assert_close(exact(rows), head(SMALL, 7)(rows))
    assert not torch.allclose(exact.eval()(rows), head(SMALL, 7)(rows))


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.ones(8), r"embeddings have shape \(8,\); this head needs \(batch, 8\)"),
        (torch.ones(2, 7), r"embeddings have shape \(2, 7\); this head needs \(batch, 8\)"),
        (torch.ones(2, 9), r"embeddings have shape \(2, 9\); this head needs \(batch, 8\)"),
        (torch.ones(1, 2, 8), r"embeddings have shape \(1, 2, 8\); this head needs \(batch, 8\)"),
        (torch.ones(2, 8).double(), "embeddings are torch.float64; this head computes in torch.float32"),
        (torch.ones(2, 8).half(), "embeddings are torch.float16; this head computes in torch.float32"),
        (torch.ones(2, 8).long(), "embeddings are torch.int64; this head computes in torch.float32"),
        (torch.tensor([[1.0] * 8, [0.0] * 8]), "embedding 1 is all zeros"),
        (torch.tensor([[1.0] * 8, [math.nan] * 8]), "embedding 1 holds a number that is not finite"),
        (torch.tensor([[1.0] * 7 + [math.inf]]), "embedding 0 holds a number that is not finite"),
    ],
)
def test_head_wrong_embeddings_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        QuantumHead(SMALL, 8, 2)(rows)


@pytest.mark.parametrize("n_classes", [1, 0, -3])
def test_head_with_one_class_is_refused(n_classes):
    with pytest.raises(ConfigError, match=f"n_classes={n_classes}: a classifier needs at least two"):
        QuantumHead(SMALL, 8, n_classes)


def test_head_too_wide_embedding_is_refused():
    with pytest.raises(ConfigError, match="an embedding of width 768 needs n_qubits=10; n_qubits=3 holds 8"):
        QuantumHead(SMALL, 768, 2)


def test_head_nonfinite_parameters_are_refused():
    module = QuantumHead(SMALL, 8, 2)
    with torch.no_grad():
        module.weights[0] = math.nan
    with pytest.raises(InputError, match="weights holds a number that is not finite"):
        module(torch.ones(1, 8))


# --- ansatz, axis and readout ------------------------------------------------------------------------------------

PROGRAM = (
    'OPENQASM 3.0; include "stdgates.inc"; input float w_0; qubit[3] q; rx(w_0) q; cz q[0], q[2]; cp(2*w_0) q[1], q[2];'
)


@pytest.mark.parametrize("axis", ["x", "y", "z"])
@pytest.mark.parametrize("ansatz", ["ring", "strongly_entangling", "hardware_efficient", "ising", PROGRAM])
def test_head_of_any_ansatz_equals_qiskit_and_finite_differences(ansatz, axis):
    config = SMALL.updated(ansatz=ansatz, encoder_ansatz=ansatz, angle_axis=axis, readout=("X0 Z2", "Y1"))
    module, x = head(config, 6), embeddings(2, 6)
    angles = (module.angle_scale * module.encode(x)).detach()
    for row, read in zip(angles, module._measure(angles).detach(), strict=True):
        state = Statevector(to_qiskit(module.circuit, module.weights.tolist(), row.tolist()))
        expected = [state.expectation_value(SparsePauliOp(word)).real for word in ("ZIX", "IYI")]  # Qiskit's order
        assert read.tolist() == pytest.approx(expected, abs=1e-12)
    assert module.unreachable_angles() == 0 or ansatz in ("ring", PROGRAM)

    def logits(weights, encoder_weights):
        return torch.func.functional_call(module, {"weights": weights, "encoder.weights": encoder_weights}, (x,))

    angles = (module.weights.detach(), module.encoder.weights.detach())
    assert torch.autograd.gradcheck(logits, [each.clone().requires_grad_() for each in angles], atol=1e-6)


def test_head_readout_of_z_equals_measured_qubits():
    words, qubits = head(SMALL.updated(readout=("Z0", "Z1")), 6), head(SMALL.updated(n_measured=2), 6)
    torch.testing.assert_close(words(embeddings(4, 6)), qubits(embeddings(4, 6)))
    assert words.config.n_readouts == 2


@pytest.mark.parametrize("trajectories", [None, 400])
def test_head_readout_of_words_under_shots_and_noise(trajectories):
    noise = NoiseConfig(depolarizing_1q=0.01, depolarizing_2q=0.02, readout=((0.95, 0.1), (0.05, 0.9)))
    config = SMALL.updated(ansatz="ising", readout=("X0 Z2", "Y1", "Z0"))
    module, x = head(config, 6).eval(), embeddings(4, 6)
    angles = (module.angle_scale * module.encode(x)).detach()
    exact = module._measure(angles)
    noisy = module.with_measurement(noise=noise)._measure(angles)
    assert (exact - noisy).abs().max() > 0.01
    measured = module.with_measurement(noise=noise, shots=20_000, trajectories=trajectories)
    measured.generator = torch.Generator().manual_seed(0)
    assert (measured._measure(angles) - noisy).abs().max() < (0.05 if trajectories is None else 0.15)


def test_head_samples_words_by_group_in_training():
    words = ("Z0", "Z1", "Z0 Z1", "X0 X1")
    module = head(SMALL.updated(ansatz="strongly_entangling", readout=words, shots=1, gradient="straight_through"), 6)
    module.generator = torch.Generator().manual_seed(0)
    angles = (module.angle_scale * module.encode(embeddings(1, 6))).detach().expand(4000, -1)
    read = module._measure(angles).detach()
    torch.testing.assert_close(read[:, 0] * read[:, 1], read[:, 2])  # of the same shot
    exact = module.with_measurement()._measure(angles[:1]).detach()
    assert (read.mean(dim=0) - exact).abs().max() < 5 / 4000**0.5
    others = torch.corrcoef(read.T)[3, :3]  # of other shots
    assert others.abs().max() < 5 / 4000**0.5


@pytest.mark.parametrize("policy", ["reparameterized", "straight_through", "parameter_shift"])
def test_head_gradient_of_sampled_words_is_unbiased(policy):
    config = SMALL.updated(ansatz="strongly_entangling", readout=("Z0", "Y1", "X0 X1"))
    exact, x, copies = head(config, 6), embeddings(1, 6), 1000
    sampled = head(config.updated(shots=20, gradient=policy), 6)
    sampled.load_state_dict(exact.state_dict())
    sampled.generator = torch.Generator().manual_seed(0)
    exact(x)[:, 0].sum().backward()
    sampled(x.expand(copies, -1))[:, 0].mean().backward()
    # Each term of a gradient has a standard error of less than 1 / sqrt(shots * copies), times weights below 1.
    assert (sampled.weights.grad - exact.weights.grad).abs().max() < 5 * (20 * copies) ** -0.5
    assert exact.weights.grad.abs().max() > 0.1


def test_head_step_cost_counts_groups_of_words():
    settings = {"shots": 10, "gradient": "parameter_shift"}
    costs = {
        words: head(SMALL.updated(readout=words, **settings), 6).step_cost(4)
        for words in (("Z0", "Z1 Z2"), ("Z0", "Z1"), ("Z0", "X0 Z1"))
    }
    for n_measured, words, groups in ((3, ("Z0", "Z1 Z2"), 1), (2, ("Z0", "Z1"), 1), (2, ("Z0", "X0 Z1"), 2)):
        qubits = head(SMALL.updated(n_measured=n_measured, **settings), 6).step_cost(4)
        assert costs[words] == StepCost(groups * qubits.circuits, groups * qubits.shots)


def test_head_and_its_diagram_name_words_and_axis():
    config = SMALL.updated(readout=("X0", "Y1 Z2"), angle_axis="x")
    assert "2 Pauli words" in repr(head(config, 6))
    picture = draw_overview(config, 6, 2)
    assert "⟨P⟩" in picture and "RX(s·z)" in picture and "⟨Z⟩" not in picture


def test_head_step_cost_counts_gates_that_reach_x_alone() -> None:
    config = SMALL.updated(ansatz="hardware_efficient", readout=("X0",), shots=10, gradient="parameter_shift")
    cost, of_z = (head(each, 6).step_cost(4).circuits for each in (config, config.updated(readout=("Z0",))))
    assert cost == 4 * (1 + sum(shift_counts(config.light_cone()))) > of_z
