"""Describe a saved model without loading its body: ``ketfit inspect``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ketfit.cli.options import AsJson, Model
from ketfit.cli.output import key_value_table, print_report


def inspect(model: Model, as_json: AsJson = False) -> None:
    """Describe a saved model: body, circuits, parameters and training. The body is not loaded."""
    from ketfit.persistence.model_files import find_model, load_model

    head, record = load_model(find_model(model))
    circuits = {"encoder": head.encoder.circuit, "qpu": head.circuit}
    report: dict[str, Any] = {
        **record.model_dump(),
        "parameters": head.parameter_counts(),
        "projection": None
        if (projection := head.projection) is None
        else {"components": len(projection.directions), "fitted_numbers": projection.size},
        "unreachable_angles": head.unreachable_angles(),
        "qpu_step": asdict(cost) if (cost := head.step_cost(min(record.train.batch_size, record.train_size))) else None,
        "circuits": {
            name: {"qubits": circuit.n_qubits, **circuit.gate_counts(), "depth": circuit.depth()}
            for name, circuit in circuits.items()
        },
    }
    print_report(report, as_json, key_value_table(report))
