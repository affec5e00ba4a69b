from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest

import ketfit

SOURCE = Path(ketfit.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = [str(path.relative_to(SOURCE)) for path in FILES]

# Watches what `import ketfit` does in a process of its own, and prints it as JSON.
PROBE = """
import json, os, sys, time
opened, keys, events = [], [], []
def watch(event, args):
    if event == "open":
        opened.append((str(args[0]), args[1]))
    elif event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.putenv", "os.unsetenv",
                           "os.mkdir", "os.remove", "os.rename", "urllib.", "ctypes.")):
        events.append(event)
before = dict(os.environ)
read = os._Environ.__getitem__
os._Environ.__getitem__ = lambda self, key: (keys.append(key), read(self, key))[1]
sys.addaudithook(watch)
start = time.perf_counter()
import ketfit
seconds = time.perf_counter() - start
os._Environ.__getitem__ = read
opened, events = list(opened), list(events)
changed = dict(os.environ) != before
print(json.dumps({"seconds": seconds, "opened": opened, "keys": keys, "events": events, "changed": changed,
                  "modules": sorted(sys.modules)}))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Return the recorded events of `import ketfit` in an empty folder."""
    folder = tmp_path_factory.mktemp("import")
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", PROBE], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    return done, json.loads(done.stdout)


# --- importing ---------------------------------------------------------------------------------------------------


def test_import_is_quick_and_loads_nothing_heavy(imported):
    _, seen = imported
    assert seen["seconds"] < 1
    roots = {module.partition(".")[0] for module in seen["modules"]}
    assert "ketfit" in roots
    assert not roots & {"torch", "numpy", "scipy", "sklearn", "pydantic", "sentence_transformers", "rich", "typer"}


def test_import_prints_nothing(imported):
    done, _ = imported
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1, "one line, which is the probe's own"


def test_import_touches_no_file_environment_or_network(imported):
    _, seen = imported
    assert seen["events"] == []
    # An editable install finds modules through a hook of its build tool, which reads its own settings.
    assert [key for key in seen["keys"] if not key.startswith("SKBUILD_")] == []
    assert not seen["changed"]
    assert any(path.endswith("__init__.py") or ".pyc" in path for path, _ in seen["opened"]), "the probe saw nothing"
    others = [(path, mode) for path, mode in seen["opened"] if mode != "r" or not path.endswith((".py", ".pyc"))]
    assert others == []


# --- names -------------------------------------------------------------------------------------------------------


def test_public_names_are_at_most_fifteen_and_in_dir():
    assert len(ketfit.__all__) <= 15
    assert len(set(ketfit.__all__)) == len(ketfit.__all__)
    assert dir(ketfit) == sorted(ketfit.__all__)


@pytest.mark.parametrize("name", ketfit.__all__)
def test_public_names_exist_and_are_documented(name):
    value = getattr(ketfit, name)
    if name == "__version__":
        assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", value)
        return
    assert value.__name__ == name
    assert value.__module__.startswith("ketfit.")
    assert inspect.getdoc(value)
    assert getattr(importlib.import_module(value.__module__), name) is value
    assert getattr(ketfit, name) is value


def test_star_import_gives_the_public_names():
    space: dict[str, object] = {}
    code = "from ketfit import *"
    exec(code, space)
    assert set(space) - {"__builtins__"} == set(ketfit.__all__)


def test_lazy_imports_equal_the_type_checkers_imports():
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    guarded = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {
        alias.asname: statement.module
        for block in guarded
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert seen == ketfit._LAZY_IMPORTS


def test_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="module 'ketfit' has no attribute 'QuantumHeed'"):
        _ = ketfit.QuantumHeed
    assert not hasattr(ketfit, "numpy")
    with pytest.raises(ImportError, match="cannot import name 'QuantumHeed' from 'ketfit'"):
        from ketfit import QuantumHeed  # noqa: F401


# --- what may not stand in the source ----------------------------------------------------------------------------

UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "jsonpickle"}
UNSAFE_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "joblib.load",
    "torch.load",
    "numpy.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "pandas.read_pickle",
    "os.system",
    "os.popen",
}


def banned(source: str) -> Iterator[str]:
    """Yield the code of `source` that could run code from a file or hide an error."""
    tree = ast.parse(source)
    full_names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full_names |= {a.asname or a.name.partition(".")[0]: a.name if a.asname else a.name.partition(".")[0]
                           for a in node.names}  # fmt: skip
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            full_names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        for what in _banned_here(node, full_names):
            yield f"{getattr(node, 'lineno', 0)}: {what}"


def _banned_here(node: ast.AST, full_names: dict[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        yield from (f"import {module}" for module in modules if module.partition(".")[0] in UNSAFE_MODULES)
    if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
        head, dot, rest = ast.unparse(node).partition(".")
        name = full_names.get(head, head) + dot + rest
        if name in UNSAFE_CALLS:
            yield name
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg in ("shell", "allow_pickle", "trust_remote_code") and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                yield f"{keyword.arg}={ast.unparse(keyword.value)}"
        first = node.args[0] if node.args else None
        if isinstance(first, ast.Constant) and first.value in UNSAFE_MODULES:
            yield f"{ast.unparse(node.func)}({first.value!r})"
    if isinstance(node, ast.ExceptHandler):
        broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
        silent = all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body)
        if node.type is None:
            yield "bare except"
        elif broad and silent:
            yield f"except {ast.unparse(node.type)}: pass"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_source_has_no_banned_calls(path):
    assert list(banned(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", "1: import pickle"),
        ("import os, pickle as p", "1: import pickle"),
        ("from pickle import loads", "1: import pickle"),
        ("def f():\n    import dill.source", "2: import dill.source"),
        ("import importlib\nimportlib.import_module('pickle')", "2: importlib.import_module('pickle')"),
        ("import torch\ntorch.load(path)", "2: torch.load"),
        ("import torch as t\nt.load(path)", "2: torch.load"),
        ("from torch import load\nload(path)", "2: torch.load"),
        ("from torch import load as read\nread(path)", "2: torch.load"),
        ("import torch.nn\nf = torch.load", "2: torch.load"),
        ("import joblib\njoblib.load(path)", "2: joblib.load"),
        ("import numpy as np\nnp.load(path)", "2: numpy.load"),
        ("read(path, allow_pickle=True)", "1: allow_pickle=True"),
        ("read(path, allow_pickle=flag)", "1: allow_pickle=flag"),
        ("import yaml\nyaml.load(text)", "2: yaml.load"),
        ("eval(text)", "1: eval"),
        ("f = exec", "1: exec"),
        ("import subprocess\nsubprocess.run(x, shell=True)", "2: shell=True"),
        ("import os\nos.system(x)", "2: os.system"),
        ("load_model(x, trust_remote_code=True)", "1: trust_remote_code=True"),
        ("try:\n    f()\nexcept:\n    raise", "3: bare except"),
        ("try:\n    f()\nexcept Exception:\n    pass", "3: except Exception: pass"),
        (
            "for x in y:\n    try:\n        f()\n    except BaseException:\n        continue",
            "4: except BaseException: pass",
        ),
    ],
)
def test_banned_finder_finds_banned_code(source, found):
    assert list(banned(source)) == [found]


def test_banned_finder_allows_other_code():
    harmless = """
import json, safetensors.torch, torch
model.eval()
safetensors.torch.load(content)
json.load(file)
run(x, shell=False)
text = "never pickle, never torch.load"
try:
    f()
except OSError:
    pass
except Exception as error:
    raise ValueError from error
"""
    assert list(banned(harmless)) == []


def test_user_extras_have_upper_bounds():
    # A new major version of something optional must not arrive unasked.
    found = [
        re.fullmatch(r"([\w.-]+)(\[.*?\])?\s*([^;]*);.*extra == .([\w-]+).", line) for line in requires("ketfit") or []
    ]
    extras = [match for match in found if match and match[4] not in ("test", "check", "docs", "fuzz", "audit")]
    assert {"app", "hardware", "setfit", "study"} <= {match[4] for match in extras}
    assert [match[0] for match in extras if "<" not in match[3] and "==" not in match[3]] == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_file_name_is_not_a_catch_all(path):
    assert not {"utils", "util", "helpers", "helper", "common", "misc"} & {*path.relative_to(SOURCE).parts, path.stem}


def test_source_files_were_found():
    assert {"__init__.py", "errors.py", "simulate/statevector.py", "model/head.py"} <= {
        n.replace("\\", "/") for n in NAMES
    }
