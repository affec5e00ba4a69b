"""Tests of values with ranges and of the kinds of energy."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import ketfit
from ketfit.energy.quantities import Assumed, Measured, Modelled, UncertainValue
from ketfit.errors import InputError


@pytest.mark.parametrize("ends", [(math.inf, 0.0, math.inf), (0.0, -math.inf, 0.0), (math.nan, 0.0, 1.0)])
def test_uncertain_value_rejects_infinite_ends(ends: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="give finite numbers"):
        UncertainValue(*ends)


KINDS = (Measured, Modelled, Assumed)


@pytest.mark.parametrize("one", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_energies_of_different_kinds_do_not_add(one, other):
    left, right = one(UncertainValue(2, 1, 3)), other(UncertainValue(20, 10, 30))
    if one is other:
        assert left + right == one(UncertainValue(22, 11, 33))
    else:
        with pytest.raises(TypeError, match="unsupported operand"):
            left + right


def test_uncertain_value_rejects_wrong_order():
    with pytest.raises(InputError, match="in this order"):
        UncertainValue(1, 2, 3)


SUMS = """
from ketfit.energy.quantities import Assumed, Energy, Measured, Modelled

def sums(measured: Measured, modelled: Modelled, assumed: Assumed, energy: Energy) -> tuple[Energy, ...]:
    return (
        measured + modelled,  # type: ignore[operator]
        modelled + measured,  # type: ignore[operator]
        measured + assumed,  # type: ignore[operator]
        assumed + measured,  # type: ignore[operator]
        modelled + assumed,  # type: ignore[operator]
        assumed + modelled,  # type: ignore[operator]
        energy + measured,  # type: ignore[operator]
        energy + energy,  # type: ignore[operator]
    )
"""


@pytest.mark.slow
def test_mypy_rejects_sums_of_different_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mypy's strict mode reports an ignore that ignores nothing, so the run fails as soon as a sum is allowed."""
    api = pytest.importorskip("mypy.api")
    package = Path(ketfit.__file__).parent
    (tmp_path / "ketfit" / "energy").mkdir(parents=True)
    for name in ("errors.py", "energy/quantities.py"):  # alone: the whole package takes mypy more than a minute
        (tmp_path / "ketfit" / name).write_text((package / name).read_text())
    for name in ("__init__.py", "energy/__init__.py"):
        (tmp_path / "ketfit" / name).touch()
    (tmp_path / "sums.py").write_text(SUMS)
    monkeypatch.chdir(tmp_path)
    output, errors, code = api.run(["--strict", "--config-file=", "--cache-dir=cache", "sums.py"])
    assert (code, errors) == (0, ""), output
