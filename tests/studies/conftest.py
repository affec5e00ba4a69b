"""The programs in studies/ and benchmarks/ are imported from their folders, as they are when they are run."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[2] / folder) for folder in ("studies", "benchmarks")]
