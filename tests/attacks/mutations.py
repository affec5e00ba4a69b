"""Ways to damage or forge the folder of a saved model, each by the chance of one case.

A mutation changes files and returns. What it does behind the back of the hashes is damage, and has to be refused or to
make no difference. A forgery ends with `seal`, which gives the record the hashes that fit: whoever can write a folder
can write those too, so that the checks behind them have to hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from ketfit.bodies.sources import file_hashes, fingerprint
from ketfit.persistence.schema import BODY, CARD, METADATA, WEIGHTS

Mutation = Callable[[random.Random, Path], None]

HUGE = [2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 10**4000]
NUMBERS: list[Any] = [0, -1, 1, 3, 29, 30, 31, 1_000, 999_999, *HUGE, 0.5, 1e308, -0.0, 1e-320]
STRINGS = ["", "a", "\0", "..", "../../etc/passwd", "/dev/zero", "file:///etc/passwd", "someone/model", "{{ 7 * 7 }}"]
STRINGS += ["\ud800", "\u202e", "<script>alert(1)</script>", "__class__", "ionq-forte", "9" * 5000, "é" * 70_000]
NESTED: list[Any] = [[], {}, [[]], [0] * 1000, {"a": {"b": {}}}, [1, "1"], [None], {"": 0}]
VALUES = [*NUMBERS, *STRINGS, *NESTED, None, True, False]
DTYPES = [
    "BOOL",
    "U8",
    "I8",
    "F8_E5M2",
    "F8_E4M3",
    "F4",
    "I16",
    "F16",
    "BF16",
    "I32",
    "F32",
    "F64",
    "I64",
    "U64",
    "C64",
]
RAW = [
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "9" * 4000,
    "9" * 5000,
    "0." + "1" * 5000,
    "1e-999999",
    "-0",
    "1E400",
    "0x1",
]


class Bomb:
    """What a pickle would run: it makes the folder ``boom`` beside the model's."""

    def __init__(self, place: Path) -> None:
        self.place = str(place / "boom")

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.place,)


def read_json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def seal(folder: Path) -> None:
    """Put hashes that fit into the record; without a record that is one, do nothing."""
    try:
        record = read_json(folder / METADATA)
        record["weights_sha256"] = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        if (folder / BODY).is_dir():
            record["body"]["tuned"]["fingerprint"] = fingerprint(file_hashes(folder / BODY))
        record.pop("record_sha256", None)
        text = json.dumps(record, sort_keys=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return
    write_json(folder / METADATA, {**record, "record_sha256": hashlib.sha256(text.encode()).hexdigest()})


def a_file(chance: random.Random, folder: Path, names: tuple[str, ...] = (WEIGHTS, METADATA)) -> Path:
    return folder / chance.choice(names)


# --- Bytes ------------------------------------------------------------------------------------------------------


def bit_flips(chance: random.Random, folder: Path) -> None:
    path = a_file(chance, folder, (WEIGHTS, METADATA, CARD))
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 1, 1, 2, 8, 64])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def sealed_bit_flips(chance: random.Random, folder: Path) -> None:
    bit_flips(chance, folder)
    seal(folder)


def truncation(chance: random.Random, folder: Path) -> None:
    path = a_file(chance, folder, (WEIGHTS, METADATA, CARD))
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(len(content))])


def growth(chance: random.Random, folder: Path) -> None:
    path = a_file(chance, folder)
    path.write_bytes(path.read_bytes() + chance.choice([b"\0", b"}", b"{}", chance.randbytes(100), b" " * 2**21, b"x"]))


def overwriting(chance: random.Random, folder: Path) -> None:
    path = a_file(chance, folder)
    content = bytearray(path.read_bytes())
    start, length = chance.randrange(len(content)), chance.randrange(1, 64)
    content[start : start + length] = chance.choice([bytes(length), b"\xff" * length, chance.randbytes(length)])
    path.write_bytes(content)


def exchange(chance: random.Random, folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "other")
    (folder / METADATA).rename(folder / WEIGHTS)
    (folder / "other").rename(folder / METADATA)


# --- The header of the tensors -----------------------------------------------------------------------------------


def header_and_data(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def write_header(folder: Path, header: str | bytes, data: bytes, length: int | None = None) -> None:
    raw = header if isinstance(header, bytes) else header.encode()
    size = len(raw) if length is None else length
    (folder / WEIGHTS).write_bytes((size % 2**64).to_bytes(8, "little") + raw + data)
    seal(folder)


def shapes(chance: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    entry = chance.choice([value for key, value in header.items() if key != "__metadata__"])
    entry["shape"] = [chance.choice([0, 1, 2, *HUGE[:-1], -1, 1.5, "2", None]) for _ in range(chance.randrange(9))]
    if chance.random() < 0.3:
        entry["shape"] = [1] * chance.choice([65, 1000, 100_000])
    write_header(folder, json.dumps(header), data)


def offsets(chance: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    for entry in chance.sample(sorted(header), chance.choice([1, 2])):
        header[entry]["data_offsets"] = [chance.choice([0, 8, len(data), *HUGE, -1]) for _ in range(2)]
    write_header(folder, json.dumps(header), data)


def types(chance: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    for entry in chance.sample(sorted(header), chance.choice([1, len(header)])):
        header[entry]["dtype"] = chance.choice([*DTYPES, "f64", "", "object", 3])
        if chance.random() < 0.5 and header[entry]["shape"]:
            header[entry]["shape"][0] *= chance.choice([2, 4, 8])
    write_header(folder, json.dumps(header), data)


def header_length(chance: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    write_header(folder, json.dumps(header), data, chance.choice([0, 1, 7, -1, 100_000_000, 2**32, 2**63, 2**64 - 8]))


def header_keys_twice(chance: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    key = chance.choice(sorted(header))
    again = json.dumps({key: header[chance.choice(sorted(header))]})[1:]
    write_header(folder, json.dumps(header)[:-1] + ", " + again, data)


def other_headers(chance: random.Random, folder: Path) -> None:
    _, data = header_and_data(folder / WEIGHTS)
    depth = chance.choice([10, 1000, 100_000])
    headers = ["", "null", "[]", "3", "{}", "{" * depth, "[" * depth, '{"a":' * depth + "0" + "}" * depth, "\0" * 8]
    headers += [
        '{"__metadata__": {"a": ' + chance.choice(RAW) + "}}",
        '{"__metadata__": []}',
        '{"__metadata__": {"a": {}}}',
    ]
    write_header(folder, chance.choice(headers), data)


def metadata(chance: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    header["__metadata__"] = {chance.choice(STRINGS): chance.choice(STRINGS) for _ in range(chance.randrange(4))}
    write_header(folder, json.dumps(header), data)


def bytes_of_header(chance: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    raw = bytearray(json.dumps(header).encode())
    for _ in range(chance.choice([1, 2, 5])):
        raw[chance.randrange(len(raw))] = chance.choice([*b'{}[]",:0918-', chance.randrange(256)])
    write_header(folder, bytes(raw), data)


# --- Tensors -----------------------------------------------------------------------------------------------------


def swapped_tensors(chance: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    one, other = chance.sample(sorted(header), 2)
    header[one], header[other] = header[other], header[one]
    write_header(folder, json.dumps(header), data)


def names(chance: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    header[chance.choice([*STRINGS, "weights", "linear.bias.more"])] = header.pop(chance.choice(sorted(header)))
    write_header(folder, json.dumps(header), data)


def numbers(chance: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    changed = bytearray(data)
    place = 8 * chance.randrange(len(data) // 8)
    wild = [float("nan"), float("inf"), -float("inf"), 5e-324, 1.7e308, -0.0]
    changed[place : place + 8] = torch.tensor(chance.choice(wild), dtype=torch.float64).numpy().tobytes()
    write_header(folder, json.dumps(header), bytes(changed))


# --- The record --------------------------------------------------------------------------------------------------


def a_place(chance: random.Random, record: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """A table of the record, the record itself among them, and one of its keys."""
    tables, found = [record], []
    while tables:
        table = tables.pop()
        found += [(table, key) for key in table]
        tables += [value for value in table.values() if isinstance(value, dict)]
    return chance.choice(found)


def values(chance: random.Random, folder: Path) -> None:
    record = read_json(folder / METADATA)
    for _ in range(chance.choice([1, 1, 2, 3])):
        table, key = a_place(chance, record)
        table[key] = chance.choice(VALUES)
    write_json(folder / METADATA, record)
    if chance.random() < 0.8:
        seal(folder)


def large_heads(chance: random.Random, folder: Path) -> None:
    """Settings of the head that ask for as much as they may, and for more."""
    record = read_json(folder / METADATA)
    most = [1, 2, 3, 12, 15, 16, 29, 30, 31, 1_000, 1_024, 20_000, 60_000, 400_000, 10**6, 10**9]
    sizes = [
        "n_qubits",
        "n_encoders",
        "encoder_layers",
        "connectivity",
        "n_reuploads",
        "reupload_layers",
        "main_layers",
    ]
    for name in chance.sample([*sizes, "n_measured"], chance.choice([1, 2, 3, 4])):
        record["head"][name] = chance.choice(most)
    record["head"]["merge"] = chance.choice(["mean", "concat"])
    record["head"]["encoder_input"] = chance.choice(["whole", "slices"])
    record["head"]["tie_reuploads"] = chance.random() < 0.5
    record["embedding_dim"] = chance.choice([4, 10**3, 10**6, 10**9, 2**62])
    if chance.random() < 0.3:
        record["classes"] = list(range(chance.choice([3, 1_000, 100_000])))
    write_json(folder / METADATA, record)
    seal(folder)


def large_heads_that_fit(chance: random.Random, folder: Path) -> None:
    """A head at the limits, with tensors that fit: few of them, where one set of angles serves all re-uploads."""
    record = read_json(folder / METADATA)
    width = chance.choice([4, 10, 14, 30])
    tied = chance.random() < 0.5
    layers = {"encoder_layers": chance.choice([0, 1, 2]), "main_layers": 1, "reupload_layers": chance.choice([0, 1])}
    head = {"n_qubits": width, "connectivity": chance.randrange(1, width), "tie_reuploads": tied, **layers}
    record["head"] |= {**head, "n_reuploads": chance.choice([10, 100, 300, 1_000]), "n_encoders": 1}
    record["embedding_dim"] = chance.choice([1, 4, 2**width])
    ring = [width * (head["connectivity"] * count + (count > 0)) for count in layers.values()]
    qpu = ring[1] + ring[2] * (1 if tied else record["head"]["n_reuploads"])
    features = record["head"]["n_measured"] + width
    sizes = {"encoder.weights": (1, ring[0]), "weights": (qpu,), "angle_scale": (), "linear.bias": (2,)}
    sizes["linear.weight"] = (2, features)
    tensors = {name: torch.full(shape, 0.5, dtype=torch.float64) for name, shape in sizes.items()}
    (folder / WEIGHTS).write_bytes(safetensors.torch.save(tensors))
    write_json(folder / METADATA, record)
    seal(folder)


def keys(chance: random.Random, folder: Path) -> None:
    record = read_json(folder / METADATA)
    table, key = a_place(chance, record)
    value = table.pop(key)
    if chance.random() < 0.5:
        table[chance.choice([key.upper(), key + " ", "\0", "__proto__", "", "schema_version"])] = value
    write_json(folder / METADATA, record)
    if chance.random() < 0.5:
        seal(folder)


def keys_twice(chance: random.Random, folder: Path) -> None:
    text = (folder / METADATA).read_text()
    lines = text.splitlines()
    place = chance.choice([i for i, line in enumerate(lines) if line.endswith(",")])
    lines.insert(place, lines[place])
    (folder / METADATA).write_text("\n".join(lines))


def raw_numbers(chance: random.Random, folder: Path) -> None:
    lines = (folder / METADATA).read_text().splitlines()
    place = chance.choice([i for i, line in enumerate(lines) if line.rstrip(",")[-1:].isdigit()])
    lines[place] = lines[place].partition(": ")[0] + ": " + chance.choice(RAW) + ","
    (folder / METADATA).write_text("\n".join(lines))


def deep_nesting(chance: random.Random, folder: Path) -> None:
    depth = chance.choice([10, 900, 1_100, 100_000])
    inner = chance.choice(["[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth])
    text = (folder / METADATA).read_text()
    (folder / METADATA).write_text(chance.choice([inner, text.replace('"metrics": {}', f'"metrics": {inner}')]))


# --- Files that are none -----------------------------------------------------------------------------------------


def links(chance: random.Random, folder: Path) -> None:
    path = a_file(chance, folder, (WEIGHTS, METADATA, CARD))
    path.rename(folder.parent / "target")
    places = ["/dev/zero", "/dev/random", "/dev/null", "/proc/self/mem", "/etc/passwd", "/", "nowhere", path.name, "."]
    path.symlink_to(chance.choice([*places, folder.parent / "target", WEIGHTS, METADATA]))


def special_files(chance: random.Random, folder: Path) -> None:
    path = a_file(chance, folder, (WEIGHTS, METADATA, CARD))
    path.unlink()
    kind = chance.choice(["pipe", "folder", "socket", "hole"])
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    else:
        path.touch()
        os.truncate(path, chance.choice([2**20, 2**30, 2**40]))


def pickles(chance: random.Random, folder: Path) -> None:
    bomb = Bomb(folder.parent)
    path = a_file(chance, folder)
    if chance.random() < 0.5:
        torch.save(bomb, path)
    else:
        path.write_bytes(pickle.dumps(bomb))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(bomb))
    seal(folder)


def lost_files(chance: random.Random, folder: Path) -> None:
    a_file(chance, folder, (WEIGHTS, METADATA, CARD)).unlink()


MUTATIONS: tuple[Mutation, ...] = (
    bit_flips,
    sealed_bit_flips,
    truncation,
    growth,
    overwriting,
    exchange,
    shapes,
    offsets,
    types,
    header_length,
    header_keys_twice,
    other_headers,
    metadata,
    bytes_of_header,
    swapped_tensors,
    names,
    numbers,
    values,
    large_heads,
    large_heads_that_fit,
    keys,
    keys_twice,
    raw_numbers,
    deep_nesting,
    links,
    special_files,
    pickles,
    lost_files,
)
