"""Describe a circuit once, then draw it, count its gates, train it and export it.

The circuit has two qubits and loads its input three times between trained rotations. It is a Fourier series of degree
three in its input (Schuld, Sweke and Meyer, arXiv 2008.08605), so it can learn a wave of that degree.
"""

from __future__ import annotations

import torch

from ketfit import Circuit, expectation
from ketfit.circuit import Angle, cx, ry
from ketfit.circuit.drawing.text import draw_text
from ketfit.circuit.export import to_qasm3

weights = iter(range(100))
gates = []
for _ in range(3):
    gates += [ry(qubit, Angle("weight", next(weights))) for qubit in (0, 1)]
    gates += [cx(0, 1), ry(0, Angle("input", 0)), cx(1, 0)]
gates += [ry(qubit, Angle("weight", next(weights))) for qubit in (0, 1)]
circuit = Circuit.from_gates(2, gates)

print(draw_text(circuit, measured=[0]))
print(f"{dict(circuit.gate_counts())}, depth {circuit.depth()}\n")

x = torch.linspace(-torch.pi, torch.pi, 40)[:, None]
wanted = 0.6 * torch.cos(x) - 0.3 * torch.cos(3 * x)
angles = torch.randn(circuit.n_weights, generator=torch.Generator().manual_seed(1)).requires_grad_()
optimizer = torch.optim.Adam([angles], lr=0.1)
for step in range(201):
    loss = (expectation(circuit, angles, x, qubits=(0,)) - wanted).square().mean()
    if step % 50 == 0:
        print(f"step {step:3}: mean squared error {loss.item():.5f}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

shots = expectation(circuit, angles.detach(), x[:1], shots=1000, generator=torch.Generator().manual_seed(0))
exact = expectation(circuit, angles.detach(), x[:1])
print(f"\nat x = -pi: wanted {wanted[0].item():.3f}, exact {exact.item():.3f}, from 1,000 shots {shots.item():.3f}\n")
print(to_qasm3(circuit, angles.tolist(), x[0].tolist(), measured=[0]))
