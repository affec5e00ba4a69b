"""Ways to damage or forge the folder of a saved model, each by the random generator of a case.

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
    """Create the folder ``boom`` beside the model folder; a pickle would run this."""

    def __init__(self, place: Path) -> None:
        self.place = str(place / "boom")

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.place,)


def read_json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def seal(folder: Path) -> None:
    """Write correct hashes into the metadata, if it can be parsed."""
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


def a_file(rng: random.Random, folder: Path, names: tuple[str, ...] = (WEIGHTS, METADATA)) -> Path:
    return folder / rng.choice(names)


# --- Bytes ------------------------------------------------------------------------------------------------------


def bit_flips(rng: random.Random, folder: Path) -> None:
    path = a_file(rng, folder, (WEIGHTS, METADATA, CARD))
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 1, 2, 8, 64])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def sealed_bit_flips(rng: random.Random, folder: Path) -> None:
    bit_flips(rng, folder)
    seal(folder)


def truncation(rng: random.Random, folder: Path) -> None:
    path = a_file(rng, folder, (WEIGHTS, METADATA, CARD))
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def growth(rng: random.Random, folder: Path) -> None:
    path = a_file(rng, folder)
    path.write_bytes(path.read_bytes() + rng.choice([b"\0", b"}", b"{}", rng.randbytes(100), b" " * 2**21, b"x"]))


def overwriting(rng: random.Random, folder: Path) -> None:
    path = a_file(rng, folder)
    content = bytearray(path.read_bytes())
    start, length = rng.randrange(len(content)), rng.randrange(1, 64)
    content[start : start + length] = rng.choice([bytes(length), b"\xff" * length, rng.randbytes(length)])
    path.write_bytes(content)


def exchange(rng: random.Random, folder: Path) -> None:
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


def shapes(rng: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    entry = rng.choice([value for key, value in header.items() if key != "__metadata__"])
    entry["shape"] = [rng.choice([0, 1, 2, *HUGE[:-1], -1, 1.5, "2", None]) for _ in range(rng.randrange(9))]
    if rng.random() < 0.3:
        entry["shape"] = [1] * rng.choice([65, 1000, 100_000])
    write_header(folder, json.dumps(header), data)


def offsets(rng: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    for entry in rng.sample(sorted(header), rng.choice([1, 2])):
        header[entry]["data_offsets"] = [rng.choice([0, 8, len(data), *HUGE, -1]) for _ in range(2)]
    write_header(folder, json.dumps(header), data)


def types(rng: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    for entry in rng.sample(sorted(header), rng.choice([1, len(header)])):
        header[entry]["dtype"] = rng.choice([*DTYPES, "f64", "", "object", 3])
        if rng.random() < 0.5 and header[entry]["shape"]:
            header[entry]["shape"][0] *= rng.choice([2, 4, 8])
    write_header(folder, json.dumps(header), data)


def header_length(rng: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    write_header(folder, json.dumps(header), data, rng.choice([0, 1, 7, -1, 100_000_000, 2**32, 2**63, 2**64 - 8]))


def header_keys_twice(rng: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    key = rng.choice(sorted(header))
    again = json.dumps({key: header[rng.choice(sorted(header))]})[1:]
    write_header(folder, json.dumps(header)[:-1] + ", " + again, data)


def other_headers(rng: random.Random, folder: Path) -> None:
    _, data = header_and_data(folder / WEIGHTS)
    depth = rng.choice([10, 1000, 100_000])
    headers = ["", "null", "[]", "3", "{}", "{" * depth, "[" * depth, '{"a":' * depth + "0" + "}" * depth, "\0" * 8]
    headers += [
        '{"__metadata__": {"a": ' + rng.choice(RAW) + "}}",
        '{"__metadata__": []}',
        '{"__metadata__": {"a": {}}}',
    ]
    write_header(folder, rng.choice(headers), data)


def metadata(rng: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    header["__metadata__"] = {rng.choice(STRINGS): rng.choice(STRINGS) for _ in range(rng.randrange(4))}
    write_header(folder, json.dumps(header), data)


def bytes_of_header(rng: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    raw = bytearray(json.dumps(header).encode())
    for _ in range(rng.choice([1, 2, 5])):
        raw[rng.randrange(len(raw))] = rng.choice([*b'{}[]",:0918-', rng.randrange(256)])
    write_header(folder, bytes(raw), data)


# --- Tensors -----------------------------------------------------------------------------------------------------


def swapped_tensors(rng: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    one, other = rng.sample(sorted(header), 2)
    header[one], header[other] = header[other], header[one]
    write_header(folder, json.dumps(header), data)


def names(rng: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    header[rng.choice([*STRINGS, "weights", "linear.bias.more"])] = header.pop(rng.choice(sorted(header)))
    write_header(folder, json.dumps(header), data)


def numbers(rng: random.Random, folder: Path) -> None:
    header, data = header_and_data(folder / WEIGHTS)
    changed = bytearray(data)
    place = 8 * rng.randrange(len(data) // 8)
    wild = [float("nan"), float("inf"), -float("inf"), 5e-324, 1.7e308, -0.0]
    changed[place : place + 8] = torch.tensor(rng.choice(wild), dtype=torch.float64).numpy().tobytes()
    write_header(folder, json.dumps(header), bytes(changed))


# --- The record --------------------------------------------------------------------------------------------------


def a_place(rng: random.Random, record: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return a table of the metadata, at any level, and one of its keys."""
    tables, found = [record], []
    while tables:
        table = tables.pop()
        found += [(table, key) for key in table]
        tables += [value for value in table.values() if isinstance(value, dict)]
    return rng.choice(found)


def values(rng: random.Random, folder: Path) -> None:
    record = read_json(folder / METADATA)
    for _ in range(rng.choice([1, 1, 2, 3])):
        table, key = a_place(rng, record)
        table[key] = rng.choice(VALUES)
    write_json(folder / METADATA, record)
    if rng.random() < 0.8:
        seal(folder)


def large_heads(rng: random.Random, folder: Path) -> None:
    """Set settings of the head at and beyond their limits."""
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
    for name in rng.sample([*sizes, "n_measured"], rng.choice([1, 2, 3, 4])):
        record["head"][name] = rng.choice(most)
    record["head"]["merge"] = rng.choice(["mean", "concat"])
    record["head"]["encoder_input"] = rng.choice(["whole", "slices"])
    record["head"]["tie_reuploads"] = rng.random() < 0.5
    record["embedding_dim"] = rng.choice([4, 10**3, 10**6, 10**9, 2**62])
    if rng.random() < 0.3:
        record["classes"] = list(range(rng.choice([3, 1_000, 100_000])))
    write_json(folder / METADATA, record)
    seal(folder)


def large_heads_that_fit(rng: random.Random, folder: Path) -> None:
    """Write a head at the limits with fitting tensors."""
    record = read_json(folder / METADATA)
    width = rng.choice([4, 10, 14, 30])
    tied = rng.random() < 0.5
    layers = {"encoder_layers": rng.choice([0, 1, 2]), "main_layers": 1, "reupload_layers": rng.choice([0, 1])}
    head = {"n_qubits": width, "connectivity": rng.randrange(1, width), "tie_reuploads": tied, **layers}
    record["head"] |= {**head, "n_reuploads": rng.choice([10, 100, 300, 1_000]), "n_encoders": 1}
    record["embedding_dim"] = rng.choice([1, 4, 2**width])
    ring = [width * (head["connectivity"] * count + (count > 0)) for count in layers.values()]
    qpu = ring[1] + ring[2] * (1 if tied else record["head"]["n_reuploads"])
    features = record["head"]["n_measured"] + width
    sizes = {"encoder.weights": (1, ring[0]), "weights": (qpu,), "angle_scale": (), "linear.bias": (2,)}
    sizes["linear.weight"] = (2, features)
    tensors = {name: torch.full(shape, 0.5, dtype=torch.float64) for name, shape in sizes.items()}
    (folder / WEIGHTS).write_bytes(safetensors.torch.save(tensors))
    write_json(folder / METADATA, record)
    seal(folder)


def ansatz_programs(rng: random.Random, folder: Path) -> None:
    """Set the ansatz, the axis and the readout to programs and words that cost, or are wrong."""
    record = read_json(folder / METADATA)
    nested = "".join(f"gate g{k + 1} a {{ g{k} a; g{k} a; }} " for k in range(40))
    opening = 'OPENQASM 3.0; include "stdgates.inc"; qubit[2] q; '
    programs = [
        opening + "cz q[0], q[1];",
        opening + "rx(" + "(" * rng.choice([10, 100, 10_000]) + "1) q[0];",
        opening + "rx(1) q; " * rng.choice([10, 1_000, 50_000]),
        f"OPENQASM 3.0; gate g0 a {{ U(1, 2, 3) a; }} {nested} qubit[2] q; g{rng.choice([3, 20, 40])} q[0];",
        "OPENQASM 3.0; input float w_1000000; qubit[2] q; U(w_1000000, 0, 0) q[0];",
        "OPENQASM 3.0; input float x_0; qubit[2] q; U(x_0, 0, 0) q[0];",
        f"OPENQASM 3.0; qubit[{rng.choice([2, 1_000, 10**9])}] q; U(1e999, 0, 0) q;",
        'OPENQASM 3.0; include "/etc/passwd"; qubit[2] q;',
        rng.choice(["ising", "strongly_entangling", "RING", "", "\0", "OPENQASM", "{{ 7 * 7 }}"]),
    ]
    record["head"][rng.choice(["ansatz", "encoder_ansatz"])] = rng.choice(programs)
    record["head"]["angle_axis"] = rng.choice(["x", "y", "z", "w"])
    words = [["Z0"], ["X0 Y1"], ["Z" * 10_000], [f"Z{10**6}"], ["Z0"] * 2, [f"Z{k}" for k in range(5_000)], [], None]
    record["head"]["readout"] = rng.choice(words)
    write_json(folder / METADATA, record)
    seal(folder)


def keys(rng: random.Random, folder: Path) -> None:
    record = read_json(folder / METADATA)
    table, key = a_place(rng, record)
    value = table.pop(key)
    if rng.random() < 0.5:
        table[rng.choice([key.upper(), key + " ", "\0", "__proto__", "", "schema_version"])] = value
    write_json(folder / METADATA, record)
    if rng.random() < 0.5:
        seal(folder)


def keys_twice(rng: random.Random, folder: Path) -> None:
    text = (folder / METADATA).read_text()
    lines = text.splitlines()
    place = rng.choice([i for i, line in enumerate(lines) if line.endswith(",")])
    lines.insert(place, lines[place])
    (folder / METADATA).write_text("\n".join(lines))


def raw_numbers(rng: random.Random, folder: Path) -> None:
    lines = (folder / METADATA).read_text().splitlines()
    place = rng.choice([i for i, line in enumerate(lines) if line.rstrip(",")[-1:].isdigit()])
    lines[place] = lines[place].partition(": ")[0] + ": " + rng.choice(RAW) + ","
    (folder / METADATA).write_text("\n".join(lines))


def deep_nesting(rng: random.Random, folder: Path) -> None:
    depth = rng.choice([10, 900, 1_100, 100_000])
    inner = rng.choice(["[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth])
    text = (folder / METADATA).read_text()
    (folder / METADATA).write_text(rng.choice([inner, text.replace('"metrics": {}', f'"metrics": {inner}')]))


# --- Files that are none -----------------------------------------------------------------------------------------


def links(rng: random.Random, folder: Path) -> None:
    path = a_file(rng, folder, (WEIGHTS, METADATA, CARD))
    path.rename(folder.parent / "target")
    places = ["/dev/zero", "/dev/random", "/dev/null", "/proc/self/mem", "/etc/passwd", "/", "nowhere", path.name, "."]
    path.symlink_to(rng.choice([*places, folder.parent / "target", WEIGHTS, METADATA]))


def special_files(rng: random.Random, folder: Path) -> None:
    path = a_file(rng, folder, (WEIGHTS, METADATA, CARD))
    path.unlink()
    kind = rng.choice(["pipe", "folder", "socket", "hole"])
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    else:
        path.touch()
        os.truncate(path, rng.choice([2**20, 2**30, 2**40]))


def pickles(rng: random.Random, folder: Path) -> None:
    bomb = Bomb(folder.parent)
    path = a_file(rng, folder)
    if rng.random() < 0.5:
        torch.save(bomb, path)
    else:
        path.write_bytes(pickle.dumps(bomb))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(bomb))
    seal(folder)


def lost_files(rng: random.Random, folder: Path) -> None:
    a_file(rng, folder, (WEIGHTS, METADATA, CARD)).unlink()


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
    ansatz_programs,
    keys,
    keys_twice,
    raw_numbers,
    deep_nesting,
    links,
    special_files,
    pickles,
    lost_files,
)
