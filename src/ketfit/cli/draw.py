"""Draw circuits: ``ketfit draw``."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ketfit.cli.options import AsJson, ConfigFile, circuit_settings, fit_config
from ketfit.cli.output import console
from ketfit.errors import ConfigError

if TYPE_CHECKING:
    from ketfit.circuit.circuit import Circuit


def draw(
    model: Annotated[str | None, typer.Argument(help="A saved model; its trained angles are shown.")] = None,
    config: ConfigFile = None,
    module: Annotated[Literal["encoder", "qpu"], typer.Option(help="Circuit to draw.")] = "qpu",
    encoder: Annotated[int, typer.Option(help="Index of the encoder, from 0.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write: .svg, .png or .pdf.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw a circuit as text, or as a picture with -o: of a model, of --config, or of the paper."""
    from ketfit.circuit.drawing.figure import draw_figure
    from ketfit.circuit.drawing.text import draw_text

    if model is not None and config is not None:
        raise typer.BadParameter("give a model or --config, not both")
    if encoder and module != "encoder":
        raise typer.BadParameter("--encoder chooses one of --module encoder; give that too")
    picture_format = None if output is None else _picture_format(output)
    circuit, weights, measured = _circuit_of(model, config, module, encoder)
    if output is None:
        drawing = draw_text(circuit, weights, measured=measured, width=console().width)
    else:
        from ketfit.storage.atomic import write_file

        picture = io.BytesIO()
        draw_figure(circuit, weights, measured=measured).savefig(picture, format=picture_format)
        write_file(output, picture.getvalue())
        drawing = str(output)
    if as_json:
        print(json.dumps({"module": module, "drawing": drawing}))  # noqa: T201
    else:
        print(drawing)  # noqa: T201


def _circuit_of(
    model: str | None, config: Path | None, module: str, encoder: int
) -> tuple[Circuit, Sequence[float] | None, Sequence[int]]:
    """Return the circuit to draw, its trained angles if it has any, and the measured qubits."""
    from ketfit.model.config import HeadConfig
    from ketfit.persistence.model_files import find_model, load_model

    head = None if model is None else load_model(find_model(model))[0]
    shape = HeadConfig.paper() if head is None else head.config
    if config is not None:
        shape = circuit_settings(fit_config(config, [], None, []).head, config)
    if not 0 <= encoder < shape.n_encoders:
        raise ConfigError(f"--encoder {encoder}: this head has encoders 0 to {shape.n_encoders - 1}")
    if module == "encoder":
        weights = None if head is None else head.encoder.weights[encoder].tolist()
        return shape.encoder_circuit(), weights, range(shape.n_qubits)
    measured = shape.read_qubits if shape.readout is None else ()  # the marks of a drawing are for Z
    return shape.qpu_circuit(), None if head is None else head.weights.tolist(), measured


def _picture_format(path: Path) -> str:
    format = path.suffix.removeprefix(".").lower()
    if format not in ("svg", "png", "pdf"):
        raise ConfigError(f"--output {path}: a picture is .svg, .png or .pdf")
    return format
