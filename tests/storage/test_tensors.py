"""Safetensors files."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch

from ketfit.storage.tensors import read_tensors, write_tensors


def test_write_tensors_then_read_tensors_returns_the_same(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.zeros(0), "c": torch.tensor(3, dtype=torch.int64)}
    write_tensors(tmp_path / "file", tensors, {"note": 'ü "x" \\ {}'})
    loaded, metadata = read_tensors(tmp_path / "file")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert metadata == {"note": 'ü "x" \\ {}'}


def test_read_tensors_without_metadata_returns_empty_metadata(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "file")
    assert read_tensors(tmp_path / "file")[1] == {}
