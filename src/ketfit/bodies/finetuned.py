"""Fine-tuned bodies: trainable copies, memory check, and storage in the cache."""

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
from torch import Tensor, nn

from ketfit.bodies.body import Body, Tuning, capture_library_logs, load_body, read_transformer
from ketfit.bodies.sources import file_hashes, fingerprint
from ketfit.errors import BodyError, ConfigError, InsufficientMemoryError, StorageError
from ketfit.memory import available_memory, memory_shortage
from ketfit.model.tuning import Precision, TuneConfig, TuningPrecision
from ketfit.storage.atomic import move_folder
from ketfit.storage.cache_dir import cache_folder, cached_folder, is_folder, write_to_cache
from ketfit.storage.hashing import hash_json

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_SMALLEST_CHUNK, _LARGEST_CHUNK = 8, 16  # sentences embedded at once; fewer pad less and use the cores less


def trainable_copy(body: Body, last_layers: int | None) -> SentenceTransformer:
    """Load a new float32 copy of the transformer of a body; only the tuned layers require gradients.

    Args:
        body: The body.
        last_layers: The number of last layers to tune; None tunes everything.

    Raises:
        BodyError: the body cannot be loaded again, was changed since it was loaded, has a default prompt, or its layers
            cannot be found.
        ConfigError: the body has fewer layers.
    """
    body.check_unchanged("and tuning starts from its files")
    transformer, _ = read_transformer(body.folder, str(body.transformer.device))
    if transformer.default_prompt_name is not None:
        raise BodyError(
            f"the body {body.name!r} puts the prompt {transformer.default_prompt_name!r} before sentences, and tuning "
            "does not; set default_prompt_name to null in its config_sentence_transformers.json, or leave it frozen"
        )
    if last_layers is not None:
        transformer[0].requires_grad_(False)
    for layer in layers_to_tune(transformer, last_layers, body.name):
        layer.requires_grad_(True)
    return transformer


def layers_to_tune(transformer: SentenceTransformer, last_layers: int | None, name: str) -> Sequence[nn.Module]:
    """Return the last layers of a transformer; an empty sequence if `last_layers` is None, which tunes everything.

    Raises:
        BodyError: the layers of the body `name` cannot be found.
        ConfigError: the body has fewer layers.
    """
    if last_layers is None:
        return ()
    layers = _find_layers(transformer[0], name)
    if last_layers > len(layers):
        raise ConfigError(f"last_layers={last_layers}: {name!r} has {len(layers)} layers")
    return list(layers)[-last_layers:]


def layer_learning_rates(
    transformer: SentenceTransformer, rate: float, decay: float
) -> list[tuple[list[nn.Parameter], float]]:
    """Return the trained parameters of a transformer in groups, each with its learning rate.

    The last layer and everything behind it (the pooling) have `rate`, each layer below `decay` times that of the layer
    above it, and the token embeddings that of a layer below the first one.

    Args:
        transformer: The transformer.
        rate: Learning rate of the last layer.
        decay: Factor from layer to layer; 1 makes one group.

    Raises:
        BodyError: the layers of the body cannot be found.
    """
    trained = {name: tensor for name, tensor in transformer.named_parameters() if tensor.requires_grad}
    if decay == 1:
        return [(list(trained.values()), rate)]
    layers = _find_layers(transformer[0], "the body")
    depth_of = {id(tensor): depth for depth, layer in enumerate(layers, 1) for tensor in layer.parameters()}
    depth_of |= {id(tensor): 0 for tensor in _token_embeddings(transformer[0])}
    groups: dict[int, list[nn.Parameter]] = {}
    for name, tensor in trained.items():
        outside = 0 if "embeddings." in name else len(layers)  # such as those of positions
        groups.setdefault(depth_of.get(id(tensor), outside), []).append(tensor)
    return [(groups[depth], rate * decay ** (len(layers) - depth)) for depth in sorted(groups)]


def _token_embeddings(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the token embeddings of a transformer, whatever their name; none if it has none."""
    try:
        return list(module.auto_model.get_input_embeddings().parameters())  # type: ignore[union-attr,operator]
    except (AttributeError, NotImplementedError):
        return []


def available_precision(precision: TuningPrecision, device: torch.device) -> Precision:
    """Return the precision to tune in: `auto` is bfloat16 on devices with instructions for it, else float32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    units = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    native = units.get("avx512_bf16") or units.get("amx_bf16")
    return "bfloat16" if device.type == "cpu" and native else "float32"


def check_memory(
    transformer: SentenceTransformer, sentences: int, tokens: int, *, copies: int, checkpoint: bool
) -> None:
    """Check that the free memory is enough for a training.

    It needs gradients, the two averages of AdamW, `copies` of the weights, and the float32 activations of one step by
    equation 1 of Korthikanti et al., arXiv 2205.05198.

    Args:
        transformer: The transformer to train.
        sentences: Number of sentences in one step.
        tokens: Number of tokens of the longest sentence.
        copies: Number of additional copies of all weights.
        checkpoint: Whether checkpoints are written; this takes twice their size for a moment.

    Raises:
        InsufficientMemoryError: the training needs more memory than is free; the message lists the parts.
    """
    weights = sum(parameter.numel() for parameter in transformer.parameters())
    trained = sum(parameter.numel() for parameter in transformer.parameters() if parameter.requires_grad)
    parts = {
        "gradients and AdamW's averages": 12 * trained,
        "copies of the weights": 4 * weights * copies,
        "activations": _activation_bytes(transformer, sentences, tokens),
        "a checkpoint while it is written": 2 * checkpoint * (8 * trained + 4 * max(trained, weights * copies * 2)),
    }
    need = sum(parts.values())
    device = transformer.device
    available = available_memory if device.type == "cpu" else partial(_free_memory, device)
    if (free := memory_shortage(need, available)) is not None:
        listed = ", ".join(f"{size / 2**30:,.1f} GiB of {name}" for name, size in parts.items() if size)
        raise InsufficientMemoryError(
            f"tuning needs {need / 2**30:,.1f} GiB ({listed}) and {free / 2**30:,.1f} GiB are free on {device}; "
            "use a smaller batch_size, fewer last_layers or a smaller body"
        )


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 2**62  # unknown for other devices


def _activation_bytes(transformer: SentenceTransformer, sentences: int, tokens: int) -> int:
    config = getattr(getattr(transformer[0], "auto_model", None), "config", None)
    width, heads = (getattr(config, name, 0) for name in ("hidden_size", "num_attention_heads"))
    if not width:
        return 0
    layers = _find_layers(transformer[0], "the body")
    trained = sum(any(parameter.requires_grad for parameter in layer.parameters()) for layer in layers)
    # Equation 1 is for two bytes per number, and a step was measured to need half as much again for a moment, hence the
    # factor 3; layers below the first trained one store nothing.
    return int(3 * trained * tokens * sentences * width * (34 + 5 * heads * tokens / width))


def _find_layers(module: nn.Module, name: str) -> nn.ModuleList:
    """Return the layers of a transformer: its longest list of modules of one class."""
    lists = [
        part for part in module.modules() if isinstance(part, nn.ModuleList) and len({type(item) for item in part}) == 1
    ]
    if not lists:
        raise BodyError(f"the layers of {name!r} cannot be found; leave last_layers out")
    return max(lists, key=len)


def max_token_count(transformer: SentenceTransformer, texts: Sequence[str]) -> int:
    """Return the number of tokens of the longest sentence after truncation."""
    mask = tokenize(transformer, sorted(texts, key=len)[-64:])["attention_mask"]
    return int(mask.sum(dim=1).max())


def tokenize(transformer: SentenceTransformer, texts: Sequence[str]) -> dict[str, Any]:
    """Return the inputs of a transformer by name; tensors have shape (len(texts), tokens)."""
    prepare = getattr(transformer, "preprocess", None) or transformer.tokenize  # sentence-transformers 6, then 4 and 5
    features: dict[str, Any] = prepare(list(texts))
    return features


def embed_by_length(model: nn.Module, features: dict[str, Tensor]) -> Tensor:
    """Return embeddings, shape (n, dimension), of tokenized sentences in chunks of similar length.

    Each chunk is cut to its longest sentence: in a batch of reviews half of the tokens are padding.

    Args:
        model: A sentence transformer.
        features: Its inputs; tensors of shape (n, tokens), with ``attention_mask`` among them.
    """
    mask = features.get("attention_mask")
    if mask is None:
        embeddings: Tensor = model(features)["sentence_embedding"]
        return embeddings
    order = mask.sum(dim=1).argsort(stable=True)
    parts = []
    for rows in torch.split(order, min(_LARGEST_CHUNK, max(_SMALLEST_CHUNK, len(order) // 4))):
        used = mask[rows].any(dim=0)
        chunk = {
            name: tensor[rows][:, used] if isinstance(tensor, Tensor) and tensor.shape == mask.shape else tensor
            for name, tensor in features.items()
        }
        parts.append(model(chunk)["sentence_embedding"])
    return torch.cat(parts)[order.argsort()]


def content_hash(inputs: Mapping[str, str]) -> str:
    """Return the SHA-256 (hex) of all inputs that determine a fine-tuned body."""
    return hash_json(sorted(inputs.items()))


def finetuned_folder(name: str) -> Path:
    """Return the folder of a fine-tuned body in the cache; it may not exist."""
    return cached_folder("tuned", name[:32])


def save_finetuned(transformer: SentenceTransformer, name: str | None) -> Path:
    """Save a transformer as safetensors and JSON in the folder of fine-tuned bodies, atomically.

    If the cache cannot be written, warn and use a temporary folder that is removed when the process ends.

    Args:
        transformer: The fine-tuned transformer.
        name: Name of its folder; an existing folder is kept. None is the fingerprint of the body.

    Raises:
        StorageError: neither the cache nor a temporary folder can be written.
    """

    def write(folder: Path) -> None:
        with capture_library_logs():
            transformer.save(str(folder), create_model_card=False, safe_serialization=True)

    return _save(write, name)


def save_files(files: Mapping[str, bytes], name: str) -> Path:
    """Save the files of a fine-tuned body, by path, in the folder `name`; see `save_finetuned`."""

    def write(folder: Path) -> None:
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)

    return _save(write, name)


def check_body_files(body: Body) -> None:
    """Check that the files of a body still exist unchanged.

    Raises:
        BodyError: the files were removed or changed after loading.
    """
    if not is_folder(body.folder) or fingerprint(file_hashes(body.folder)) != body.fingerprint:
        raise BodyError(
            f"the files of the body in {body.folder} were removed or changed since it was loaded, so that they cannot "
            "be saved or pickled; put them back, or load or fit it again"
        )


def _save(write: Callable[[Path], None], name: str | None) -> Path:
    return write_to_cache(cache_folder() / "tuned", lambda folder: _save_in(folder, write, name), "the tuned body")


def _save_in(parent: Path, write: Callable[[Path], None], name: str | None) -> Path:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tuned-", dir=parent, ignore_cleanup_errors=True) as scratch:
            staged = Path(scratch) / "body"
            write(staged)
            folder = parent / (fingerprint(file_hashes(staged)) if name is None else name)[:32]
            move_folder(staged, folder)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk raises any of them
        raise StorageError(
            f"the tuned body cannot be kept in {parent}: {error}. Make room, or set KETFIT_CACHE to another folder."
        ) from error
    return folder


def load_finetuned(folder: Path, base: Body, settings: TuneConfig, seed: int) -> Body:
    """Load a fine-tuned body from its folder, with the name of the original body.

    Args:
        folder: The folder.
        base: The body that it was tuned from; its own stages, if any, come first.
        settings: Settings of the last stage.
        seed: Seed of the last stage.
    """
    body = load_body(folder, device=str(base.transformer.device), dtype=base.dtype)
    earlier = base.tuning or Tuning((), seed, base.fingerprint)
    tuning = Tuning((*earlier.stages, settings), seed, earlier.base_fingerprint)
    return replace(body, name=base.name, revision=base.revision, source=base.source, tuning=tuning)


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seed torch inside the context, and restore the global random states of Python, NumPy and torch after it."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - libraries use it
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
