from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ketfit.errors import ConfigError, InputError
from ketfit.model.config import HeadConfig, check_width
from ketfit.model.encoder import Encoder, initial_angles, load_amplitudes
from tests.circuits import reference_expectation, reference_state


def embeddings(rows: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=(rows, width)), dtype=dtype)


def encoder(config: HeadConfig, width: int, seed: int = 0) -> Encoder:
    """An encoder in float64 with angles of all sizes."""
    module = Encoder(config, width, torch.Generator().manual_seed(seed)).double()
    with torch.no_grad():
        module.weights *= 10
    return module


# --- amplitudes --------------------------------------------------------------------------------------------------


def test_load_amplitudes_gives_direction_and_zeros():
    loaded = load_amplitudes(torch.tensor([[3.0, 0.0, -4.0], [0.0, -2.0, 0.0]], dtype=torch.float64), 3)
    expected = [[0.6, 0, -0.8, 0, 0, 0, 0, 0], [0, -1, 0, 0, 0, 0, 0, 0]]
    np.testing.assert_allclose(loaded, expected, rtol=0, atol=1e-15)
    assert (loaded[:, 3:] == 0).all()


def test_load_amplitudes_appends_reference_amplitude():
    loaded = load_amplitudes(torch.tensor([[3.0, 0.0, -4.0], [0.0, -2.0, 0.0]], dtype=torch.float64), 3, 0.75)
    # (x, c |x|) / |(x, c |x|)| with c = 3/4 and 1 + c**2 = (5/4)**2
    expected = [[0.48, 0, -0.64, 0.6, 0, 0, 0, 0], [0, -0.8, 0, 0.6, 0, 0, 0, 0]]
    np.testing.assert_allclose(loaded, expected, rtol=0, atol=1e-15)
    assert (loaded[:, 4:] == 0).all()


@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(1, 15),
    reference=st.one_of(st.just(0.0), st.floats(1e-6, 1e6)),
    exponent=st.integers(-100, 100),
)
@settings(max_examples=60, deadline=None)
def test_load_amplitudes_are_normalised_and_ignore_scale(seed, width, reference, exponent):
    rows = embeddings(3, width, seed)
    loaded = load_amplitudes(rows, 4, reference)
    assert loaded.shape == (3, 16)
    np.testing.assert_allclose(loaded.norm(dim=1), 1, rtol=0, atol=1e-14)
    np.testing.assert_allclose(load_amplitudes(rows * 10.0**exponent, 4, reference), loaded, rtol=0, atol=1e-14)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-10, 1.0, 1e10, 1e30, 1e38])
@pytest.mark.parametrize("reference", [0.0, 1.0])
def test_load_amplitudes_of_tiny_and_huge_embeddings_are_exact(scale, reference):
    rows = torch.nn.functional.normalize(embeddings(2, 6, dtype=torch.float32), dim=1)
    expected = load_amplitudes(rows, 3, reference)
    scaled = (rows * scale).requires_grad_()
    loaded = load_amplitudes(scaled, 3, reference)
    np.testing.assert_allclose(loaded.detach(), expected, rtol=0, atol=1e-6)
    loaded[:, 0].sum().backward()
    gradient = scaled.grad.double() * scale  # in float64, where neither overflows
    assert torch.isfinite(gradient).all()
    direction = rows.double()
    by_hand = (torch.eye(1, 6).double() - direction[:, :1] * direction) / math.sqrt(1 + reference**2)
    np.testing.assert_allclose(gradient, by_hand, rtol=0, atol=1e-5)


def test_load_amplitudes_keep_ratio_of_entries():
    loaded = load_amplitudes(torch.tensor([[1e-25, 1e25, 3e25]]), 2)
    np.testing.assert_allclose(loaded, [[0, 1 / math.sqrt(10), 3 / math.sqrt(10), 0]], rtol=0, atol=1e-7)


@pytest.mark.parametrize(("reference", "expected"), [(1e-200, [0.6, -0.8, 0, 0]), (1e200, [0, 0, 1, 0])])
def test_load_amplitudes_extreme_reference_keeps_norm(reference, expected):
    rows = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    np.testing.assert_allclose(load_amplitudes(rows, 2, reference), [expected], rtol=0, atol=1e-15)


@pytest.mark.parametrize("reference", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("width", [1, 3, 7])
def test_load_amplitudes_gradients_equal_finite_differences(reference, width):
    rows = embeddings(2, width, seed=width).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: load_amplitudes(x, 3, reference), rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_load_amplitudes_keeps_dtype_and_argument(dtype):
    rows = embeddings(2, 4, dtype=dtype)
    before = rows.clone()
    assert load_amplitudes(rows, 2).dtype == dtype
    assert torch.equal(rows, before)


def test_load_amplitudes_of_empty_batch_is_empty():
    assert load_amplitudes(torch.zeros(0, 5), 3, 1.0).shape == (0, 8)


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_load_amplitudes_zero_vector_is_refused(zero):
    rows = torch.ones(3, 4)
    rows[1] = zero
    with pytest.raises(InputError, match="embedding 1 is all zeros, and a zero vector has no direction"):
        load_amplitudes(rows, 3, 1.0)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_load_amplitudes_nonfinite_number_is_refused(number):
    rows = torch.ones(4, 3)
    rows[2, 1] = rows[3, 0] = number
    rows[1] = 0
    with pytest.raises(InputError, match=r"embedding 2 holds a number that is not finite \(NaN or infinity\)"):
        load_amplitudes(rows, 3)


@pytest.mark.parametrize(
    ("width", "n_qubits", "reference", "message"),
    [
        (5, 2, 0.0, "an embedding of width 5 needs n_qubits=3; n_qubits=2 holds 4 amplitudes"),
        (768, 9, 0.0, "an embedding of width 768 needs n_qubits=10; n_qubits=9 holds 512 amplitudes"),
        (1025, 2, 0.0, "an embedding of width 1025 needs n_qubits=11; n_qubits=2 holds 4"),
        (4, 2, 1.0, "an embedding of width 4 and its reference amplitude needs n_qubits=3; n_qubits=2 holds 4"),
        (1024, 10, 0.1, "width 1024 and its reference amplitude needs n_qubits=11; n_qubits=10 holds 1024"),
    ],
)
def test_encoder_too_wide_embedding_error_names_qubits(width, n_qubits, reference, message):
    with pytest.raises(ConfigError, match=message):
        check_width(width, n_qubits, reference)
    with pytest.raises(ConfigError, match=message):
        load_amplitudes(torch.ones(1, width), n_qubits, reference)
    config = HeadConfig(n_qubits=n_qubits, connectivity=1, reference_amplitude=reference)
    with pytest.raises(ConfigError, match=message):
        Encoder(config, width, torch.Generator())


@pytest.mark.parametrize(("width", "reference"), [(4, 0.0), (3, 1.0), (1, 0.0)])
def test_encoder_widest_embedding_is_accepted(width, reference):
    check_width(width, 2, reference)
    assert load_amplitudes(torch.ones(1, width), 2, reference).count_nonzero() == width + (reference > 0)


# --- encoders ----------------------------------------------------------------------------------------------------


def by_hand(module: Encoder, parts: list[np.ndarray]) -> np.ndarray:
    """<Z> of every qubit, shape (n_encoders, n_qubits), of one sample whose encoders see `parts`."""
    n_qubits, reference = module.config.n_qubits, module.config.reference_amplitude
    readouts = []
    for weights, part in zip(module.weights.detach().numpy(), parts, strict=True):
        amplitudes = np.zeros(2**n_qubits)
        amplitudes[: len(part)] = part
        amplitudes[len(part) : len(part) + 1] = reference * np.linalg.norm(part)
        state = reference_state(module.circuit, weights, [], amplitudes / np.linalg.norm(amplitudes))
        readouts.append(reference_expectation(state, range(n_qubits)))
    return np.array(readouts)


@pytest.mark.parametrize("reference", [0.0, 0.7])
@pytest.mark.parametrize("n_encoders", [1, 2, 3])
def test_encoder_concat_loads_whole_embedding(n_encoders, reference):
    config = HeadConfig(n_qubits=3, n_encoders=n_encoders, reference_amplitude=reference)
    module, rows = encoder(config, 6), embeddings(4, 6)
    expected = np.array([by_hand(module, [row] * n_encoders) for row in rows.numpy()])
    values = module(rows)
    assert values.shape == (4, 3 * n_encoders)
    np.testing.assert_allclose(values.detach(), expected.reshape(4, -1), rtol=0, atol=1e-12)
    module.config = config.updated(merge="mean")
    np.testing.assert_allclose(module(rows).detach(), expected.mean(axis=1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("merge", ["concat", "mean"])
@pytest.mark.parametrize("reference", [0.0, 0.7])
@pytest.mark.parametrize(
    ("width", "cuts"), [(6, (0, 3, 6)), (7, (0, 4, 7)), (5, (0, 2, 4, 5)), (3, (0, 1, 2, 3)), (8, (0, 3, 6, 8))]
)
def test_slice_widths_differ_by_at_most_one(width, cuts, reference, merge):
    n_encoders = len(cuts) - 1
    config = HeadConfig(
        n_qubits=3, n_encoders=n_encoders, encoder_input="slices", reference_amplitude=reference, merge=merge
    )
    module, rows = encoder(config, width), embeddings(3, width)
    parts = [[row[start:stop] for start, stop in itertools.pairwise(cuts)] for row in rows.numpy()]
    expected = np.array([by_hand(module, part) for part in parts])
    expected = expected.reshape(3, -1) if merge == "concat" else expected.mean(axis=1)
    np.testing.assert_allclose(module(rows).detach(), expected, rtol=0, atol=1e-12)
    assert module.widths == np.diff(cuts).tolist()


def test_encoder_slices_fit_where_whole_does_not():
    slices = HeadConfig(n_qubits=3, n_encoders=2, encoder_input="slices")
    assert Encoder(slices, 16, torch.Generator()).widths == [8, 8]
    with pytest.raises(ConfigError, match="an embedding of width 9 needs n_qubits=4; n_qubits=3 holds 8 amplitudes"):
        Encoder(slices, 17, torch.Generator())
    with pytest.raises(ConfigError, match="an embedding of width 16 needs n_qubits=4"):
        Encoder(slices.updated(encoder_input="whole"), 16, torch.Generator())
    with pytest.raises(ConfigError, match="width 8 and its reference amplitude needs n_qubits=4"):
        Encoder(slices.updated(reference_amplitude=1.0), 16, torch.Generator())


def test_encoder_more_encoders_than_entries_are_refused():
    config = HeadConfig(n_qubits=3, n_encoders=5, encoder_input="slices")
    with pytest.raises(ConfigError, match="n_encoders=5: an embedding of width 4 has too few slices"):
        Encoder(config, 4, torch.Generator())


def test_encoder_zero_slice_is_refused():
    module = encoder(HeadConfig(n_qubits=3, n_encoders=2, encoder_input="slices"), 8)
    rows = torch.ones(2, 8, dtype=torch.float64)
    rows[1, 4:] = 0
    with pytest.raises(InputError, match="embedding 1 is all zeros"):
        module(rows)


def test_encoder_without_layers_measures_amplitudes():
    module = encoder(HeadConfig(n_qubits=2, connectivity=1, encoder_layers=0), 4)
    assert module.weights.shape == (1, 0)
    values = module(torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64))
    np.testing.assert_allclose(values.detach(), [[(1 + 4 - 9 - 16) / 30, (1 - 4 + 9 - 16) / 30]], rtol=0, atol=1e-14)


def test_initial_angles_are_small_and_reproducible():
    draw = initial_angles(100, 50, generator=torch.Generator().manual_seed(3))
    assert draw.shape == (100, 50)
    assert abs(draw.mean().item()) < 0.1 * 5 / math.sqrt(5000)
    assert draw.std().item() == pytest.approx(0.1, rel=5 / math.sqrt(2 * 5000))
    assert torch.equal(draw, initial_angles(100, 50, generator=torch.Generator().manual_seed(3)))
    assert not torch.equal(draw, initial_angles(100, 50, generator=torch.Generator().manual_seed(4)))
