"""A pytest plugin, ``-p tests.built_kernel``: tests use the module that KETFIT_KERNEL names, not the installed one."""

import importlib.util
import os
import sys

NAME = "ketfit.simulate._kernel"

spec = importlib.util.spec_from_file_location(NAME, os.environ["KETFIT_KERNEL"])
assert spec is not None and spec.loader is not None
sys.modules[NAME] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[NAME])
