"""What the two ways to tune a body share: what is trained, whether it fits the memory, where the result is kept."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn

from ketfit.bodies.body import Body, Tuning, capture_library_logs, load_body, read_transformer
from ketfit.bodies.sources import file_hashes, fingerprint
from ketfit.errors import BodyError, ConfigError, InsufficientMemoryError, StorageError
from ketfit.memory import available_memory, memory_shortage
from ketfit.model.tuning import TuneConfig
from ketfit.storage.atomic import move_folder
from ketfit.storage.cache_dir import cache_folder, cached_folder, is_folder, write_to_cache
from ketfit.storage.hashing import hash_json

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def trainable_copy(body: Body, last_layers: int | None) -> SentenceTransformer:
    """A fresh float32 copy of a body's transformer, of which only what is to be tuned requires gradients.

    Raises:
        BodyError: the body cannot be loaded again, or its layers are not known.
        ConfigError: it has fewer layers than are to be tuned.
    """
    transformer, _ = read_transformer(body.folder, str(body.transformer.device))
    if last_layers is not None:
        transformer[0].requires_grad_(False)
    for layer in tuned_layers(transformer, last_layers, body.name):
        layer.requires_grad_(True)
    return transformer


def tuned_layers(transformer: SentenceTransformer, last_layers: int | None, name: str) -> Sequence[nn.Module]:
    """Return the layers of a transformer that `last_layers` names; none if that is None, which tunes everything.

    Raises:
        BodyError: the layers of the body `name` are not known.
        ConfigError: it has fewer layers.
    """
    if last_layers is None:
        return ()
    layers = _layers(transformer[0], name)
    if last_layers > len(layers):
        raise ConfigError(f"last_layers={last_layers}: {name!r} has {len(layers)} layers")
    return list(layers)[-last_layers:]


def check_memory(
    transformer: SentenceTransformer, sentences: int, tokens: int, *, copies: int, checkpoint: bool
) -> None:
    """Refuse to start what the free memory cannot hold.

    Gradients and AdamW's two averages are counted, `copies` of the weights, and the activations of one step after
    Korthikanti et al., arXiv 2205.05198, equation 1, in float32.

    Args:
        transformer: What will be trained.
        sentences: How many go through it in one step.
        tokens: Of the longest.
        copies: Of all the weights, that training keeps beside the ones it changes.
        checkpoint: Whether checkpoints are written, which takes twice their size for a moment.

    Raises:
        InsufficientMemoryError: with the need and the parts it consists of.
    """
    weights = sum(parameter.numel() for parameter in transformer.parameters())
    trained = sum(parameter.numel() for parameter in transformer.parameters() if parameter.requires_grad)
    parts = {
        "gradients and AdamW's averages": 12 * trained,
        "copies of the weights": 4 * weights * copies,
        "activations": _activations(transformer, sentences, tokens),
        "a checkpoint in the making": 2 * checkpoint * (8 * trained + 4 * max(trained, weights * copies * 2)),
    }
    need = sum(parts.values())
    device = transformer.device
    available = available_memory if device.type == "cpu" else partial(_free_on, device)
    if (free := memory_shortage(need, available)) is not None:
        listed = ", ".join(f"{size / 2**30:,.1f} GiB of {name}" for name, size in parts.items() if size)
        raise InsufficientMemoryError(
            f"tuning needs {need / 2**30:,.1f} GiB ({listed}) and {free / 2**30:,.1f} GiB are free on {device}; "
            "use a smaller batch_size, fewer last_layers or a smaller body"
        )


def _free_on(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 2**62  # elsewhere nobody tells


def _activations(transformer: SentenceTransformer, sentences: int, tokens: int) -> int:
    config = getattr(getattr(transformer[0], "auto_model", None), "config", None)
    width, heads = (getattr(config, name, 0) for name in ("hidden_size", "num_attention_heads"))
    if not width:
        return 0
    layers = _layers(transformer[0], "the body")
    trained = sum(any(parameter.requires_grad for parameter in layer.parameters()) for layer in layers)
    # Equation 1 is for two bytes a number, and a step was measured to hold half as much again for a moment, hence the
    # factor; layers below the first trained one keep nothing.
    return int(3 * trained * tokens * sentences * width * (34 + 5 * heads * tokens / width))


def _layers(module: nn.Module, name: str) -> nn.ModuleList:
    """The transformer's layers: the longest list of equal modules in it."""
    lists = [
        part for part in module.modules() if isinstance(part, nn.ModuleList) and len({type(item) for item in part}) == 1
    ]
    if not lists:
        raise BodyError(f"the layers of {name!r} are not known, so that last_layers cannot be tuned; leave it out")
    return max(lists, key=len)


def max_token_count(transformer: SentenceTransformer, texts: Sequence[str]) -> int:
    """Tokens of the longest of the sentences, as far as the body reads them; the memory depends on it."""
    mask = tokens_of(transformer, sorted(texts, key=len)[-64:])["attention_mask"]
    return int(mask.sum(dim=1).max())


def tokens_of(transformer: SentenceTransformer, texts: Sequence[str]) -> dict[str, Any]:
    """What the transformer reads of sentences, by name; tensors have a row each, of one length."""
    prepare = getattr(transformer, "preprocess", None) or transformer.tokenize  # sentence-transformers 6, then 4 and 5
    features: dict[str, Any] = prepare(list(texts))
    return features


# --- The folder of tuned bodies ---------------------------------------------------------------------------------


def digest(facts: Mapping[str, str]) -> str:
    """One hash of everything that decides a result."""
    return hash_json(sorted(facts.items()))


def tuned_folder(name: str) -> Path:
    """The folder of a tuned body in the cache; it is not created here."""
    return cached_folder("tuned", name[:32])


def save_finetuned(transformer: SentenceTransformer, name: str | None) -> Path:
    """Save a transformer in the folder of tuned bodies, as safetensors and JSON, whole or not at all.

    If the cache cannot be written, it warns, and the folder is a temporary one that is removed when the process ends.

    Args:
        transformer: What was tuned.
        name: Of its folder; what stands there already stays. None is its own fingerprint.

    Raises:
        StorageError: there is no room, in neither of the two.
    """

    def write(folder: Path) -> None:
        with capture_library_logs():
            transformer.save(str(folder), create_model_card=False, safe_serialization=True)

    return _kept(write, name)


def keep_files(files: Mapping[str, bytes], name: str) -> Path:
    """Write the files of a tuned body, by their paths, into its folder; as `save_finetuned`."""

    def write(folder: Path) -> None:
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)

    return _kept(write, name)


def check_files(body: Body) -> None:
    """Refuse a body whose files are gone, from the cache say, or are other ones.

    Raises:
        BodyError: they are not those that it was loaded from.
    """
    if not is_folder(body.folder) or fingerprint(file_hashes(body.folder)) != body.fingerprint:
        raise BodyError(
            f"the files of the body in {body.folder} were removed or changed since it was loaded, so that they cannot "
            "be saved or pickled; put them back, or load or fit it again"
        )


def _kept(write: Callable[[Path], None], name: str | None) -> Path:
    return write_to_cache(cache_folder() / "tuned", lambda place: _keep_in(place, write, name), "the tuned body")


def _keep_in(place: Path, write: Callable[[Path], None], name: str | None) -> Path:
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tuned-", dir=place, ignore_cleanup_errors=True) as scratch:
            staged = Path(scratch) / "body"
            write(staged)
            folder = place / (fingerprint(file_hashes(staged)) if name is None else name)[:32]
            move_folder(staged, folder)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk has many voices
        raise StorageError(
            f"the tuned body cannot be kept in {place}: {error}. Make room, or set KETFIT_CACHE to another folder."
        ) from error
    return folder


def tuned_body(folder: Path, base: Body, settings: TuneConfig, seed: int) -> Body:
    """The body in a folder of tuned ones, under the name of the one that it was made from."""
    made = load_body(folder, device=str(base.transformer.device), dtype=base.dtype)
    tuning = Tuning(settings, seed, base.fingerprint)
    return replace(made, name=base.name, revision=base.revision, source=base.source, tuning=tuning)


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Everything that libraries draw inside comes from the seed, and nothing outside is moved by it."""
    plain, array = random.getstate(), np.random.get_state()  # noqa: NPY002 - it is theirs
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(array)  # noqa: NPY002
