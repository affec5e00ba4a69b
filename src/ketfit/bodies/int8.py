"""Bodies in int8 on ONNX Runtime: export, quantization, and embedding of one sentence per thread.

sentence-transformers' own ONNX and OpenVINO backends need Optimum, which admits no recent version of transformers, so
that the export is done with torch and the quantization with ONNX Runtime.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ketfit.errors import BodyError, ConfigError, MissingExtraError, StorageError
from ketfit.storage.atomic import move_folder
from ketfit.storage.cache_dir import cache_folder, cached_folder, is_folder, write_to_cache
from ketfit.storage.hashing import hash_json

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_RECIPE = "1"  # raised with every change of the quantization, so that files of earlier versions are not used
_FILE = "model.onnx"
_SENTENCES = (
    "A good film.",
    "The service was slow, and the food arrived cold after an hour of waiting.",
    "What is the capital of Australia?",
    "shares of the company fell 3.5% in early trading on monday",
    "I can't believe how well this works!",
    "In 1969, two astronauts walked on the moon while a third stayed in orbit around it.",
    "not worth the money",
    "Please reset my password; the link that you sent me has expired.",
    "The proof follows from the previous lemma by induction on the number of vertices.",
    "beautifully shot, sharply written and acted with great conviction by the whole cast",
)
# One scale per input of a layer holds its largest number: where that is so far beyond the others, they lose their bits.
_MAX_OUTLIER = 90.0  # times the root mean square
_MIN_SIMILARITY = 0.9


class Int8Encoder:
    """Embed sentences with a quantized transformer, and with the pooling of the original one.

    Every sentence is embedded alone, so that its embedding does not depend on others, and nothing is padded.

    Args:
        transformer: The original transformer on the CPU.
        path: The file that `load_int8` made for it.

    Attributes:
        key: The name of the file's folder: a hash of the body's fingerprint and the versions of the libraries.
    """

    def __init__(self, transformer: SentenceTransformer, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.key = path.parent.name
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._transformer = transformer

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return embeddings, shape (len(texts), dimension); sentences run on as many threads as torch uses."""
        from ketfit.bodies.finetuned import tokenize  # imports the module that imports this one

        features = tokenize(self._transformer, texts)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            rows = list(pool.map(lambda row: self._embed(features, row), range(len(texts))))
        return torch.stack(rows).float().numpy()

    @torch.no_grad()
    def _embed(self, features: dict[str, Any], row: int) -> Tensor:
        used = features["attention_mask"][row].bool()
        sentence = {name: features[name][row][used][None] for name in {*self._inputs, "attention_mask"}}
        (tokens,) = self._session.run(None, {name: sentence[name].numpy() for name in self._inputs})
        pooled: dict[str, Any] = {**sentence, "token_embeddings": torch.from_numpy(tokens)}
        for module in list(self._transformer)[1:]:
            pooled = module(pooled)
        embedding: Tensor = pooled["sentence_embedding"][0]
        return embedding


def load_int8(transformer: SentenceTransformer, fingerprint: str, name: str) -> Int8Encoder:
    """Return the int8 encoder of a body; its file is made once, in the folder ``int8`` of the cache.

    Args:
        transformer: The body's transformer on the CPU, in float32.
        fingerprint: The identity of the body; with the versions of the libraries it names the file.
        name: The body's name, for errors.

    Raises:
        MissingExtraError: onnx or onnxruntime is not installed.
        BodyError: The body cannot be converted, or its int8 embeddings are too different.
        StorageError: Neither the cache nor a temporary folder can be written.
    """
    check_int8_packages()
    import onnxruntime

    versions = {
        "onnx": version("onnx"),
        "onnxruntime": onnxruntime.__version__,  # its distribution may be another one, such as onnxruntime-gpu
        "torch": version("torch"),
        "transformers": version("transformers"),
    }
    key = hash_json([_RECIPE, fingerprint, versions])[:32]
    folder = cached_folder("int8", key)
    if not is_folder(folder):
        _check_convertible(transformer, name)
        folder = write_to_cache(
            cache_folder() / "int8", lambda parent: _export(transformer, parent, key, name), "the int8 body"
        )
    try:
        return Int8Encoder(transformer, folder / _FILE)
    except Exception as error:  # ONNX Runtime has a class for each of its codes
        raise BodyError(f"{folder / _FILE} is damaged: {error}. Delete {folder}; it is created again.") from error


def check_int8_packages() -> None:
    """Check that the packages of the extra ``int8`` are installed.

    Raises:
        MissingExtraError: One is missing.
    """
    if not all(find_spec(package) for package in ("onnx", "onnxruntime")):
        raise MissingExtraError("Embedding in int8", "'ketfit[int8]'")


def int8_device(device: str | None) -> str:
    """Return "cpu", which None means too.

    Raises:
        ConfigError: The device is not a CPU.
    """
    if device is not None and str(device).partition(":")[0] != "cpu":
        raise ConfigError(f"dtype='int8' runs on the CPU, not on {device!r}; use dtype='bfloat16' or device='cpu'")
    return "cpu"


def _check_convertible(transformer: SentenceTransformer, name: str) -> None:
    if getattr(transformer[0], "auto_model", None) is None:
        raise BodyError(f"The body {name!r} has no transformer that can be converted to int8; use dtype='float32'.")
    if transformer.default_prompt_name is not None:
        raise BodyError(
            f"The body {name!r} puts the prompt {transformer.default_prompt_name!r} before sentences, which its int8 "
            "form does not; use dtype='float32'."
        )


def _export(transformer: SentenceTransformer, parent: Path, key: str, name: str) -> Path:
    """Write the quantized model to ``parent/key`` atomically, and return the folder."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".int8-", dir=parent, ignore_cleanup_errors=True) as scratch:
            staged = Path(scratch) / "body"
            staged.mkdir()
            _convert(transformer, Path(scratch) / "float32.onnx", staged / _FILE, name)
            move_folder(staged, parent / key)
    except OSError as error:
        raise StorageError(
            f"the int8 body cannot be kept in {parent}: {error}. Make room, or set KETFIT_CACHE to another folder."
        ) from error
    return parent / key


def _convert(transformer: SentenceTransformer, exact: Path, quantized: Path, name: str) -> None:
    from ketfit.bodies.body import capture_library_logs

    try:
        with capture_library_logs(), _muted_root_logger():
            expected, outliers = _reference(transformer)
            _write_onnx(transformer, exact)
            _quantize(exact, quantized, outliers)
            embeddings = Int8Encoder(transformer, quantized).encode(_SENTENCES)
    except OSError:
        raise
    except Exception as error:
        raise BodyError(
            f"The body {name!r} cannot be converted to int8: {error}. Use dtype='float32' or 'bfloat16'."
        ) from error
    norms = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(expected, axis=1)
    similarity = float(((embeddings * expected).sum(axis=1) / norms).min())
    if not similarity >= _MIN_SIMILARITY:
        raise BodyError(
            f"The body {name!r} loses too much in int8: an embedding has cosine similarity {similarity:.2f} to the one "
            f"in float32, and at least {_MIN_SIMILARITY} is needed. Use dtype='float32' or 'bfloat16'."
        )


@torch.no_grad()
def _reference(transformer: SentenceTransformer) -> tuple[np.ndarray, list[str]]:
    """Return the float32 embeddings of `_SENTENCES`, and the linear layers whose inputs have large outliers."""
    ratios: dict[str, list[float]] = {}

    def record(name: str, x: Tensor) -> None:
        ratios.setdefault(name, []).append((x.abs().max() / x.square().mean().sqrt()).item())

    layers = {name: part for name, part in _model(transformer).named_modules() if isinstance(part, nn.Linear)}
    hooks = [
        layer.register_forward_hook(lambda _, inputs, __, name=name: record(name, inputs[0]))
        for name, layer in layers.items()
    ]
    try:
        embeddings = [transformer.encode([text], show_progress_bar=False)[0] for text in _SENTENCES]
    finally:
        for hook in hooks:
            hook.remove()
    return np.stack(embeddings), [name for name, values in ratios.items() if np.mean(values) > _MAX_OUTLIER]


def _model(transformer: SentenceTransformer) -> nn.Module:
    model = transformer[0].auto_model
    assert isinstance(model, nn.Module)
    return model


class _TokenEmbeddings(nn.Module):
    """A transformers model as a function of positional tensors, for the export."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the last hidden states, shape (batch, tokens, width)."""
        result: Tensor = self.model(**dict(zip(self.names, inputs, strict=True)), return_dict=True).last_hidden_state
        return result


def _write_onnx(transformer: SentenceTransformer, path: Path) -> None:
    from ketfit.bodies.finetuned import tokenize

    features = {
        name: value for name, value in tokenize(transformer, _SENTENCES[:2]).items() if isinstance(value, Tensor)
    }
    names = list(features)
    axes = {name: {0: "batch", 1: "tokens"} for name in [*names, "token_embeddings"]}
    torch.onnx.export(
        _TokenEmbeddings(_model(transformer), names).eval(),
        tuple(features.values()),
        str(path),
        input_names=names,
        output_names=["token_embeddings"],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,  # the other exporter needs a further package and names nodes otherwise
    )


def _quantize(exact: Path, quantized: Path, outliers: Sequence[str]) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # A node is named by its module with slashes, but for the numbers of a list: /model/encoder/layer.0/output/MatMul.
    excluded = {f".model.{name}.MatMul" for name in outliers}
    nodes = [node.name for node in onnx.load(exact, load_external_data=False).graph.node]
    exceptions = [name for name in nodes if name.replace("/", ".") in excluded]
    # Seven bits: with eight, sums of two products overflow on AVX2, and embeddings would depend on the processor.
    quantize_dynamic(
        exact,
        quantized,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=exceptions,
    )


@contextmanager
def _muted_root_logger() -> Iterator[None]:
    """Drop what ONNX Runtime's quantization logs on the root logger."""
    root = logging.getLogger()
    before, root.disabled = root.disabled, True
    try:
        yield
    finally:
        root.disabled = before
