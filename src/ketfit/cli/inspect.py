"""Describe a saved model without loading its body: ``ketfit inspect``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ketfit.cli.options import AsJson, Model
from ketfit.cli.output import key_value_table, print_report

if TYPE_CHECKING:
    from ketfit.model.head import QuantumHead
    from ketfit.persistence.schema import ModelMetadata


def inspect(model: Model, as_json: AsJson = False) -> None:
    """Describe a saved model: body, circuits, parameters and training. The body is not loaded."""
    from ketfit.persistence.model_files import build_head, find_model, load_head

    saved, metadata = load_head(find_model(model))
    n_classes = len(metadata.classes)
    report: dict[str, Any] = {
        **metadata.model_dump(),
        "parameters": saved.config.count_parameters(metadata.embedding_dim, n_classes),
    }
    if metadata.head_kind == "quantum":
        report |= _circuit_report(build_head(saved, n_classes), metadata)
    print_report(report, as_json, key_value_table(report))


def _circuit_report(head: QuantumHead, metadata: ModelMetadata) -> dict[str, Any]:
    """Return what there is to say about the circuits of a quantum head."""
    circuits = {"encoder": head.encoder.circuit, "qpu": head.circuit}
    assert metadata.train is not None
    cost = head.step_cost(min(metadata.train.batch_size, metadata.train_size))
    return {
        "projection": None
        if (projection := head.projection) is None
        else {"components": len(projection.directions), "fitted_numbers": projection.size},
        "unreachable_angles": head.unreachable_angles(),
        "qpu_step": asdict(cost) if cost else None,
        "circuits": {
            name: {"qubits": circuit.n_qubits, **circuit.gate_counts(), "depth": circuit.depth()}
            for name, circuit in circuits.items()
        },
    }
