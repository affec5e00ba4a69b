"""Test the exceptions: the tree in the documentation, their bases, their messages and their copies."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import re

import pytest

import ketfit
from ketfit import errors

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value)
    and issubclass(value, BaseException)
    and value.__module__ == errors.__name__
    and not issubclass(value, Warning)
}
WARNINGS = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Warning)}
LINES = re.findall(r"^    ((?:│   |    )*)[├└]── (\w+) +\S.*?(?: \((\w+)\))?$", errors.__doc__, flags=re.MULTILINE)


def _tree():
    """Return for each class in the docstring its parent and its built-in base, or an empty string."""
    tree, above = {}, ["KetFitError"]
    for indent, name, built_in in LINES:
        depth = len(indent) // 4
        above[depth + 1 :] = [name]
        tree[name] = (above[depth], built_in)
    return tree


TREE = _tree()


def test_errors_docstring_lists_every_error():
    assert set(TREE) | {"KetFitError"} == set(CLASSES)
    assert errors.__doc__.count("── ") == len(LINES) == len(TREE), "a line of the tree could not be read"
    assert re.search(r"^    KetFitError$", errors.__doc__, flags=re.MULTILINE)


@pytest.mark.parametrize("name", sorted(CLASSES.keys() - {"KetFitError"}))
def test_errors_have_the_bases_of_the_tree(name):
    parent, built_in = TREE[name]
    assert built_in or parent != "KetFitError", "every branch of the tree has a built-in base"
    second = (getattr(importlib.import_module("builtins"), built_in),) if built_in else ()
    assert CLASSES[name].__bases__ == (CLASSES[parent], *second)
    assert CLASSES[name].__doc__


def test_warnings_are_user_warnings_and_documented():
    assert errors.KetFitWarning.__bases__ == (UserWarning,)
    for name in WARNINGS:
        assert issubclass(getattr(errors, name), errors.KetFitWarning)
        assert f"`{name}`" in errors.__doc__


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_errors_can_be_pickled(name):
    arguments = ("Drawing", "'ketfit[draw]'") if name == "MissingExtraError" else ("what is wrong",)
    error = CLASSES[name](*arguments)
    for copied in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert (type(copied), str(copied), vars(copied)) == (type(error), str(error), vars(error))
    limited = pickle.loads(pickle.dumps(errors.RateLimitError("too many", 2.5)))
    assert (str(limited), limited.retry_after_s) == ("too many", 2.5)


def test_root_error_is_a_plain_exception():
    assert errors.KetFitError.__bases__ == (Exception,)
    assert ketfit.KetFitError is errors.KetFitError


def test_missing_extra_names_the_pip_line():
    error = errors.MissingExtraError("Drawing", "'ketfit[draw]'")
    assert str(error) == "Drawing needs a package that is not installed: pip install 'ketfit[draw]'"
    with pytest.raises(ImportError, match=r"^Drawing needs .* pip install 'ketfit\[draw\]'$"):
        raise error
