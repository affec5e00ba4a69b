"""Test the spread of the readout of untrained heads against the logits that the head itself gives."""

from __future__ import annotations

import initial_spread
import numpy as np
import pytest
import torch

from ketfit import HeadConfig
from ketfit.model.head import QuantumHead
from ketfit.rng import torch_stream


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1])
def test_spread_is_that_of_the_logits_before_training(seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(40, 7)).astype(np.float32)
    config = HeadConfig.paper(n_qubits=3)
    head = QuantumHead(config, 7, 2, torch_stream(seed, "init"))
    logits = head(torch.from_numpy(x))
    slope = head.linear.weight[1, 0] - head.linear.weight[0, 0]
    expected = (logits[:, 1] - logits[:, 0]).std() / slope.abs()
    assert initial_spread.initial_spread(config, x, seed) == pytest.approx(expected.item(), rel=1e-4)


def test_table_has_a_line_for_each_number_of_qubits() -> None:
    samples = {0: np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)}
    lines = list(initial_spread.make_table(samples, 7))
    assert [line.split("|")[1].strip() for line in lines[2:]] == [str(n) for n in initial_spread.N_QUBITS]
