"""The page of the demo: what is on it, and what each control does. It computes nothing itself."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ketfit.app import views as stations
from ketfit.app.trace import LONGEST, MeasurementSettings, TracePredictor, check_length, own_settings
from ketfit.data.tables import text_table
from ketfit.errors import DataError, KetFitError

if TYPE_CHECKING:
    import gradio

MAX_SHOTS, LARGEST_ERROR = 4000, 0.1
MAX_SENTENCES = 1000
MAX_WAITING = 16
"""Requests that may wait in the queue; further ones are turned away."""
_SHOWN = 50
_FILES_LIVE = (300, 900)  # seconds: how often uploaded files are looked at, and how old they get
_SUFFIXES = [".csv", ".tsv", ".jsonl", ".parquet", ".txt"]


class Page:
    """The callbacks of the page, on one traveller.

    Args:
        traveller: What computes.
        facts: What is told about the model, as names and values.
    """

    def __init__(self, traveller: TracePredictor, facts: list[tuple[str, str]]) -> None:
        self.traveller = traveller
        self.facts = facts

    def classify(self, sentence: str, shots: float, error: float, draw: float) -> tuple[str, str, str, str]:
        """HTML of the verdict, the way in, the circuit and the way out."""
        try:
            journey = self.traveller.travel(_text(sentence), _settings(shots, error, draw))
        except KetFitError as fault:
            return stations.render_message(str(fault)), "", "", ""
        return (
            stations.render_prediction(journey),
            stations.render_inputs(journey),
            stations.render_circuit(journey),
            stations.render_outputs(journey),
        )

    def measure(self, sentence: str, shots: float, error: float, draw: float) -> tuple[str, str]:
        """HTML of the verdict and the way out: what the sliders change. Nothing before the first sentence."""
        if not _text(sentence).strip():
            return "", ""
        verdict, _, _, way_out = self.classify(sentence, shots, error, draw)
        return verdict, way_out

    def classify_file(self, path: str | None, shots: float, error: float) -> tuple[str, str | None]:
        """A table of the sentences in a file, and a CSV file with all of them."""
        if path is None:
            return "", None
        try:
            return self._file(Path(path), _settings(shots, error, 0))
        except KetFitError as fault:
            return stations.render_message(str(fault).replace(path, "the file")), None

    def _file(self, path: Path, settings: MeasurementSettings) -> tuple[str, str]:
        sentences: list[str] = []
        for block in text_table(path).blocks(MAX_SENTENCES + 1):
            sentences += block.texts
            if len(sentences) > MAX_SENTENCES:
                raise DataError(
                    f"the file holds more than {MAX_SENTENCES:,} sentences; here is the place for a few, and for the "
                    "rest there is: ketfit predict MODEL --input FILE --output FILE"
                )
        if not sentences:
            raise DataError("the file holds no sentence")
        for sentence in sentences:
            check_length(sentence)
        labels, shares, rows = [], [], []
        for row in self.traveller.probabilities(sentences, settings):
            best = max(range(len(row)), key=row.__getitem__)
            labels.append(self.traveller.classes[best])
            shares.append(row[best])
            rows.append(row)
        return stations.render_table(sentences, labels, shares, _SHOWN), _write(
            sentences, labels, rows, self.traveller.classes
        )

    def build(self) -> gradio.Blocks:
        """The page as Gradio has it."""
        import gradio as gr

        own = own_settings(self.traveller.classifier.classifier_.module_)
        blocks = gr.Blocks(title="KetFit", analytics_enabled=False, delete_cache=_FILES_LIVE)
        with blocks:
            gr.HTML(self._header())
            with gr.Tab("Type"):
                self._one_sentence(gr, own)
            with gr.Tab("Upload"):
                self._many_sentences(gr, own)
            with gr.Tab("About"):
                gr.HTML(stations.render_metadata(self.facts))
        blocks.queue(max_size=MAX_WAITING, default_concurrency_limit=1, status_update_rate=5)
        return blocks

    def _header(self) -> str:
        return (
            '<header class="kf-head"><h1>KetFit</h1><p class="kf-quiet">A quantum classification head on a sentence '
            "transformer. Type a sentence and follow it through the circuit.</p></header>"
        )

    def _one_sentence(self, gr: Any, own: MeasurementSettings) -> None:
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=280):
                sentence = gr.Textbox(
                    label="Sentence",
                    placeholder="Type a sentence, then Enter",
                    lines=1,
                    max_lines=4,
                    max_length=LONGEST,
                )
                button = gr.Button("Classify", variant="primary")
                shots, error = _sliders(gr, own)
                again = gr.Button("Measure again", size="sm")
            with gr.Column(scale=6, min_width=280):
                verdict = gr.HTML(_EMPTY)
        way_in, circuit, way_out = gr.HTML(), gr.HTML(), gr.HTML()
        draw = gr.Number(0, visible=False)
        settings = [sentence, shots, error, draw]
        for event in (sentence.submit, button.click):
            _on(event, self.classify, settings, [verdict, way_in, circuit, way_out])
        for slider in (shots, error):
            _on(slider.change, self.measure, settings, [verdict, way_out], trigger_mode="always_last")
        again.click(lambda number: number + 1, draw, draw, api_visibility="private", show_progress="hidden").then(
            self.measure, settings, [verdict, way_out], api_visibility="private", **_QUIET
        )

    def _many_sentences(self, gr: Any, own: MeasurementSettings) -> None:
        gr.HTML(
            f'<p class="kf-quiet">A CSV, TSV, JSONL or Parquet file with a column "text", or a text file with a '
            f"sentence on each line; up to {MAX_SENTENCES:,} sentences.</p>"
        )
        upload = gr.UploadButton("Choose a file", file_types=_SUFFIXES, variant="primary")
        shots, error = _sliders(gr, own)
        result = gr.HTML()
        download = gr.DownloadButton("Download all as CSV", visible=False)

        def run(path: str | None, shots: float, error: float) -> tuple[str, Any]:
            html, file = self.classify_file(path, shots, error)
            return html, gr.DownloadButton(value=file, visible=file is not None)

        _on(upload.upload, run, [upload, shots, error], [result, download])


_EMPTY = '<section class="kf-card kf-verdict"><p class="kf-quiet">Its label appears here.</p></section>'
_QUIET: dict[str, Any] = {"show_progress": "hidden", "concurrency_id": "model", "concurrency_limit": 1}


def _on(event: Callable[..., Any], call: Callable[..., Any], inputs: Any, outputs: Any, **options: Any) -> None:
    event(call, inputs, outputs, api_visibility="private", **{**_QUIET, **options})


def _sliders(gr: Any, own: MeasurementSettings) -> tuple[Any, Any]:
    shots = gr.Slider(0, MAX_SHOTS, value=min(own.shots or 0, MAX_SHOTS), step=10, label="Shots (0 is exact)")
    error = gr.Slider(
        0, LARGEST_ERROR, value=min(own.two_qubit_error, LARGEST_ERROR), step=0.001, label="Error of a two-qubit gate"
    )
    return shots, error


def _text(sentence: object) -> str:
    return sentence if isinstance(sentence, str) else ""


def _settings(shots: float, error: float, draw: float) -> MeasurementSettings:
    """The controls' numbers, which may be anything when the request is not from the page."""
    try:
        count, chance, number = int(shots), float(error), int(draw)
    except (TypeError, ValueError, OverflowError) as fault:
        raise DataError("shots, error and draw are numbers") from fault
    if not (0 <= count <= MAX_SHOTS and 0 <= chance <= LARGEST_ERROR and 0 <= number < 2**31):
        raise DataError(f"shots go from 0 to {MAX_SHOTS:,}, and the error from 0 to {LARGEST_ERROR}")
    return MeasurementSettings(count or None, chance, number)


def _write(sentences: list[str], labels: list[str], rows: list[list[float]], classes: tuple[str, ...]) -> str:
    """A CSV file in Gradio's own folder of temporary files."""
    folder = tempfile.mkdtemp(dir=tempfile.gettempdir())
    path = Path(folder, "predictions.csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "predicted_label", *(f"probability_{name}" for name in classes)])
        writer.writerows([text, label, *row] for text, label, row in zip(sentences, labels, rows, strict=True))
    return str(path)
