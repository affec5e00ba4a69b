"""Build the page of the demo with Gradio, and answer its events."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ketfit.app import views
from ketfit.app.trace import MAX_CHARACTERS, ClassicalTrace, MeasurementSettings, TracePredictor, check_length
from ketfit.data.tables import TextTable
from ketfit.errors import DataError, KetFitError
from ketfit.persistence.schema import HEAD_NAMES

if TYPE_CHECKING:
    import gradio

MAX_SHOTS, MAX_ERROR = 4000, 0.1
"""Ends of the sliders, unless the model was trained with more."""
MAX_SENTENCES = 1000
MAX_PARQUET_BYTES = 16 * 2**20
"""Largest size of a Parquet file after decompression."""
MAX_WAITING = 16
"""Requests that may wait in the queue; further ones are turned away."""
_TABLE_ROWS = 50
_BLOCK_ROWS = 4  # a dictionary stores a repeated value once, and each row read is a copy of it
_FILE_LIFETIME = (300, 900)  # seconds between two clean-ups of uploaded files, and their largest age
_SUFFIXES = [".csv", ".tsv", ".jsonl", ".parquet", ".txt"]


class Page:
    """The page and its callbacks.

    Args:
        predictor: The model.
        metadata: Names and values that describe the model.
    """

    def __init__(self, predictor: TracePredictor, metadata: list[tuple[str, str]]) -> None:
        self.predictor = predictor
        self.metadata = metadata
        self.max_shots, self.max_error = _slider_ends(predictor.trained_settings)

    def classify(self, sentence: str, shots: float, error: float, draw: float) -> tuple[str, str, str, str]:
        """Return the HTML of the prediction, the inputs, the circuit and the outputs."""
        try:
            trace = self.predictor.trace(_text(sentence), self._settings(shots, error, draw))
        except KetFitError as fault:
            return views.render_message(str(fault)), "", "", ""
        if isinstance(trace, ClassicalTrace):
            return views.render_prediction(trace), views.render_classical(trace), "", ""
        return (
            views.render_prediction(trace),
            views.render_inputs(trace),
            views.render_circuit(trace),
            views.render_outputs(trace),
        )

    def measure(self, sentence: str, shots: float, error: float, draw: float) -> tuple[str, str]:
        """Return the HTML that the sliders change: prediction and outputs; empty without a sentence."""
        if not _text(sentence).strip():
            return "", ""
        prediction, _, _, outputs = self.classify(sentence, shots, error, draw)
        return prediction, outputs

    def classify_file(self, path: str | None, shots: float, error: float) -> tuple[str, str | None]:
        """Return a table of the first sentences of a file, and a CSV file with all of them."""
        if path is None:
            return "", None
        try:
            return self._file(Path(path), self._settings(shots, error, 0))
        except KetFitError as fault:
            return views.render_message(str(fault).replace(path, "the file")), None

    def _file(self, path: Path, settings: MeasurementSettings) -> tuple[str, str]:
        sentences = _read_sentences(path)
        predicted = self.predictor.probabilities(sentences, settings)
        labels = [self.predictor.classes[row.index(max(row))] for row in predicted.rows]
        largest = [max(row) for row in predicted.rows]
        table = views.render_table(sentences, labels, largest, _TABLE_ROWS, predicted.notice)
        return table, _write(sentences, labels, predicted.rows, self.predictor.classes)

    def _settings(self, shots: float, error: float, draw: float) -> MeasurementSettings:
        """Return the settings of the controls; a request that is not from the page may hold any value."""
        try:
            count, probability, number = int(shots), float(error), int(draw)
        except (TypeError, ValueError, OverflowError) as fault:
            raise DataError("shots, error and draw are numbers") from fault
        if not (0 <= count <= self.max_shots and 0 <= probability <= self.max_error and 0 <= number < 2**31):
            raise DataError(f"shots go from 0 to {self.max_shots:,}, and the error from 0 to {self.max_error}")
        return MeasurementSettings(count or None, probability, number)

    def build(self) -> gradio.Blocks:
        """Return the page as Gradio blocks."""
        import gradio as gr

        trained = self.predictor.trained_settings
        blocks = gr.Blocks(title="KetFit", analytics_enabled=False, delete_cache=_FILE_LIFETIME)
        with blocks:
            gr.HTML(self._header())
            with gr.Tab("Type"):
                self._one_sentence(gr, trained)
            with gr.Tab("Upload"):
                self._many_sentences(gr, trained)
            with gr.Tab("About"):
                gr.HTML(views.render_metadata(self.metadata))
        blocks.queue(max_size=MAX_WAITING, default_concurrency_limit=1, status_update_rate=5)
        return blocks

    def _header(self) -> str:
        kind = self.predictor.classifier.classifier_.kind
        name, action = "quantum classification head", "and follow it through the circuit"
        if kind != "quantum":
            name, action = HEAD_NAMES[kind], "to classify it"
        text = f"A {name} on a sentence transformer. Type a sentence {action}."
        return f'<header class="kf-head"><h1>KetFit</h1><p class="kf-quiet">{text}</p></header>'

    def _one_sentence(self, gr: Any, trained: MeasurementSettings | None) -> None:
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=280):
                sentence = gr.Textbox(
                    label="Sentence",
                    placeholder="Type a sentence, then Enter",
                    lines=1,
                    max_lines=4,
                    max_length=MAX_CHARACTERS,
                )
                button = gr.Button("Classify", variant="primary")
                shots, error = _sliders(gr, trained)
                resample = gr.Button("Measure again", size="sm", visible=trained is not None)
            with gr.Column(scale=6, min_width=280):
                prediction = gr.HTML(_NO_PREDICTION)
        inputs, circuit, outputs = gr.HTML(), gr.HTML(), gr.HTML()
        draw = gr.Number(0, visible=False)
        settings = [sentence, shots, error, draw]
        for event in (sentence.submit, button.click):
            _on(event, self.classify, settings, [prediction, inputs, circuit, outputs])
        for slider in (shots, error):
            _on(slider.change, self.measure, settings, [prediction, outputs], trigger_mode="always_last")
        resample.click(lambda number: number + 1, draw, draw, api_visibility="private", show_progress="hidden").then(
            self.measure, settings, [prediction, outputs], api_visibility="private", **_EVENT_OPTIONS
        )

    def _many_sentences(self, gr: Any, trained: MeasurementSettings | None) -> None:
        gr.HTML(
            f'<p class="kf-quiet">A CSV, TSV, JSONL or Parquet file with a column "text", or a text file with a '
            f"sentence on each line; up to {MAX_SENTENCES:,} sentences.</p>"
        )
        upload = gr.UploadButton("Choose a file", file_types=_SUFFIXES, variant="primary")
        shots, error = _sliders(gr, trained)
        result = gr.HTML()
        download = gr.DownloadButton("Download all as CSV", visible=False)

        def run(path: str | None, shots: float, error: float) -> tuple[str, Any]:
            html, file = self.classify_file(path, shots, error)
            return html, gr.DownloadButton(value=file, visible=file is not None)

        _on(upload.upload, run, [upload, shots, error], [result, download])


_NO_PREDICTION = '<section class="kf-card kf-prediction"><p class="kf-quiet">Its label appears here.</p></section>'
_EVENT_OPTIONS: dict[str, Any] = {"show_progress": "hidden", "concurrency_id": "model", "concurrency_limit": 1}


def _on(event: Callable[..., Any], call: Callable[..., Any], inputs: Any, outputs: Any, **options: Any) -> None:
    event(call, inputs, outputs, api_visibility="private", **{**_EVENT_OPTIONS, **options})


def _sliders(gr: Any, trained: MeasurementSettings | None) -> tuple[Any, Any]:
    """Return the controls of shots and noise, which are hidden for a classical head."""
    start, shown = trained or MeasurementSettings(), trained is not None
    max_shots, max_error = _slider_ends(trained)
    shots = gr.Slider(0, max_shots, value=start.shots or 0, step=10, label="Shots (0 is exact)", visible=shown)
    error = gr.Slider(
        0, max_error, value=start.two_qubit_error, step=0.001, label="Error of a two-qubit gate", visible=shown
    )
    return shots, error


def _slider_ends(trained: MeasurementSettings | None) -> tuple[int, float]:
    """Return the largest shots and error of the controls, which include those of the training."""
    start = trained or MeasurementSettings()
    return max(MAX_SHOTS, start.shots or 0), max(MAX_ERROR, start.two_qubit_error)


def _read_sentences(path: Path) -> list[str]:
    """Return the sentences of a file; stop at the first that is too long, and when there are too many.

    Raises:
        DataError: the file cannot be read, or holds no sentence, too many of them, or too much other data.
        InputError: a sentence is blank or too long.
    """
    table = TextTable.find(path)
    if table.format == "parquet":
        _check_parquet(table)
    sentences: list[str] = []
    for block in table.blocks(_BLOCK_ROWS):
        texts = block.texts
        for sentence in texts:
            check_length(sentence)
        sentences += texts
        if len(sentences) > MAX_SENTENCES:
            raise DataError(
                f"the file holds more than {MAX_SENTENCES:,} sentences; for larger files run: "
                "ketfit predict MODEL --input FILE --output FILE"
            )
    if not sentences:
        raise DataError("the file holds no sentence")
    return sentences


def _check_parquet(table: TextTable) -> None:
    """Refuse a Parquet file of which a few rows may need much memory, before any of them is read."""
    with table.open_parquet(pre_buffer=False) as file:
        groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
        size = sum(group.total_byte_size for group in groups)
        if size > MAX_PARQUET_BYTES:
            raise DataError(
                f"the file has {size:,} bytes after decompression, and at most {MAX_PARQUET_BYTES:,} are read; "
                "keep the column of the sentences alone"
            )
        # Run lengths compress a list without a limit, and a row with a list is read as a whole.
        for index in range(len(file.schema)):
            if file.schema.column(index).max_repetition_level:
                name = file.schema.column(index).path
                raise DataError(f"the column {name!r} holds lists; keep the column of the sentences alone")


def _text(sentence: object) -> str:
    return sentence if isinstance(sentence, str) else ""


def _write(sentences: list[str], labels: list[str], rows: list[list[float]], classes: tuple[str, ...]) -> str:
    """Write a CSV file into Gradio's folder of temporary files and return its path."""
    folder = tempfile.mkdtemp(dir=tempfile.gettempdir())
    path = Path(folder, "predictions.csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "predicted_label", *(f"probability_{name}" for name in classes)])
        writer.writerows([text, label, *row] for text, label, row in zip(sentences, labels, rows, strict=True))
    return str(path)
